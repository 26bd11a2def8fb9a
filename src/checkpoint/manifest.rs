//! What a checkpoint consists of: a text file that appears whole, once all it names is durable.
//!
//! ```text
//!   checkpoint-0001795402800123000.json    { epoch, chain, from, at, steps: [ { name, segments: [ … ] } ] }
//!                                          BLAKE3 of the line above
//!   catalogue.json                         { app, dataflow }, and its BLAKE3
//! ```

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::{Definition, Expression, Identity};
use crate::error::{Error, Result};
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// The version of what stands in manifests and segments.
pub(crate) const FORMAT: u32 = 4;

/// The oldest format whose catalogue is read: it says whose checkpoints they are, whatever those are like.
const CATALOGUE_FORMAT_MIN: u32 = 3;

/// A checkpoint: where everything stood as of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The application and the dataflow.
    pub app: String,
    /// See `app`.
    pub dataflow: String,
    /// As of this epoch.
    pub epoch: Epoch,
    /// The ledger's generation that made it.
    pub generation: u64,
    /// The ledger's hash chain behind the epoch: a checkpoint of another history has another.
    pub chain: String,
    /// The build that made it.
    pub build: String,
    /// Who computed the state.
    pub lineage: Lineage,
    /// When, microseconds since the Unix epoch.
    pub made_us: u64,
    /// The hash by which keys are divided into buckets, and how many there are.
    pub buckets: (String, usize),
    /// What the ledger's bindings add up to where the views' histories begin; nothing: the ledger's start. A
    /// restore goes through the bindings from here to `epoch` without reading their records.
    pub from: Option<Base>,
    /// The same as of `epoch`: where a later checkpoint may begin.
    pub at: Base,
    /// Every step that has state.
    pub steps: Vec<StepFiles>,
}

/// Who computed some state. Zeros: nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// A hash of the program that computed it last, with its plan.
    pub program: u64,
    /// The same with all others before that, and where each took over:
    /// [`Results::lineage`](crate::position::Results).
    pub state: u64,
}

/// What bindings up to an epoch add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// All of them as one: each partition's empty range at its position, each source's watermark, topic and
    /// schemas.
    pub binding: EpochBinding,
    /// Watermarks of sets of sources that are followed.
    pub sets: Vec<(Vec<SourceId>, EventTime)>,
}

/// What a step is: what has to be alike for its state to be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShape {
    /// What it is known by.
    pub identity: Identity,
    /// What people call it.
    pub step: String,
    /// The names of all steps that it is made of, in order; of a step with a name, its own too.
    pub from: Vec<String>,
    /// What its rows come from.
    pub input: Expression,
    /// What each of those steps does to what.
    pub definitions: BTreeMap<String, Definition>,
    /// As the dataflow declares it, 1 where it does not.
    pub version: u32,
    /// The structure of the key's type.
    pub key: String,
    /// The structure of the value's type.
    pub value: String,
    /// What files of the step hold.
    pub rule: Rule,
}

/// What entries of a key mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// The newest is the state.
    Last,
    /// All from a floor on are versions that may be asked for.
    Versions,
    /// Each is a number, and they add up.
    Sum,
}

/// The files of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFiles {
    /// The step.
    pub shape: StepShape,
    /// Entries whose `until` is at or before this are gone.
    pub cut: EventTime,
    /// The first epoch that was kept, where the rule is versions.
    pub floor: Epoch,
    /// Oldest first: what a later one says of a key holds.
    pub segments: Vec<Segment>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name in the checkpoints' directory.
    pub file: String,
    /// The checkpoint that it was first written for.
    pub epoch: Epoch,
    /// Its length.
    pub bytes: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// BLAKE3 of all its bytes, in hex.
    pub blake3: String,
}

impl Manifest {
    /// Its file's name.
    pub fn file_name(epoch: Epoch) -> String {
        format!("checkpoint-{:020}.json", epoch.0)
    }

    /// The epoch that a file's name says, if it is that of a manifest.
    pub fn epoch_of(name: &str) -> Option<Epoch> {
        let digits = name.strip_prefix("checkpoint-")?.strip_suffix(".json")?;
        (digits.len() == 20).then(|| digits.parse().ok().map(Epoch))?
    }

    /// Its file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        seal(self)
    }

    /// From its file's bytes.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): they are damaged. [`Definition`](crate::Kind::Definition):
    /// another format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        unseal("the manifest", bytes, FORMAT)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }

    /// All segments of all steps.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.steps.iter().flat_map(|step| &step.segments)
    }
}

/// Says whose checkpoints a place holds; it is there before the first of their files is.
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
    /// Its file's name.
    pub(crate) const FILE_NAME: &str = "catalogue.json";

    /// Its file's bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        seal(self)
    }

    /// From its file's bytes.
    ///
    /// # Errors
    /// Those of [`Manifest::from_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        unseal("the catalogue", bytes, CATALOGUE_FORMAT_MIN)
    }
}

/// A line of JSON, and its BLAKE3.
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
    struct Head {
        format: u32,
    }
    let unfit = |error: serde_json::Error| damaged(&error.to_string());
    let head: Head = serde_json::from_slice(text).map_err(unfit)?;
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

/// What of a step's files no longer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// See [`StepFiles::cut`](StepFiles::cut).
    pub cut: EventTime,
    /// See [`StepFiles::floor`](StepFiles::floor).
    pub floor: Epoch,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            cut: EventTime::MIN,
            floor: Epoch::ZERO,
        }
    }
}
