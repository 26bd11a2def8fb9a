//! Turns captured changes of a database table into its rows.
//!
//! ```text
//!   changes ═ by primary key, truncations to all workers ═▶ in the log's order ─┬─▶ rows
//!                                                                               └─▶ dead letters: what has no row
//!                                                                                   to take a missing column from
//! ```
//!
//! The last change of a key wins, in the order of the topic's partition. Changes that a connector writes
//! again after a crash are recognized by their position in the database's log and dropped, so that no row
//! reverts: each key remembers the position of its last change, a deleted key for some time longer.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator as _;

use crate::checkpoint::keyed::{EntryStore, HashStore, KeyedState, Versioned};
use crate::checkpoint::state::SnapshotWriter;
use crate::codec::Cause;
use crate::codec::debezium::envelope::{SourcePosition, WrittenRow};
use crate::metrics::{Counter, SourceMetrics};
use crate::operator::exchange::{RoutedBatch, RoutedBatchBuilder};
use crate::operator::process::{
    Batch, ChangesAndDeadLetters, EpochInfo, InputOrder, KeyedOperator, Setup, process,
};
use crate::position::Position;
use crate::record::{Change, Record, Timed, route};
use crate::source::DeadLetter;
use crate::source::captured::{Captured, Skipped};
use crate::time::{Epoch, EventTime};

/// Changes of rows, and dead letters.
pub(crate) type Streams<'s, K, V> = (
    StreamVec<'s, Epoch, Change<K, V>>,
    StreamVec<'s, Epoch, DeadLetter>,
);

/// Keeps the current row of every key, and the positions of deletions for `remember`.
pub(crate) fn captured<'s, K: Record, V: Record>(
    records: StreamVec<'s, Epoch, Timed<Captured<K, V>>>,
    remember: Duration,
    mut setup: Setup<Timed<Captured<K, V>>>,
    counts: &SourceMetrics,
) -> Streams<'s, K, V> {
    let routed_batches = pack(records, &setup.name, counts);
    setup.order = Some(InputOrder {
        place: |record| record.at,
        tie: None,
    });
    let operator = CapturedRows {
        step: setup.name.clone(),
        remember,
        duplicates: counts.skipped("duplicate"),
        unavailable: counts.dead_letters(Cause::ValueUnavailable.code()),
        of: PhantomData,
    };
    let (changes, dead_letters) = process(routed_batches, Rc::new(operator), setup);
    (changes, dead_letters.expect("changes may be turned down"))
}

/// Packs changes for the workers of their keys. Changes without a key go to all workers, or to none.
fn pack<'s, K: Record, V: Record>(
    records: StreamVec<'s, Epoch, Timed<Captured<K, V>>>,
    name: &str,
    counts: &SourceMetrics,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    type Builder = CapacityContainerBuilder<Vec<RoutedBatch>>;
    let mut packer = RoutedBatchBuilder::new(records.scope().peers());
    let (messages, heartbeats) = (counts.skipped("message"), counts.skipped("heartbeat"));
    records.unary::<Builder, _, _, _>(Pipeline, &format!("{name}: pack"), move |_, _| {
        move |input, output| {
            input.for_each_stamp(|capability, batches| {
                let mut session = output.session(&capability);
                for record in batches.flat_map(|batch| batch.drain(..)) {
                    match &record.value {
                        Captured::Row { key, .. }
                        | Captured::Deleted { key, .. }
                        | Captured::Tombstone { key } => {
                            let to = route(key);
                            if let Some(routed_batch) = packer.push(to, record) {
                                session.give(routed_batch);
                            }
                        }
                        Captured::Truncated { .. } => {
                            for to in 0..packer.peers() {
                                if let Some(routed_batch) = packer.push_to(to, record.clone()) {
                                    session.give(routed_batch);
                                }
                            }
                        }
                        Captured::Skipped(Skipped::Message) => _ = messages.inc(),
                        Captured::Skipped(Skipped::Heartbeat) => _ = heartbeats.inc(),
                    }
                }
                session.give_iterator(packer.rest());
            });
        }
    })
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CapturedEntry<V> {
    /// The row; `None` if it was deleted or could not be completed, and only the position is remembered.
    row: Option<V>,
    /// The position of the last change.
    at: Option<SourcePosition>,
    /// Whether the last event of the key, repeated or not, was a deletion: a tombstone that follows belongs
    /// to it.
    ended: bool,
    /// For a key without a row: until when it is remembered.
    until: EventTime,
}

impl<V> CapturedEntry<V> {
    /// Whether the entry still counts: deletions are forgotten in time.
    fn counts(&self, now: EventTime) -> bool {
        self.row.is_some() || self.until > now
    }

    fn is_repeated_by(&self, at: Option<SourcePosition>) -> bool {
        at.is_some_and(|at| self.at.is_some_and(|last| at.repeats(&last)))
    }
}

/// The keys with their state, and when deletions are forgotten.
struct CapturedKeys<K, V> {
    held: HashStore<K, CapturedEntry<V>>,
    /// May contain keys that have a row again.
    deleted: BTreeSet<(EventTime, K)>,
}

impl<K: Record, V: Record> Default for CapturedKeys<K, V> {
    fn default() -> Self {
        Self {
            held: HashStore::default(),
            deleted: BTreeSet::new(),
        }
    }
}

impl<K: Record, V: Record> EntryStore for CapturedKeys<K, V> {
    type Key = K;
    type Value = CapturedEntry<V>;
    type Route = K;

    fn with_room(entries: usize) -> Self {
        Self {
            held: HashStore::with_room(entries),
            deleted: BTreeSet::new(),
        }
    }

    fn routed(key: &K) -> &K {
        key
    }

    fn save(out: &mut SnapshotWriter, key: &K, epoch: Epoch, held: &CapturedEntry<V>) {
        out.put(key, epoch, None, held);
    }

    fn get(&self, key: &K) -> Option<&Versioned<CapturedEntry<V>>> {
        self.held.get(key)
    }

    fn get_mut(&mut self, key: &K, now: Epoch) -> Option<&mut Versioned<CapturedEntry<V>>> {
        self.held.get_mut(key, now)
    }

    fn insert(&mut self, key: K, held: Versioned<CapturedEntry<V>>) {
        if held.row.is_none() {
            self.deleted.insert((held.until, key.clone()));
        }
        self.held.insert(key, held);
    }

    fn remove(&mut self, key: &K) -> Option<Versioned<CapturedEntry<V>>> {
        self.held.remove(key)
    }

    fn give_back_room(&mut self) {
        self.held.give_back_room();
    }
}

struct CapturedRows<K, V> {
    step: String,
    remember: Duration,
    duplicates: Counter,
    unavailable: Counter,
    of: PhantomData<(K, V)>,
}

type State<K, V> = KeyedState<CapturedKeys<K, V>>;

impl<K: Record, V: Record> KeyedOperator for CapturedRows<K, V> {
    type Input = Timed<Captured<K, V>>;
    type State = CapturedKeys<K, V>;
    type Output = ChangesAndDeadLetters<K, V>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        state: &mut State<K, V>,
        out: &mut Self::Output,
    ) {
        let mut turn = EpochWork {
            rows: self,
            now: at.now,
            state,
            out,
        };
        for record in input.into_iter().flatten() {
            match record.value {
                Captured::Row {
                    key,
                    row,
                    at,
                    snapshot,
                } => {
                    turn.write(key, row, (at, snapshot), record.at, record.time);
                }
                Captured::Deleted { key, at } => turn.delete(key, at),
                Captured::Tombstone { key } => turn.bury(key),
                Captured::Truncated { at } => turn.truncate(at),
                Captured::Skipped(_) => {}
            }
        }
        forget(at.now, state);
    }

    fn backfill(&self, state: &State<K, V>) -> Vec<Change<K, V>> {
        let mut rows = Vec::new();
        for (key, held) in state.entries().held.iter() {
            if let Some(value) = &held.row {
                let (old, new) = (None, Some(value.clone()));
                let key = key.clone();
                rows.push(Change { key, old, new });
            }
        }
        rows
    }
}

/// Forgets deletions. This changes nothing observable: they had already ceased to count.
fn forget<K: Record, V: Record>(now: EventTime, state: &mut State<K, V>) {
    loop {
        let deleted = &mut state.parts().0.deleted;
        let Some((_, key)) = deleted.first().filter(|(until, _)| *until <= now) else {
            break;
        };
        let key = key.clone();
        deleted.pop_first();
        if state.get(&key).is_some_and(|held| !held.counts(now)) {
            state.remove(&key);
        }
    }
}

/// The work of one epoch.
struct EpochWork<'a, K: Record, V: Record> {
    rows: &'a CapturedRows<K, V>,
    now: EventTime,
    state: &'a mut State<K, V>,
    out: &'a mut ChangesAndDeadLetters<K, V>,
}

impl<K: Record, V: Record> EpochWork<'_, K, V> {
    /// The state of a key.
    fn held(&self, key: &K) -> Option<&CapturedEntry<V>> {
        self.state.get(key).filter(|held| held.counts(self.now))
    }

    fn write(
        &mut self,
        key: K,
        written: WrittenRow<V>,
        (at, snapshot): (Option<SourcePosition>, bool),
        position: Position,
        time: EventTime,
    ) {
        let held = self.held(&key);
        if held.is_some_and(|held| held.is_repeated_by(at)) {
            return self.repeated(key, false);
        }
        // A snapshot's row has no position in the log: earlier positions of the key still count as repeated.
        let at = if snapshot {
            held.and_then(|held| held.at)
        } else {
            at
        };
        let old = held.and_then(|held| held.row.clone());
        let row = match written {
            WrittenRow::Whole(row) => row,
            WrittenRow::Partial(partial) => match partial.complete(old.as_ref()) {
                Ok(row) => row,
                Err(column) => {
                    let dead_letter = self.unavailable(&key, column, &partial.columns, position, time);
                    self.out.dead_letters.push(dead_letter);
                    // A repeated event creates no second dead letter.
                    if at.is_some() {
                        self.remember(key, at, false);
                    }
                    return;
                }
            },
        };
        let held = CapturedEntry {
            row: Some(row.clone()),
            at,
            ended: false,
            until: EventTime::MIN,
        };
        self.state.put(key.clone(), held);
        if old.as_ref() != Some(&row) {
            self.out.changes.set(key, old, Some(row));
        }
    }

    fn delete(&mut self, key: K, at: Option<SourcePosition>) {
        let held = self.held(&key);
        if held.is_some_and(|held| held.is_repeated_by(at)) {
            return self.repeated(key, true);
        }
        let old = held.and_then(|held| held.row.clone());
        match at {
            Some(_) => self.remember(key.clone(), at, true),
            None => _ = self.state.remove(&key),
        }
        if old.is_some() {
            self.out.changes.set(key, old, None);
        }
    }

    /// Handles a repeated change.
    fn repeated(&mut self, key: K, ended: bool) {
        self.rows.duplicates.inc();
        if let Some(held) = self.held(&key).filter(|held| held.ended != ended) {
            let held = CapturedEntry {
                ended,
                ..held.clone()
            };
            self.put(key, held);
        }
    }

    /// Handles a tombstone. After a deletion it is redundant, and after a crash it may be repeated behind a
    /// repeated deletion. If compaction has removed the deletion, the tombstone stands for it, but without a
    /// position: then nothing is remembered.
    fn bury(&mut self, key: K) {
        let Some(held) = self.held(&key).filter(|held| !held.ended) else {
            return;
        };
        let old = held.row.clone();
        self.state.remove(&key);
        if old.is_some() {
            self.out.changes.set(key, old, None);
        }
    }

    /// Deletes every row except those written after the truncation, which matters when the truncation is
    /// repeated.
    fn truncate(&mut self, at: Option<SourcePosition>) {
        let held = self.state.entries().held.iter();
        let gone = held.filter(|(_, held)| held.row.is_some() && !held.is_repeated_by(at));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let old = self.held(&key).and_then(|held| held.row.clone());
            match at {
                Some(_) => self.remember(key.clone(), at, true),
                None => _ = self.state.remove(&key),
            }
            self.out.changes.set(key, old, None);
        }
    }

    /// Remembers the position of the last change of a key without a row.
    fn remember(&mut self, key: K, at: Option<SourcePosition>, ended: bool) {
        let until = self.now.plus(self.rows.remember);
        let held = CapturedEntry {
            row: None,
            at,
            ended,
            until,
        };
        self.put(key, held);
    }

    fn put(&mut self, key: K, held: CapturedEntry<V>) {
        if held.row.is_none() {
            self.state.parts().0.deleted.insert((held.until, key.clone()));
        }
        self.state.put(key, held);
    }

    /// The dead letter of a row that lacks a column when there is no earlier row to take it from.
    fn unavailable(
        &self,
        key: &K,
        column: &str,
        columns: &str,
        at: Position,
        timestamp: EventTime,
    ) -> DeadLetter {
        self.rows.unavailable.inc();
        DeadLetter {
            at,
            step: self.rows.step.clone(),
            cause: Cause::ValueUnavailable,
            detail: Some(format!(
                "column `{column}` did not change and was left out, and there is no earlier row to take \
                 it from; ALTER TABLE … REPLICA IDENTITY FULL makes Postgres write it"
            )),
            timestamp,
            schema: None,
            key: serde_json::to_vec(key).ok(),
            payload: Some(columns.as_bytes().to_vec()),
            headers: Vec::new(),
        }
    }
}
