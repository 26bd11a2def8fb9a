//! Drops duplicate events, by key and within a span of event time.

use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::keyed::KeyedState;
use crate::checkpoint::keyed::grouped::{GroupedStore, SubKey};
use crate::operator::process::{Batch, Emitted, EpochInfo, KeyedOperator};
use crate::record::{Event, Record, Timed};
use crate::time::EventTime;

/// Keeps the first event of each key, and events further than `within` from every event kept.
pub(crate) struct Dedup<K, T> {
    within: Duration,
    of: PhantomData<fn(K, T)>,
}

/// An event that was kept, and until when others may be its duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SeenUntil(EventTime);

impl SubKey for SeenUntil {
    fn until(&self) -> Option<EventTime> {
        Some(self.0)
    }
}

impl<K, T> Dedup<K, T> {
    pub(crate) fn new(within: Duration) -> Self {
        let of = PhantomData;
        Self { within, of }
    }

    /// The time from which an event at `time` can have no duplicates.
    fn until(&self, time: EventTime) -> EventTime {
        EventTime(time.plus(self.within).0.saturating_add(1))
    }
}

impl<K: Record, T: Event> KeyedOperator for Dedup<K, T> {
    type Input = (K, Timed<T>);
    type State = GroupedStore<K, SeenUntil, ()>;
    type Output = Emitted<T>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        seen: &mut KeyedState<Self::State>,
        out: &mut Emitted<T>,
    ) {
        for (key, event) in input.into_iter().flatten() {
            let (first, last) = (
                self.until(event.time.minus(self.within)),
                self.until(event.time.plus(self.within)),
            );
            let near = seen.entries().group(&key).is_some_and(|group| {
                let mut near = group.range(0, |seen| seen.0 < first, |seen| seen.0 <= last);
                near.next().is_some()
            });
            if !near {
                seen.put((key, SeenUntil(self.until(event.time))), ());
                out.0.push(event);
            }
        }
        seen.expire(at.closed, |_, _, ()| {});
    }
}
