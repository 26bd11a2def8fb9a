//! A row of a view with its versions.

use std::mem;

use thin_vec::ThinVec;

use crate::schema::small::SmallBytes;
use crate::time::Epoch;

/// A row's encoded value and what it was before.
pub(crate) struct Row {
    pub(super) epoch: Epoch,
    pub(super) value: Option<SmallBytes>,
    /// Has room exactly when the row waits in the queue. Thin, as most rows have none.
    older: ThinVec<Version>,
}

pub(super) struct Version {
    epoch: Epoch,
    value: Option<SmallBytes>,
}

impl Row {
    pub(super) fn new(epoch: Epoch, value: Option<SmallBytes>) -> Self {
        Self {
            epoch,
            value,
            older: ThinVec::new(),
        }
    }

    /// Whether the row waits to give up what it was before.
    pub(super) fn is_queued(&self) -> bool {
        self.older.capacity() > 0
    }

    /// Gives up all that the row was before. It waits no longer.
    pub(super) fn take_older(&mut self) -> ThinVec<Version> {
        mem::take(&mut self.older)
    }

    /// So many older versions there are.
    #[cfg(test)]
    pub(super) fn older(&self) -> usize {
        self.older.len()
    }

    /// Puts a version where its epoch has it: one of the same epoch gives way.
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

    /// The epoch of the oldest version that is left.
    pub(super) fn first(&self) -> Epoch {
        self.older.first().map_or(self.epoch, |version| version.epoch)
    }

    /// Shows the versions after one epoch and up to another, oldest first.
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

    /// The row as of `at`, and when it last changed before that.
    pub(crate) fn as_of(&self, at: Epoch) -> Option<(Epoch, &SmallBytes)> {
        if self.epoch <= at {
            return self.value.as_ref().map(|value| (self.epoch, value));
        }
        let after = self.older.partition_point(|version| version.epoch <= at);
        let version = &self.older[after.checked_sub(1)?];
        version.value.as_ref().map(|value| (version.epoch, value))
    }

    /// Puts a value in place of the newest, which stays as an older version unless it is of the same epoch:
    /// then `false`. Before it takes more memory, it drops what no answer at or above `floor` needs; to look
    /// for that at every change would read memory that nothing else does.
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
            // Most rows have one older version or two: room for four, as `push` makes at first, is most of a
            // view's memory.
            self.older.reserve_exact(self.older.len().max(1));
        }
        self.older.push(Version {
            epoch: self.epoch,
            value: mem::replace(&mut self.value, value),
        });
        self.epoch = epoch;
        true
    }

    /// Drops what no answer at or above `floor` needs. Moves what stays only when at least half goes.
    pub(super) fn prune(&mut self, floor: Epoch) {
        let older = &mut self.older;
        if self.epoch <= floor {
            older.clear();
            return;
        }
        let unneeded = older
            .partition_point(|version| version.epoch <= floor)
            .saturating_sub(1);
        if unneeded * 2 > older.len() {
            older.drain(..unneeded);
        }
    }
}
