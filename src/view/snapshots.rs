//! The snapshots that can still be read, and how far a view's floor may rise past them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::time::Epoch;
use crate::view::serve::ReadError;
use crate::view::{AsOf, Snapshot};

/// Closed snapshots, oldest first.
#[derive(Default)]
pub(crate) struct Snapshots(VecDeque<Arc<Snapshot>>);

/// How far a view's floor should rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloorRise {
    /// By its history, or by its limit on superseded versions.
    pub wanted: Epoch,
    /// Holders of snapshots below this lose them.
    pub forced: Epoch,
}

impl Snapshots {
    pub(crate) fn newest(&self) -> Option<&Arc<Snapshot>> {
        self.0.back()
    }

    pub(crate) fn push(&mut self, snapshot: Arc<Snapshot>) {
        self.0.push_back(snapshot);
    }

    /// Drops the snapshots below `floor` and those beyond `moments_max`, but never the newest.
    pub(crate) fn trim(&mut self, floor: Epoch, moments_max: usize) {
        while self.0.len() > 1 && (self.0[0].epoch < floor || self.0.len() > moments_max) {
            self.0.pop_front();
        }
    }

    pub(crate) fn find(&self, at: AsOf) -> Result<Arc<Snapshot>, ReadError> {
        let wanted = match at {
            AsOf::Epoch(epoch) => epoch,
            AsOf::Time(time) => Epoch::opened_by(time),
        };
        let Some(oldest) = self.0.front() else {
            return Err(ReadError::NotYet);
        };
        match self.0.partition_point(|snapshot| snapshot.epoch <= wanted) {
            0 => Err(ReadError::Gone { oldest: oldest.epoch }),
            after => Ok(self.0[after - 1].clone()),
        }
    }

    /// The first epoch at or above `floor` that can be read.
    pub(crate) fn oldest(&self, floor: Epoch) -> Option<Epoch> {
        let at = self.0.partition_point(|snapshot| snapshot.epoch < floor);
        self.0.get(at).map(|snapshot| snapshot.epoch)
    }

    /// The floor of a view after it has risen: the newest snapshot up to `rise.wanted`, or an older one that
    /// is held.
    pub(crate) fn floor(&self, floor: Epoch, rise: FloorRise) -> Epoch {
        let start = self.0.partition_point(|snapshot| snapshot.epoch < floor);
        let mut risen = floor;
        for (i, snapshot) in self.0.iter().enumerate().skip(start) {
            if snapshot.epoch > rise.wanted {
                break;
            }
            risen = snapshot.epoch;
            // One count is ours. The newest has another in the channel, but nothing lies beyond it.
            let held = Arc::strong_count(snapshot) > 1;
            let next_is_forced = self.0.get(i + 1).is_some_and(|next| next.epoch <= rise.forced);
            if held && !next_is_forced {
                break;
            }
        }
        risen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::snapshot;

    fn snapshots(epochs: &[u64]) -> Snapshots {
        let mut snapshots = Snapshots::default();
        epochs
            .iter()
            .for_each(|epoch| snapshots.push(Arc::new(snapshot(Epoch(*epoch)))));
        snapshots
    }

    fn rise(wanted: u64, forced: u64) -> FloorRise {
        FloorRise {
            wanted: Epoch(wanted),
            forced: Epoch(forced),
        }
    }

    #[test]
    fn finds_the_newest_up_to_the_time_asked_for() {
        let snapshots = snapshots(&[10, 20, 30]);
        let epoch = |at| snapshots.find(at).map(|snapshot| snapshot.epoch.0);
        assert_eq!(epoch(AsOf::Epoch(Epoch(29))), Ok(20));
        assert_eq!(epoch(AsOf::Time(crate::EventTime(30))), Ok(30));
        assert_eq!(epoch(AsOf::Epoch(Epoch(u64::MAX))), Ok(30));
        assert_eq!(
            epoch(AsOf::Epoch(Epoch(9))),
            Err(ReadError::Gone { oldest: Epoch(10) })
        );
        assert_eq!(
            epoch(AsOf::Time(crate::EventTime::MIN)),
            Err(ReadError::Gone { oldest: Epoch(10) })
        );
        assert_eq!(
            Snapshots::default().find(AsOf::Epoch(Epoch(1))).err(),
            Some(ReadError::NotYet)
        );
    }

    #[test]
    fn the_oldest_is_a_moment() {
        let snapshots = snapshots(&[10, 20, 30]);
        let oldest = |floor| snapshots.oldest(Epoch(floor)).map(|epoch| epoch.0);
        assert_eq!(
            [0, 10, 11, 30, 31].map(oldest),
            [Some(10), Some(10), Some(20), Some(30), None]
        );
    }

    #[test]
    fn floor_rises_to_the_last_moment_within_the_history() {
        let snapshots = snapshots(&[10, 20, 30, 40]);
        assert_eq!(snapshots.floor(Epoch(0), rise(5, 0)), Epoch(0));
        assert_eq!(snapshots.floor(Epoch(0), rise(29, 0)), Epoch(20));
        assert_eq!(snapshots.floor(Epoch(20), rise(40, 0)), Epoch(40));
        assert_eq!(snapshots.floor(Epoch(30), rise(20, 0)), Epoch(30), "never back");
    }

    #[test]
    fn floor_stops_at_a_held_moment_unless_forced() {
        let snapshots = snapshots(&[10, 20, 30, 40]);
        let held = snapshots.find(AsOf::Epoch(Epoch(20))).unwrap();
        assert_eq!(snapshots.floor(Epoch(10), rise(40, 0)), Epoch(20));
        assert_eq!(
            snapshots.floor(Epoch(10), rise(40, 29)),
            Epoch(20),
            "20 is still what an answer at 29 needs"
        );
        assert_eq!(snapshots.floor(Epoch(10), rise(40, 30)), Epoch(40));
        drop(held);
        assert_eq!(snapshots.floor(Epoch(20), rise(40, 0)), Epoch(40));
    }
}
