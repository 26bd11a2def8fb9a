//! The manifest of a checkpoint: a text file that is published atomically, once everything it references is
//! durable.
//!
//! ```text
//!   checkpoint-0001795402800123000.json    { epoch, chain, from, at, steps: [ { name, segments: [ … ] } ] }
//!                                          BLAKE3 of the line above
//!   catalogue.json                         { app, dataflow }, and its BLAKE3
//! ```

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::{Definition, Expression, StateIdentity};
use crate::error::{Error, Result};
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// The format version of manifests and segments.
pub(crate) const FORMAT: u32 = 4;

/// The oldest format whose catalogue can be read: it identifies the owner of checkpoints of any format.
const CATALOGUE_FORMAT_MIN: u32 = 3;

/// A checkpoint: the state of everything as of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The application and the dataflow.
    pub app: String,
    /// See `app`.
    pub dataflow: String,
    /// The epoch.
    pub epoch: Epoch,
    /// The ledger's generation that wrote it.
    pub generation: u64,
    /// The ledger's chain hash as of the epoch, which identifies its history.
    pub chain: String,
    /// The build that wrote it.
    pub build: String,
    /// Who computed the state.
    pub lineage: Lineage,
    /// When it was written, in microseconds since the Unix epoch.
    pub made_us: u64,
    /// The hash that divides keys into buckets, and the number of buckets.
    pub buckets: (String, usize),
    /// The fold of the ledger's bindings where the views' histories begin; `None`: at the ledger's start. A
    /// restore reads the bindings from here to `epoch` without their records.
    pub from: Option<Base>,
    /// The fold of the bindings as of `epoch`: a later checkpoint may start here.
    pub at: Base,
    /// Every stateful step.
    pub steps: Vec<StepFiles>,
}

/// Who computed a state. All zeros if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// A hash of the program that computed it last, with its plan.
    pub program: u64,
    /// A hash over all programs that contributed, and where each took over:
    /// [`Results::lineage`](crate::position::Results).
    pub state: u64,
}

/// The fold of all bindings up to an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// All of them as one binding: each partition's empty range at its position, each source's watermark,
    /// topic and schemas.
    pub binding: EpochBinding,
    /// Watermarks of the sets of sources that steps follow.
    pub sets: Vec<(Vec<SourceId>, EventTime)>,
}

/// The signature of a step: what must be equal for its state to be reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSignature {
    /// Its identity.
    pub identity: StateIdentity,
    /// Its name in messages.
    pub step: String,
    /// The names of all steps that it depends on, in order, including its own if it has one.
    pub from: Vec<String>,
    /// The origin of its input.
    pub input: Expression,
    /// The definitions of those steps.
    pub definitions: BTreeMap<String, Definition>,
    /// The declared version, 1 by default.
    pub version: u32,
    /// The structure of the key's type.
    pub key: String,
    /// The structure of the value's type.
    pub value: String,
    /// How the entries of its files combine.
    pub rule: EntryRule,
}

/// How the entries of a key combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryRule {
    /// The newest entry is the state.
    Last,
    /// All entries from a floor on are versions that may be read.
    Versions,
    /// Each entry is a number, and they add up.
    Sum,
}

/// The files of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFiles {
    /// The step's signature.
    pub shape: StepSignature,
    /// Entries whose `until` is at or before this have expired.
    pub cut: EventTime,
    /// The first epoch that was kept, if the entries are versions.
    pub floor: Epoch,
    /// Oldest first: later segments override earlier ones.
    pub segments: Vec<SegmentFile>,
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFile {
    /// Its name in the directory.
    pub file: String,
    /// The checkpoint that it was first written for.
    pub epoch: Epoch,
    /// Its size in bytes.
    pub bytes: u64,
    /// The number of entries.
    pub entries: u64,
    /// The BLAKE3 hash of its contents, in hex.
    pub blake3: String,
}

impl Manifest {
    /// The name of its file.
    pub fn file_name(epoch: Epoch) -> String {
        format!("checkpoint-{:020}.json", epoch.0)
    }

    /// The epoch in a file name, if it is that of a manifest.
    pub fn epoch_of(name: &str) -> Option<Epoch> {
        let digits = name.strip_prefix("checkpoint-")?.strip_suffix(".json")?;
        (digits.len() == 20).then(|| digits.parse().ok().map(Epoch))?
    }

    /// Encodes the file's contents.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        seal(self)
    }

    /// Decodes a file's contents.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): the file is damaged. [`Definition`](crate::Kind::Definition):
    /// it has another format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        unseal("the manifest", bytes, FORMAT)
    }

    /// The size of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }

    /// All segments of all steps.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentFile> {
        self.steps.iter().flat_map(|step| &step.segments)
    }
}

/// Identifies the owner of the checkpoints in a location; written before any other file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    /// [`FORMAT`].
    pub format: u32,
    /// The application and the dataflow.
    pub app: String,
    /// See `app`.
    pub dataflow: String,
}

impl Catalogue {
    /// The name of its file.
    pub(crate) const FILE_NAME: &str = "catalogue.json";

    /// Encodes the file's contents.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        seal(self)
    }

    /// Decodes a file's contents.
    ///
    /// # Errors
    /// Those of [`Manifest::from_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        unseal("the catalogue", bytes, CATALOGUE_FORMAT_MIN)
    }
}

/// A line of JSON, and its BLAKE3 hash.
fn seal(what: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(what)
        .map_err(|error| Error::internal("cannot encode the checkpoint's manifest").detail(error))?;
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(format!("\n{}\n", hash.to_hex()).as_bytes());
    Ok(bytes)
}

fn unseal<T: DeserializeOwned>(what: &str, bytes: &[u8], format_min: u32) -> Result<T> {
    let damaged = |detail: &str| Error::integrity(format!("{what} is damaged")).detail(detail);
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(text), Some(hash)) = (lines.next(), lines.next()) else {
        return Err(damaged("it has no second line"));
    };
    if blake3::hash(text).to_hex().as_bytes() != hash {
        return Err(damaged("its checksum is wrong"));
    }
    if lines.next() != Some(&[]) || lines.next().is_some() {
        return Err(damaged("it does not end after its second line"));
    }
    #[derive(Deserialize)]
    struct ManifestHead {
        format: u32,
    }
    let unfit = |error: serde_json::Error| damaged(&error.to_string());
    let head: ManifestHead = serde_json::from_slice(text).map_err(unfit)?;
    if !(format_min..=FORMAT).contains(&head.format) {
        return Err(
            Error::definition(format!("the checkpoint has format version {}", head.format))
                .detail(format!("this build reads version {FORMAT}"))
                .hint(
                    "run the build that wrote it, or rebuild all state from the topics: `thalweg \
                     checkpoint prune DIR --keep 0 --yes` removes the checkpoints; if the ledger was \
                     trimmed, `ledger reset` starts over with what the topics hold",
                ),
        );
    }
    serde_json::from_slice(text).map_err(unfit)
}

/// The bounds below which a step's entries are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionBounds {
    /// See [`StepFiles::cut`](StepFiles::cut).
    pub cut: EventTime,
    /// See [`StepFiles::floor`](StepFiles::floor).
    pub floor: Epoch,
}

impl Default for RetentionBounds {
    fn default() -> Self {
        Self {
            cut: EventTime::MIN,
            floor: Epoch::ZERO,
        }
    }
}
