//! A row of a view with its versions.

use std::mem;

use thin_vec::ThinVec;

use crate::schema::small::SmallBytes;
use crate::time::Epoch;

/// A row's current encoded value, and its older versions.
pub(crate) struct VersionedRow {
    pub(super) epoch: Epoch,
    pub(super) value: Option<SmallBytes>,
    /// Not empty exactly when the row is queued for pruning. Thin, because most rows have none.
    older: ThinVec<Version>,
}

pub(super) struct Version {
    epoch: Epoch,
    value: Option<SmallBytes>,
}

impl VersionedRow {
    pub(super) fn new(epoch: Epoch, value: Option<SmallBytes>) -> Self {
        Self {
            epoch,
            value,
            older: ThinVec::new(),
        }
    }

    /// Whether the row is queued for pruning.
    pub(super) fn is_queued(&self) -> bool {
        self.older.capacity() > 0
    }

    /// Drops all older versions and unqueues the row.
    pub(super) fn take_older(&mut self) -> ThinVec<Version> {
        mem::take(&mut self.older)
    }

    /// The number of older versions.
    #[cfg(test)]
    pub(super) fn older(&self) -> usize {
        self.older.len()
    }

    /// Inserts a version at its epoch, replacing one of the same epoch.
    pub(super) fn put_version(&mut self, epoch: Epoch, value: Option<SmallBytes>) {
        if epoch >= self.epoch {
            self.supersede(epoch, value, Epoch::ZERO);
            return;
        }
        let older = &mut self.older;
        let at = older.partition_point(|version| version.epoch < epoch);
        match older.get_mut(at).filter(|version| version.epoch == epoch) {
            Some(version) => version.value = value,
            None => older.insert(at, Version { epoch, value }),
        }
    }

    /// The epoch of the oldest remaining version.
    pub(super) fn first(&self) -> Epoch {
        self.older.first().map_or(self.epoch, |version| version.epoch)
    }

    /// Passes the versions after one epoch and up to another to `see`, oldest first.
    pub(super) fn versions(
        &self,
        after: Epoch,
        upto: Epoch,
        mut show: impl FnMut(Epoch, Option<&SmallBytes>),
    ) {
        let older = self
            .older
            .iter()
            .map(|version| (version.epoch, version.value.as_ref()));
        let all = older.chain([(self.epoch, self.value.as_ref())]);
        all.filter(|(epoch, _)| *epoch > after && *epoch <= upto)
            .for_each(|(epoch, value)| show(epoch, value));
    }

    /// The row as of `at`, and the epoch of its last change up to then.
    pub(crate) fn as_of(&self, at: Epoch) -> Option<(Epoch, &SmallBytes)> {
        if self.epoch <= at {
            return self.value.as_ref().map(|value| (self.epoch, value));
        }
        let after = self.older.partition_point(|version| version.epoch <= at);
        let version = &self.older[after.checked_sub(1)?];
        version.value.as_ref().map(|value| (version.epoch, value))
    }

    /// Sets the newest value; the previous one becomes an older version, unless it is of the same epoch: then
    /// returns false.
    ///
    /// Before it allocates, it drops the versions that no answer at or above `floor` needs. Searching for
    /// them at every change would read memory that nothing else reads.
    pub(super) fn supersede(&mut self, epoch: Epoch, value: Option<SmallBytes>, floor: Epoch) -> bool {
        if self.older.capacity() == 0 {
            self.older.reserve_exact(1);
        }
        if self.epoch == epoch {
            self.value = value;
            return false;
        }
        if self.older.len() == self.older.capacity() {
            self.prune(floor);
        }
        if self.older.len() == self.older.capacity() {
            // Most rows have one or two older versions: capacity for four, as `push` allocates at first,
            // would dominate a view's memory.
            self.older.reserve_exact(self.older.len().max(1));
        }
        self.older.push(Version {
            epoch: self.epoch,
            value: mem::replace(&mut self.value, value),
        });
        self.epoch = epoch;
        true
    }

    /// Drops versions that no read at or above `floor` needs. Moves the rest only if at least half are
    /// dropped.
    pub(super) fn prune(&mut self, floor: Epoch) {
        let older = &mut self.older;
        if self.epoch <= floor {
            older.clear();
            return;
        }
        let trimmable = older
            .partition_point(|version| version.epoch <= floor)
            .saturating_sub(1);
        if trimmable * 2 > older.len() {
            older.drain(..trimmable);
        }
    }
}
