//! Turns a table of windows into a stream: each window's row, once, when the window has closed.

use std::marker::PhantomData;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::keyed::{KeyedState, TimeStore};
use crate::operator::process::{Batch, Emitted, EpochInfo, KeyedOperator};
use crate::position::{PartitionId, Position, SourceId};
use crate::record::{Change, Record, Timed};
use crate::time::{Epoch, EventTime, Windowed};

/// Holds the rows of open windows.
pub(crate) struct WhenClosed<K, V> {
    source: SourceId,
    of: PhantomData<fn(K, V)>,
}

impl<K, V> WhenClosed<K, V> {
    /// Downstream, late rows are handled by the policy of `source`.
    pub(crate) fn new(source: SourceId) -> Self {
        let of = PhantomData;
        Self { source, of }
    }
}

impl<K: Record, V: Record> KeyedOperator for WhenClosed<K, V> {
    type Input = Change<Windowed<K>, V>;
    type State = TimeStore<Windowed<K>, V>;
    type Output = Emitted<(Windowed<K>, V)>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        open: &mut KeyedState<Self::State>,
        out: &mut Self::Output,
    ) {
        for Change { key, new, .. } in input.into_iter().flatten() {
            let place = (key.window.end, key);
            match new {
                Some(value) => _ = open.put(place, value),
                None => _ = open.remove(&place),
            }
        }
        open.expire(at.closed, |(end, key), value| {
            out.0.push(Timed {
                // The last instant of the window, as in Flink.
                time: EventTime(end.0.saturating_sub(1)),
                horizon: at.closed_before,
                at: made_by(self.source, at.epoch, &key.key),
                value: (key, value),
            });
        });
    }
}

/// The first of the partition numbers that no topic has.
const PARTITIONS_MADE: u32 = u32::MAX - 63;

/// The position of an event that was not made from a single record: in one of 64 partitions that no topic
/// has, with the epoch as its offset.
fn made_by<K: Serialize>(source: SourceId, epoch: Epoch, key: &K) -> Position {
    let bytes = postcard::to_allocvec(key).unwrap_or_default();
    let partition = PARTITIONS_MADE + (xxh3_64(&bytes) % 64) as u32;
    Position {
        partition: PartitionId { source, partition },
        offset: i64::try_from(epoch.0).unwrap_or(i64::MAX),
    }
}
