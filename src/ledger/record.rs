//! The records of the ledger, and their encoding.
//!
//! ```text
//!  CLAIM    generation nonce time_us end chain build app dataflow sources        one at each start of a service
//!  BINDING  epoch now ranges watermarks idle topics schemas                      one an epoch that moved something
//!  BASE     claim generation bindings chain state schemas-known-late progress    what a trimmed ledger begins with
//!  PROGRESS (sink shard shards complete delivered) …                             how far shards of sinks have come
//! ```
//!
//! Integers are LEB128 varints, signed ones zigzag; hashes and source ids are fixed-width little-endian,
//! because varints would lengthen them. Times are encoded as differences to the binding's `now`, which is
//! encoded as its difference to the epoch; flags of a range mark what equals the previous range. A binding is
//! self-contained: `lo` is written although it repeats the last `hi`, so that gaps are detected. Four
//! partitions of one source take about 100 bytes, of which 32 are the records' hashes; postcard would take
//! twice as many, and 1.6 times for one partition.

use std::fmt;

use crate::error::{Error, Result};
use crate::ledger::progress::{decode_progress, encode_progress};
use crate::ledger::state::LedgerState;
use crate::position::{EpochBinding, PartitionId, PartitionRange, Results, SchemaSeen, SourceId, TopicId};
use crate::time::{Epoch, EventTime};
use crate::wire::{ByteInput, put_bytes, put_i64, put_str, put_u64};

/// The chain hash after some record: two ledgers with the same value contain the same counted records.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    pub(super) fn start(file_header: &[u8]) -> Self {
        Self(*blake3::hash(file_header).as_bytes())
    }

    pub(super) fn then(self, kind: RecordKind, record: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&[kind as u8]).update(record);
        Self(*hasher.finalize().as_bytes())
    }

    /// The part that frames store.
    pub(super) fn mark(&self) -> [u8; 16] {
        std::array::from_fn(|i| self.0[i])
    }
}

/// In hexadecimal.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The first record of a trimmed ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseRecord {
    /// The claim that the next bindings are written under.
    pub claim: ClaimRecord,
    /// The highest generation of any earlier claim.
    pub generation_highest: u64,
    /// The chain hash after the last trimmed binding.
    pub chain: Chain,
    /// Number of trimmed bindings.
    pub bindings: u64,
    /// The fold of the trimmed bindings.
    pub state: LedgerState,
}

/// The kind of a record. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A process takes over the ledger.
    Claim = 1,
    /// The contents of an epoch.
    Binding = 2,
    /// The fold of all trimmed records: the first record of a trimmed ledger.
    Base = 5,
    /// Sink progress, followed by any number of bindings.
    Progress = 6,
}

impl RecordKind {
    /// The name of a kind's number in messages.
    pub fn name(number: u8) -> &'static str {
        match number {
            1 => "CLAIM",
            2 => "BINDING",
            5 => "BASE",
            6 => "PROGRESS",
            _ => "unknown",
        }
    }
}

/// The identity of a process that opens a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The application.
    pub app: String,
    /// The dataflow; a ledger belongs to one.
    pub dataflow: String,
    /// The build, for people.
    pub build: String,
    /// The dataflow's sources with their names, so that the ledger can be read without the program.
    pub sources: Vec<(SourceId, String)>,
}

/// A claim as recorded in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// Counts the owners of the ledger; a claim counts if its generation is higher than any counted before
    /// it.
    pub generation: u64,
    /// Distinguishes two claims of one generation.
    pub nonce: u64,
    /// When it was made, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// Where the claimant saw the intact log end. Unreadable bytes between there and the claim were torn
    /// before the claim was made.
    pub end: u64,
    /// The first half of the chain hash at `end`.
    pub chain: [u8; 16],
    /// The claimant.
    pub claim: Claim,
}

impl ClaimRecord {
    /// The claim in messages: `generation 3 (build 1.4.0, claimed 2026-11-23T03:00:00Z)`.
    pub(super) fn describe(&self) -> String {
        let time = Epoch(self.time_us).opened_at();
        format!(
            "generation {} (build {}, claimed {time})",
            self.generation, self.claim.build
        )
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.generation);
        out.extend_from_slice(&self.nonce.to_le_bytes());
        put_u64(out, self.time_us);
        put_u64(out, self.end);
        out.extend_from_slice(&self.chain);
        put_str(out, &self.claim.build);
        put_str(out, &self.claim.app);
        put_str(out, &self.claim.dataflow);
        put_u64(out, self.claim.sources.len() as u64);
        for (source, name) in &self.claim.sources {
            out.extend_from_slice(&source.0.to_le_bytes());
            put_str(out, name);
        }
    }

    /// `None` if these bytes are not a valid claim.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = ByteInput(bytes);
        let (generation, nonce, time_us, end) = (
            input.u64()?,
            u64::from_le_bytes(input.array()?),
            input.u64()?,
            input.u64()?,
        );
        let chain = input.array()?;
        let (build, app, dataflow) = (input.string()?, input.string()?, input.string()?);
        let sources = (0..input.u64()?)
            .map(|_| Some((source(&mut input)?, input.string()?)))
            .collect::<Option<Vec<_>>>()?;
        let claim = Claim {
            app,
            dataflow,
            build,
            sources,
        };
        input.finished(Self {
            generation,
            nonce,
            time_us,
            end,
            chain,
            claim,
        })
    }
}

/// # Errors
/// If the state cannot be encoded: a trimmed ledger without it would have lost its past.
pub(super) fn encode_base(base: &BaseRecord, out: &mut Vec<u8>) -> Result<()> {
    let mut claim = Vec::new();
    base.claim.encode(&mut claim);
    put_bytes(out, &claim);
    put_u64(out, base.generation_highest);
    put_u64(out, base.bindings);
    out.extend_from_slice(&base.chain.0);
    let state = postcard::to_stdvec(&base.state)
        .map_err(|error| Error::internal("cannot encode the ledger's state").detail(error))?;
    put_bytes(out, &state);
    let (late, progress) = (base.state.schemas_known_late(), base.state.progress());
    if !late.is_empty() || !progress.is_empty() {
        encode_schemas(&late, out);
    }
    if !progress.is_empty() {
        encode_progress(&progress, out);
    }
    Ok(())
}

/// `None` if these bytes are not a valid base.
pub(super) fn decode_base(bytes: &[u8]) -> Option<BaseRecord> {
    let mut input = ByteInput(bytes);
    let claim = ClaimRecord::decode(input.prefixed()?)?;
    let (generation_highest, bindings) = (input.u64()?, input.u64()?);
    let chain = Chain(input.array()?);
    let mut state: LedgerState = postcard::from_bytes(input.prefixed()?).ok()?;
    if !input.0.is_empty() {
        state.note_schemas(&decode_schemas(&mut input)?);
    }
    if !input.0.is_empty() {
        let progress = decode_progress(&mut input)?;
        progress.iter().for_each(|progress| state.note_progress(progress));
    }
    input.finished(BaseRecord {
        claim,
        generation_highest,
        chain,
        bindings,
        state,
    })
}

const SAME_SOURCE: u8 = 1;
const IDLE: u8 = 2;
const RECORDS_ARE_SPAN: u8 = 4;
const NO_EVENT_TIME: u8 = 8;
const SAME_LIMIT: u8 = 16;
/// Neither records nor hash follow.
const COMPACTED: u8 = 32;

pub(super) fn encode_binding(binding: &EpochBinding, out: &mut Vec<u8>) {
    put_u64(out, binding.epoch.0);
    put_i64(out, binding.now.0.wrapping_sub(binding.epoch.0 as i64));
    put_u64(out, binding.ranges.len() as u64);
    let mut before: Option<&PartitionRange> = None;
    for range in &binding.ranges {
        encode_range(range, before, binding.now, out);
        before = Some(range);
    }
    put_u64(out, binding.watermarks.len() as u64);
    for (source, watermark) in &binding.watermarks {
        out.extend_from_slice(&source.0.to_le_bytes());
        put_i64(out, binding.now.0.wrapping_sub(watermark.0));
    }
    put_u64(out, binding.idle.len() as u64);
    for (source, idle) in &binding.idle {
        out.extend_from_slice(&source.0.to_le_bytes());
        out.push(u8::from(*idle));
    }
    put_u64(out, binding.topics.len() as u64);
    for (source, topic) in &binding.topics {
        out.extend_from_slice(&source.0.to_le_bytes());
        out.extend_from_slice(&topic.0);
    }
    encode_schemas(&binding.schemas, out);
    out.push(u8::from(binding.results.is_some()));
    if let Some(results) = &binding.results {
        encode_results(results, binding.epoch, out);
    }
}

const UNKNOWN: u8 = 0;
const KNOWN: u8 = 1;
/// Known from a record on, given by partition and offset.
const KNOWN_SINCE: u8 = 2;

fn encode_schemas(schemas: &[SchemaSeen], out: &mut Vec<u8>) {
    put_u64(out, schemas.len() as u64);
    for schema in schemas {
        out.extend_from_slice(&schema.source.0.to_le_bytes());
        put_u64(out, u64::from(schema.id));
        let Some(fingerprint) = schema.fingerprint else {
            out.push(UNKNOWN);
            continue;
        };
        out.push(if schema.since.is_some() {
            KNOWN_SINCE
        } else {
            KNOWN
        });
        out.extend_from_slice(&fingerprint.to_le_bytes());
        if let Some((partition, offset)) = schema.since {
            put_u64(out, u64::from(partition));
            put_i64(out, offset);
        }
    }
}

fn decode_schemas(input: &mut ByteInput<'_>) -> Option<Vec<SchemaSeen>> {
    let seen = |input: &mut ByteInput<'_>| {
        let (source, id) = (source(input)?, u32::try_from(input.u64()?).ok()?);
        let kind = input.byte()?;
        let fingerprint = match kind {
            UNKNOWN => None,
            KNOWN | KNOWN_SINCE => Some(u64::from_le_bytes(input.array()?)),
            _ => return None,
        };
        let since = match kind {
            KNOWN_SINCE => Some((u32::try_from(input.u64()?).ok()?, input.i64()?)),
            _ => None,
        };
        Some(SchemaSeen {
            source,
            id,
            fingerprint,
            since,
        })
    };
    (0..input.u64()?).map(|_| seen(input)).collect()
}

/// A view that did not change has the hash 0, which takes a single byte.
fn encode_results(results: &Results, epoch: Epoch, out: &mut Vec<u8>) {
    out.extend_from_slice(&results.lineage.to_le_bytes());
    put_u64(out, results.epochs.len() as u64);
    for (of, hashes) in &results.epochs {
        put_u64(out, epoch.0.wrapping_sub(of.0));
        put_u64(out, hashes.len() as u64);
        for hash in hashes {
            out.push(u8::from(*hash != 0));
            if *hash != 0 {
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
    }
}

fn decode_results(input: &mut ByteInput<'_>, epoch: Epoch) -> Option<Results> {
    let lineage = u64::from_le_bytes(input.array()?);
    let hash = |input: &mut ByteInput<'_>| match input.bool()? {
        true => Some(u64::from_le_bytes(input.array()?)).filter(|hash| *hash != 0),
        false => Some(0),
    };
    let epochs = (0..input.u64()?)
        .map(|_| {
            let of = Epoch(epoch.0.wrapping_sub(input.u64()?));
            let hashes = (0..input.u64()?).map(|_| hash(input)).collect::<Option<_>>()?;
            Some((of, hashes))
        })
        .collect::<Option<_>>()?;
    Some(Results { lineage, epochs })
}

fn source(input: &mut ByteInput<'_>) -> Option<SourceId> {
    Some(SourceId(u32::from_le_bytes(input.array()?)))
}

fn encode_range(range: &PartitionRange, before: Option<&PartitionRange>, now: EventTime, out: &mut Vec<u8>) {
    let span = range.hi.wrapping_sub(range.lo);
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(
        before.is_some_and(|b| b.id.source == range.id.source),
        SAME_SOURCE,
    ) | flag(range.idle, IDLE)
        | flag(range.compacted, COMPACTED)
        | flag(range.records == span as u64, RECORDS_ARE_SPAN)
        | flag(range.event_time_max == EventTime::MIN, NO_EVENT_TIME)
        | flag(before.is_some_and(|b| b.limit == range.limit), SAME_LIMIT);
    out.push(flags);
    if flags & SAME_SOURCE == 0 {
        out.extend_from_slice(&range.id.source.0.to_le_bytes());
    }
    put_u64(out, u64::from(range.id.partition));
    put_i64(out, range.lo);
    put_u64(out, span as u64);
    if flags & COMPACTED == 0 {
        if flags & RECORDS_ARE_SPAN == 0 {
            put_u64(out, range.records);
        }
        out.extend_from_slice(&range.hash.to_le_bytes());
    }
    if flags & NO_EVENT_TIME == 0 {
        put_i64(out, now.0.wrapping_sub(range.event_time_max.0));
    }
    if flags & SAME_LIMIT == 0 {
        put_i64(out, range.limit.0.wrapping_sub(now.0));
    }
}

/// `None` if these bytes are not a valid binding.
pub(super) fn decode_binding(bytes: &[u8]) -> Option<EpochBinding> {
    let mut input = ByteInput(bytes);
    let epoch = Epoch(input.u64()?);
    let now = EventTime((epoch.0 as i64).wrapping_add(input.i64()?));
    let mut ranges: Vec<PartitionRange> = Vec::new();
    for _ in 0..input.u64()? {
        let range = decode_range(&mut input, ranges.last(), now)?;
        ranges.push(range);
    }
    let watermarks = (0..input.u64()?)
        .map(|_| Some((source(&mut input)?, EventTime(now.0.wrapping_sub(input.i64()?)))))
        .collect::<Option<Vec<_>>>()?;
    let idle = (0..input.u64()?)
        .map(|_| Some((source(&mut input)?, input.bool()?)))
        .collect::<Option<Vec<_>>>()?;
    let topics = (0..input.u64()?)
        .map(|_| Some((source(&mut input)?, TopicId(input.array()?))))
        .collect::<Option<Vec<_>>>()?;
    let schemas = decode_schemas(&mut input)?;
    let results = match input.bool()? {
        true => Some(decode_results(&mut input, epoch)?),
        false => None,
    };
    input.finished(EpochBinding {
        epoch,
        now,
        ranges,
        watermarks,
        idle,
        topics,
        schemas,
        results,
    })
}

fn decode_range(
    input: &mut ByteInput<'_>,
    before: Option<&PartitionRange>,
    now: EventTime,
) -> Option<PartitionRange> {
    let flags = input.byte()?;
    let has = |bit: u8| flags & bit != 0;
    let source = if has(SAME_SOURCE) {
        before?.id.source
    } else {
        source(input)?
    };
    let partition = u32::try_from(input.u64()?).ok()?;
    let lo = input.i64()?;
    let span = input.u64()?;
    let (records, hash) = match (has(COMPACTED), has(RECORDS_ARE_SPAN)) {
        (true, _) => (0, 0),
        (false, true) => (span, u64::from_le_bytes(input.array()?)),
        (false, false) => (input.u64()?, u64::from_le_bytes(input.array()?)),
    };
    let event_time_max = match has(NO_EVENT_TIME) {
        true => EventTime::MIN,
        false => EventTime(now.0.wrapping_sub(input.i64()?)),
    };
    let limit = if has(SAME_LIMIT) {
        before?.limit
    } else {
        EventTime(now.0.wrapping_add(input.i64()?))
    };
    Some(PartitionRange {
        id: PartitionId { source, partition },
        lo,
        hi: lo.wrapping_add(span as i64),
        records,
        hash,
        compacted: has(COMPACTED),
        event_time_max,
        limit,
        idle: has(IDLE),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edgy() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -5i64..5]
    }

    prop_compose! {
        fn range()(source in 0u32..3, partition in any::<u32>(), lo in edgy(), hi in edgy(), records in any::<u64>(),
                   hash in any::<u64>(), max in edgy(), limit in edgy(), idle in any::<bool>(),
                   compacted in any::<bool>()) -> PartitionRange {
            let (records, hash) = if compacted { (0, 0) } else { (records, hash) };
            PartitionRange { id: PartitionId { source: SourceId(source), partition }, lo, hi, records, hash, compacted,
                             event_time_max: EventTime(max), limit: EventTime(limit), idle }
        }
    }

    prop_compose! {
        fn binding()(epoch in any::<u64>(), now in edgy(), ranges in prop::collection::vec(range(), 0..6),
                     watermarks in prop::collection::vec((any::<u32>(), edgy()), 0..3),
                     idle in prop::collection::vec((any::<u32>(), any::<bool>()), 0..3),
                     topics in prop::collection::vec((any::<u32>(), any::<[u8; 16]>()), 0..3),
                     schemas in prop::collection::vec((any::<u32>(), any::<u32>(), any::<Option<u64>>(),
                                                       any::<Option<(u32, i64)>>()), 0..3),
                     results in prop::option::of((any::<u64>(), prop::collection::vec(
                         (any::<u64>(), prop::collection::vec(prop_oneof![Just(0), any::<u64>()], 0..3)), 0..3))))
                    -> EpochBinding {
            EpochBinding {
                epoch: Epoch(epoch),
                now: EventTime(now),
                ranges,
                watermarks: watermarks.into_iter().map(|(s, t)| (SourceId(s), EventTime(t))).collect(),
                idle: idle.into_iter().map(|(s, idle)| (SourceId(s), idle)).collect(),
                topics: topics.into_iter().map(|(s, t)| (SourceId(s), TopicId(t))).collect(),
                schemas: schemas.into_iter()
                    .map(|(s, id, fingerprint, since)| SchemaSeen { source: SourceId(s), id, fingerprint,
                                                                   since: fingerprint.and(since) }).collect(),
                results: results.map(|(lineage, epochs)| Results {
                    lineage,
                    epochs: epochs.into_iter().map(|(of, hashes)| (Epoch(of), hashes)).collect(),
                }),
            }
        }
    }

    proptest! {
        #[test]
        fn any_binding_comes_back(binding in binding()) {
            let mut bytes = Vec::new();
            encode_binding(&binding, &mut bytes);
            prop_assert_eq!(decode_binding(&bytes), Some(binding));
            for len in 0..bytes.len() {
                prop_assert_eq!(decode_binding(&bytes[..len]), None);
            }
        }

        #[test]
        fn junk_is_no_binding_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_binding(&bytes);
            let _ = ClaimRecord::decode(&bytes);
        }
    }

    #[test]
    fn a_base_keeps_what_became_known() {
        let schema = |id, fingerprint, since| SchemaSeen {
            source: SourceId(1),
            id,
            fingerprint,
            since,
        };
        let claim = ClaimRecord {
            generation: 1,
            nonce: 2,
            time_us: 3,
            end: 4,
            chain: [5; 16],
            claim: Claim::default(),
        };
        for late in [
            vec![],
            vec![
                schema(7, Some(9), Some((3, 120))),
                schema(7, Some(9), Some((4, -1))),
            ],
        ] {
            let mut state = LedgerState::default();
            state.note_schemas(&[schema(7, None, None), schema(8, Some(1), None)]);
            let before = postcard::to_stdvec(&state).unwrap();
            state.note_schemas(&late);
            assert_eq!(
                before,
                postcard::to_stdvec(&state).unwrap(),
                "as builds before wrote it"
            );
            let base = BaseRecord {
                claim: claim.clone(),
                generation_highest: 1,
                chain: Chain([6; 32]),
                bindings: 1,
                state,
            };
            let mut bytes = Vec::new();
            encode_base(&base, &mut bytes).unwrap();
            assert_eq!(decode_base(&bytes), Some(base));
        }
    }

    #[test]
    fn a_binding_of_four_partitions_is_small() {
        let now = EventTime(1_790_000_000_000_000);
        let source = SourceId::of("payments");
        let range = |partition: u32| PartitionRange {
            id: PartitionId { source, partition },
            lo: 1_234_567_890 + i64::from(partition),
            hi: 1_234_568_390 + i64::from(partition),
            records: 500,
            hash: 0x9e37_79b9_7f4a_7c15 ^ u64::from(partition),
            event_time_max: EventTime(now.0 - 250_000 - i64::from(partition)),
            limit: EventTime(now.0 + 3_600_000_000),
            compacted: false,
            idle: false,
        };
        let binding = EpochBinding {
            epoch: Epoch(now.0 as u64),
            now,
            ranges: (0..4).map(range).collect(),
            watermarks: vec![(source, EventTime(now.0 - 5_250_003))],
            idle: vec![],
            topics: vec![],
            schemas: vec![],
            results: None,
        };
        let mut bytes = Vec::new();
        encode_binding(&binding, &mut bytes);
        assert!(bytes.len() <= 116, "{} bytes", bytes.len());
    }
}
