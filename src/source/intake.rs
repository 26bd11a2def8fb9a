//! Takes the records that a reader brings: counts and hashes records, judges event times, keeps what is
//! refused.

use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rules::TimeRules;
use crate::codec::Cause;
use crate::position::{Offset, PartitionId, Position, SourceId};
use crate::record::Timed;
use crate::time::EventTime;
use crate::trail;

/// A record as it stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its offset.
    pub offset: Offset,
    /// The log's own timestamp of it.
    pub timestamp: EventTime,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Payload bytes.
    pub payload: Option<&'a [u8]>,
}

/// A record that could not be counted, with everything needed to see why and to send it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stands.
    pub at: Position,
    /// The name of the step that turned it down: the source, or the window it was late for.
    pub step: String,
    /// Why.
    pub cause: Cause,
    /// More about why: the field that is not known, or what the dataflow's own code said.
    pub detail: Option<String>,
    /// The log's timestamp of the record; the event time if a step after the source turned the event down.
    pub timestamp: EventTime,
    /// The schema id that the bytes named.
    pub schema: Option<u32>,
    /// Key bytes, where the source itself turned the record down.
    pub key: Option<Vec<u8>>,
    /// Payload bytes, where the source itself did; else the event as JSON, as the step got it.
    pub payload: Option<Vec<u8>>,
}

impl DeadLetter {
    /// The letter of an event that a step after the source turns down. The record's bytes are gone by then,
    /// so it holds the event as JSON, as the step got it. Where that cannot be had, the detail says why.
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
        }
    }
}

/// Takes the records of one partition from a reader: judges their times, counts and hashes them.
///
/// What it comes to depends on the log alone (and on `limit`, which the ledger binds), never on how the
/// reading was cut.
pub struct Intake<T> {
    id: PartitionId,
    step: Arc<str>,
    rules: Rc<TimeRules<T>>,
    /// Event times beyond this are refused.
    pub limit: EventTime,
    /// Highest valid event time so far.
    pub event_time_max: EventTime,
    /// Records so far, wrapping.
    pub records: u64,
    /// Sum of the records' hashes so far, wrapping.
    pub hash: u64,
    /// Payload and key bytes taken since the last [`Intake::take`].
    pub bytes: usize,
    /// Smallest log timestamp taken since the last [`Intake::take`]: the oldest record's age is the batch's
    /// freshness.
    pub oldest: EventTime,
    events: Vec<Timed<T>>,
    dead: Vec<DeadLetter>,
}

impl<T> Intake<T> {
    /// For one partition of one source.
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

    /// A user's code is about to see the record at `offset`: if it panics, that is told of.
    #[inline]
    pub fn at_work(&self, offset: Offset) {
        trail::on(Position {
            partition: self.id,
            offset,
        });
    }

    /// A record that was decoded.
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
            return self.letter(&raw, Cause::EventTimeFarFuture, None, None);
        }
        if self.rules.timed && (time < EARLIEST || time > LATEST) {
            return self.letter(&raw, Cause::EventTimeInvalid, None, None);
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

    /// Says more about the newest dead letter, such as where a person finds the record.
    pub fn explain(&mut self, detail: String) {
        if let Some(letter) = self.dead.last_mut() {
            letter.detail = Some(detail);
        }
    }

    /// A record that could not be decoded.
    pub fn dead(&mut self, raw: Raw<'_>, cause: Cause, schema: Option<u32>) {
        self.count(&raw);
        self.letter(&raw, cause, schema, None);
    }

    /// A record that could not be decoded because of what stands at a place in it.
    pub fn dead_at(&mut self, raw: Raw<'_>, cause: Cause, schema: Option<u32>, place: Box<str>) {
        self.count(&raw);
        self.letter(&raw, cause, schema, Some(place.into()));
    }

    fn letter(&mut self, raw: &Raw<'_>, cause: Cause, schema: Option<u32>, detail: Option<String>) {
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

    /// How many events and dead letters wait to be taken.
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
    }

    /// How many dead letters wait to be taken.
    pub fn dead_len(&self) -> usize {
        self.dead.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what was read since the last call; `spare` (emptied) is filled next, so that buffers go round.
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

/// Years 1 and 9999 bound what can be written as RFC 3339.
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
        let letter = DeadLetter::turned_down("odd", Cause::Rejected, Some("no".into()), &event);
        assert_eq!(letter.payload, None);
        let detail = letter.detail.unwrap();
        assert!(
            detail.starts_with("no; the event cannot be written as JSON: "),
            "{detail}"
        );
    }
}
