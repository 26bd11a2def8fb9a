//! Receives the records of a reader: counts and hashes them, checks event times, and keeps rejected ones.

use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rules::TimeRules;
use crate::codec::Cause;
use crate::codec::header::Header;
use crate::panic_context;
use crate::position::{Offset, PartitionId, Position, SourceId};
use crate::record::Timed;
use crate::time::EventTime;

/// A record as stored in the log.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its offset.
    pub offset: Offset,
    /// The log's own timestamp.
    pub timestamp: EventTime,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Payload bytes.
    pub payload: Option<&'a [u8]>,
}

/// A record that could not be processed, with everything needed to diagnose it and to send it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its position.
    pub at: Position,
    /// The name of the step that rejected it: the source, or the window that it was late for.
    pub step: String,
    /// The cause.
    pub cause: Cause,
    /// Further detail: the unknown field, or the message of the dataflow's own code.
    pub detail: Option<String>,
    /// The record's timestamp in the log; the event time if a step after the source rejected the event.
    pub timestamp: EventTime,
    /// The schema id in the record.
    pub schema: Option<u32>,
    /// Key bytes, if the source rejected the record.
    pub key: Option<Vec<u8>>,
    /// Payload bytes, if the source rejected the record; otherwise the event as JSON, as the step received
    /// it.
    pub payload: Option<Vec<u8>>,
    /// The record's headers, where the source itself did, and its log has any.
    pub headers: Vec<Header>,
}

impl DeadLetter {
    /// The dead letter of an event that a step after the source rejects. The record's bytes are no longer
    /// available, so it holds the event as JSON, as the step received it. If that fails, the detail says why.
    pub fn turned_down<T: Serialize>(
        step: &str,
        cause: Cause,
        detail: Option<String>,
        event: &Timed<T>,
    ) -> Self {
        let (payload, unwritable) = match serde_json::to_vec(&event.value) {
            Ok(json) => (Some(json), None),
            Err(error) => (
                None,
                Some(format!("the event cannot be written as JSON: {error}")),
            ),
        };
        let details: Vec<String> = detail.into_iter().chain(unwritable).collect();
        Self {
            at: event.at,
            step: step.to_owned(),
            cause,
            detail: (!details.is_empty()).then(|| details.join("; ")),
            timestamp: event.time,
            schema: None,
            key: None,
            payload,
            headers: Vec::new(),
        }
    }
}

/// Receives the records of one partition: checks their times, counts and hashes them.
///
/// The result depends on the log alone (and on `limit`, which the ledger binds), never on how reading was
/// split.
pub struct Intake<T> {
    id: PartitionId,
    step: Arc<str>,
    rules: Rc<TimeRules<T>>,
    /// Event times beyond this are rejected.
    pub limit: EventTime,
    /// Highest valid event time so far.
    pub event_time_max: EventTime,
    /// Number of records so far, wrapping.
    pub records: u64,
    /// Sum of the records' hashes so far, wrapping.
    pub hash: u64,
    /// Payload and key bytes taken since the last [`Intake::take`].
    pub bytes: usize,
    /// The smallest log timestamp taken since the last [`Intake::take`]: the age of the oldest record is the
    /// batch's freshness.
    pub oldest: EventTime,
    events: Vec<Timed<T>>,
    dead: Vec<DeadLetter>,
}

impl<T> Intake<T> {
    /// The intake of one partition of one source.
    pub fn new(source: SourceId, step: Arc<str>, partition: u32, rules: Rc<TimeRules<T>>) -> Self {
        Self {
            id: PartitionId { source, partition },
            step,
            rules,
            limit: EventTime::MAX,
            event_time_max: EventTime::MIN,
            records: 0,
            hash: 0,
            bytes: 0,
            oldest: EventTime::MAX,
            events: Vec::new(),
            dead: Vec::new(),
        }
    }

    /// Announces that user code is about to process the record at `offset`, for panic messages.
    #[inline]
    pub fn at_work(&self, offset: Offset) {
        panic_context::at_record(Position {
            partition: self.id,
            offset,
        });
    }

    /// Takes a decoded record.
    #[inline]
    pub fn value(&mut self, raw: Raw<'_>, value: T) {
        self.count(&raw);
        let time = match &self.rules.event_time {
            Some(take) => {
                self.at_work(raw.offset);
                take(&value)
            }
            None => raw.timestamp,
        };
        if self.rules.timed && time > self.limit {
            return self.dead_letter(&raw, Cause::EventTimeFarFuture, None, None);
        }
        if self.rules.timed && (time < EARLIEST || time > LATEST) {
            return self.dead_letter(&raw, Cause::EventTimeInvalid, None, None);
        }
        let horizon = match self.event_time_max {
            EventTime::MIN => EventTime::MIN,
            max => max.minus(self.rules.lateness),
        };
        self.event_time_max = self.event_time_max.max(time);
        let at = Position {
            partition: self.id,
            offset: raw.offset,
        };
        self.events.push(Timed {
            value,
            time,
            horizon,
            at,
        });
    }

    /// Adds detail to the latest dead letter, such as where to find the record.
    pub fn explain(&mut self, detail: String) {
        if let Some(dead_letter) = self.dead.last_mut() {
            dead_letter.detail = Some(detail);
        }
    }

    /// Sets the headers of the latest dead letter's record.
    pub fn headers(&mut self, headers: Vec<Header>) {
        if let Some(dead_letter) = self.dead.last_mut() {
            dead_letter.headers = headers;
        }
    }

    /// Takes a record that could not be decoded.
    pub fn dead(&mut self, raw: Raw<'_>, cause: Cause, schema: Option<u32>) {
        self.count(&raw);
        self.dead_letter(&raw, cause, schema, None);
    }

    /// Takes a record that could not be decoded, with the place in it that caused this.
    pub fn dead_at(&mut self, raw: Raw<'_>, cause: Cause, schema: Option<u32>, place: Box<str>) {
        self.count(&raw);
        self.dead_letter(&raw, cause, schema, Some(place.into()));
    }

    fn dead_letter(&mut self, raw: &Raw<'_>, cause: Cause, schema: Option<u32>, detail: Option<String>) {
        self.dead.push(DeadLetter {
            at: Position {
                partition: self.id,
                offset: raw.offset,
            },
            step: self.step.to_string(),
            cause,
            detail,
            timestamp: raw.timestamp,
            schema,
            key: raw.key.map(<[u8]>::to_vec),
            payload: raw.payload.map(<[u8]>::to_vec),
            headers: Vec::new(),
        });
    }

    #[inline]
    fn count(&mut self, raw: &Raw<'_>) {
        use xxhash_rust::xxh3::xxh3_64_with_seed;
        let mut hash = xxh3_64_with_seed(raw.payload.unwrap_or(b"\0null"), raw.offset as u64);
        if let Some(key) = raw.key {
            hash ^= xxh3_64_with_seed(key, !(raw.offset as u64)).rotate_left(1);
        }
        self.records = self.records.wrapping_add(1);
        self.hash = self.hash.wrapping_add(hash);
        self.bytes += raw.payload.map_or(0, <[u8]>::len) + raw.key.map_or(0, <[u8]>::len);
        self.oldest = self.oldest.min(raw.timestamp);
    }

    /// The partition.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Number of events and dead letters that wait to be taken.
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
    }

    /// Number of dead letters that wait to be taken.
    pub fn dead_len(&self) -> usize {
        self.dead.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what was read since the last call; `spare` (emptied) is filled next, so that buffers are reused.
    pub fn take(&mut self, mut spare: Vec<Timed<T>>) -> (Vec<Timed<T>>, Vec<DeadLetter>) {
        spare.clear();
        self.bytes = 0;
        self.oldest = EventTime::MAX;
        (
            std::mem::replace(&mut self.events, spare),
            std::mem::take(&mut self.dead),
        )
    }
}

/// The range of RFC 3339: years 1 to 9999.
const EARLIEST: EventTime = EventTime(-62_135_596_800_000_000);
const LATEST: EventTime = EventTime(253_402_300_799_999_999);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::position::SourceId;

    #[test]
    fn a_letter_says_why_it_does_not_hold_its_event() {
        // Names in JSON are strings.
        let value = BTreeMap::from([((1u8, 2u8), 3u8)]);
        let partition = PartitionId {
            source: SourceId(1),
            partition: 0,
        };
        let event = Timed {
            value,
            time: EventTime(0),
            horizon: EventTime(0),
            at: Position { partition, offset: 7 },
        };
        let dead_letter = DeadLetter::turned_down("odd", Cause::Rejected, Some("no".into()), &event);
        assert_eq!(dead_letter.payload, None);
        let detail = dead_letter.detail.unwrap();
        assert!(
            detail.starts_with("no; the event cannot be written as JSON: "),
            "{detail}"
        );
    }
}
