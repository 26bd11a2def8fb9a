//! Entries in groups: for operators that access several entries of one key, such as the rows of a join or the
//! sessions of a user.
//!
//! ```text
//!   key ─▶ EntryGroup ─┬─ lane 0: entries in order   due: (time, key), one for each group: its next expiry
//!                 └─ lane 1: entries in order
//! ```

use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{ChangeTracker, EntryStore, KeyedState, Versioned};
use crate::checkpoint::state::SnapshotWriter;
use crate::record::{Event, Record};
use crate::time::{Epoch, EventTime};

/// Number of lanes per group.
const LANES: usize = 2;

/// The place of an entry in its group. The entries of a lane are sorted by place, and expire in that order.
pub(crate) trait SubKey: Record {
    /// The lane of the entry, 0 or 1.
    fn lane(&self) -> usize {
        0
    }
    /// The entry expires once the state's time reaches this.
    fn until(&self) -> Option<EventTime>;
}

/// The entries of one key.
pub(crate) struct EntryGroup<P, V> {
    lanes: [VecDeque<(P, Versioned<V>)>; LANES],
    /// The group's key in [`GroupedStore::due`].
    due: Option<EventTime>,
}

/// Entries by key and place.
pub(crate) struct GroupedStore<K, P, V> {
    groups: HashMap<K, EntryGroup<P, V>, FixedState>,
    due: BTreeSet<(EventTime, K)>,
}

/// Tables with capacity for fewer groups are not shrunk.
const ROOM_MIN: usize = 1 << 10;

impl<K, P, V> Default for GroupedStore<K, P, V> {
    fn default() -> Self {
        Self {
            groups: HashMap::default(),
            due: BTreeSet::new(),
        }
    }
}

impl<P, V> Default for EntryGroup<P, V> {
    fn default() -> Self {
        Self {
            lanes: Default::default(),
            due: None,
        }
    }
}

impl<P: SubKey, V> EntryGroup<P, V> {
    /// The entries of a lane in a range: `from` returns true for places before it, `to` for those in it.
    pub(crate) fn range(
        &self,
        lane: usize,
        before: impl Fn(&P) -> bool,
        within: impl Fn(&P) -> bool,
    ) -> impl Iterator<Item = (&P, &V)> {
        let entries = &self.lanes[lane];
        let from = entries.partition_point(|(place, _)| before(place));
        let found = entries.iter().skip(from);
        let found = found.take_while(move |(place, _)| within(place));
        found.map(|(place, held)| (place, &**held))
    }

    fn find(&self, place: &P) -> Result<usize, usize> {
        self.lanes[place.lane()].binary_search_by(|(other, _)| other.cmp(place))
    }

    fn next_due(&self) -> Option<EventTime> {
        let fronts = self.lanes.iter().filter_map(VecDeque::front);
        fronts.filter_map(|(place, _)| place.until()).min()
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Keeps memory proportional to the present entries.
    fn give_back_room(&mut self) {
        for lane in &mut self.lanes {
            if lane.capacity() > 8 * lane.len().max(1) {
                lane.shrink_to(2 * lane.len());
            }
        }
    }
}

impl<K: Record, P: SubKey, V: Event> GroupedStore<K, P, V> {
    /// The entries of a key.
    #[inline]
    pub(crate) fn group(&self, key: &K) -> Option<&EntryGroup<P, V>> {
        self.groups.get(key)
    }

    /// All entries.
    pub(crate) fn each(&self, mut see: impl FnMut(&K, &P, &V)) {
        for (key, group) in &self.groups {
            let entries = group.lanes.iter().flatten();
            entries.for_each(|(place, held)| see(key, place, held));
        }
    }

    /// Keys with an entry that expires at or before `time`.
    pub(crate) fn due(&self, time: EventTime) -> Vec<K> {
        let due = self.due.iter().take_while(|(due, _)| *due <= time);
        due.map(|(_, key)| key.clone()).collect()
    }

    /// Updates the group's next expiry after its entries have changed.
    fn reschedule(due: &mut BTreeSet<(EventTime, K)>, key: &K, group: &mut EntryGroup<P, V>) {
        let next = group.next_due();
        if next == group.due {
            return;
        }
        if let Some(before) = group.due {
            due.remove(&(before, key.clone()));
        }
        if let Some(next) = next {
            due.insert((next, key.clone()));
        }
        group.due = next;
    }
}

impl<K: Record, P: SubKey, V: Event> EntryStore for GroupedStore<K, P, V> {
    type Key = (K, P);
    type Value = V;
    type Route = K;

    fn with_room(entries: usize) -> Self {
        Self {
            groups: HashMap::with_capacity_and_hasher(entries / 4, FixedState::default()),
            due: BTreeSet::new(),
        }
    }

    fn routed(key: &(K, P)) -> &K {
        &key.0
    }

    fn until(key: &(K, P)) -> Option<EventTime> {
        key.1.until()
    }

    fn save(out: &mut SnapshotWriter, key: &(K, P), epoch: Epoch, value: &V) {
        out.put_state(key, epoch, key.1.until(), value);
    }

    fn get(&self, (key, place): &(K, P)) -> Option<&Versioned<V>> {
        let group = self.groups.get(key)?;
        let at = group.find(place).ok()?;
        Some(&group.lanes[place.lane()][at].1)
    }

    fn get_mut(&mut self, (key, place): &(K, P), _now: Epoch) -> Option<&mut Versioned<V>> {
        let group = self.groups.get_mut(key)?;
        let at = group.find(place).ok()?;
        Some(&mut group.lanes[place.lane()][at].1)
    }

    fn insert(&mut self, (key, place): (K, P), value: Versioned<V>) {
        let Self { groups, due } = self;
        let group = match groups.entry(key.clone()) {
            Entry::Occupied(group) => group.into_mut(),
            Entry::Vacant(group) => group.insert(EntryGroup::default()),
        };
        let lane = place.lane();
        match group.find(&place) {
            Ok(at) => group.lanes[lane][at].1 = value,
            Err(at) => group.lanes[lane].insert(at, (place, value)),
        }
        Self::reschedule(due, &key, group);
    }

    fn remove(&mut self, (key, place): &(K, P)) -> Option<Versioned<V>> {
        let group = self.groups.get_mut(key)?;
        let at = group.find(place).ok()?;
        let (_, held) = group.lanes[place.lane()].remove(at)?;
        group.give_back_room();
        Self::reschedule(&mut self.due, key, group);
        if group.is_empty() {
            self.groups.remove(key);
        }
        Some(held)
    }

    fn give_back_room(&mut self) {
        let groups = self.groups.len();
        if self.groups.capacity() > ROOM_MIN.max(8 * groups) {
            self.groups.shrink_to(2 * groups);
        }
    }
}

impl<K: Record, P: SubKey, V: Event> KeyedState<GroupedStore<K, P, V>> {
    /// Removes the first entry of a key's lane 0 if it expires by `time`, where `time` is what the state is
    /// to [expire](Self::expire) by in this epoch.
    pub(crate) fn take_first(&mut self, key: &K, time: EventTime) -> Option<(P, V)> {
        let (GroupedStore { groups, due }, journal) = self.parts();
        let group = groups.get_mut(key)?;
        let is_over = |(place, _): &mut (P, _)| place.until().is_some_and(|until| until <= time);
        let (place, held) = group.lanes[0].pop_front_if(is_over)?;
        journal.expire(&held, || (key.clone(), place.clone()));
        group.give_back_room();
        GroupedStore::reschedule(due, key, group);
        if group.is_empty() {
            groups.remove(key);
        }
        Some((place, held.into_value()))
    }

    /// Removes all entries that expire by `time`, group by group and in order, and passes them to `gone`. As
    /// with [`TimeStore`](super::TimeStore), checkpoints get no tombstones for them.
    pub(crate) fn expire(&mut self, time: EventTime, mut gone: impl FnMut(&K, P, V)) {
        let cut = self.cut_to(time);
        let (GroupedStore { groups, due }, journal) = self.parts();
        while due.first().is_some_and(|(first, _)| *first <= cut) {
            let Some((_, key)) = due.pop_first() else { break };
            let Some(group) = groups.get_mut(&key) else {
                continue;
            };
            group.due = None;
            expire_group(&key, group, cut, journal, &mut gone);
            group.give_back_room();
            GroupedStore::reschedule(due, &key, group);
            if group.is_empty() {
                groups.remove(&key);
            }
        }
    }
}

fn expire_group<K: Record, P: SubKey, V: Event>(
    key: &K,
    group: &mut EntryGroup<P, V>,
    cut: EventTime,
    journal: &mut ChangeTracker<GroupedStore<K, P, V>>,
    gone: &mut impl FnMut(&K, P, V),
) {
    for lane in &mut group.lanes {
        let is_over = |(place, _): &mut (P, _)| place.until().is_some_and(|until| until <= cut);
        while let Some((place, held)) = lane.pop_front_if(is_over) {
            journal.expire(&held, || (key.clone(), place.clone()));
            gone(key, place, held.into_value());
        }
    }
}
