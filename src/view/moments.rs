//! The moments that can still be read, and how far a view's floor may rise past them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::time::Epoch;
use crate::view::serve::ReadError;
use crate::view::{AsOf, Moment};

/// Closed moments, oldest first.
#[derive(Default)]
pub(crate) struct Moments(VecDeque<Arc<Moment>>);

/// How far a view's floor should rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rise {
    /// By its history, or by its limit on superseded versions.
    pub wanted: Epoch,
    /// Holders of moments below this lose them.
    pub forced: Epoch,
}

impl Moments {
    pub(crate) fn newest(&self) -> Option<&Arc<Moment>> {
        self.0.back()
    }

    pub(crate) fn push(&mut self, moment: Arc<Moment>) {
        self.0.push_back(moment);
    }

    /// Drops the moments below `floor` and those beyond `moments_max`, but never the newest.
    pub(crate) fn trim(&mut self, floor: Epoch, moments_max: usize) {
        while self.0.len() > 1 && (self.0[0].epoch < floor || self.0.len() > moments_max) {
            self.0.pop_front();
        }
    }

    pub(crate) fn find(&self, at: AsOf) -> Result<Arc<Moment>, ReadError> {
        let wanted = match at {
            AsOf::Epoch(epoch) => epoch,
            AsOf::Time(time) => Epoch::opened_by(time),
        };
        let Some(oldest) = self.0.front() else {
            return Err(ReadError::NotYet);
        };
        match self.0.partition_point(|moment| moment.epoch <= wanted) {
            0 => Err(ReadError::Gone { oldest: oldest.epoch }),
            after => Ok(self.0[after - 1].clone()),
        }
    }

    /// The first epoch at or above `floor` that can be read.
    pub(crate) fn oldest(&self, floor: Epoch) -> Option<Epoch> {
        let at = self.0.partition_point(|moment| moment.epoch < floor);
        self.0.get(at).map(|moment| moment.epoch)
    }

    /// The floor of a view after it has risen: the newest moment up to `rise.wanted`, or an older one that is
    /// held.
    pub(crate) fn floor(&self, floor: Epoch, rise: Rise) -> Epoch {
        let start = self.0.partition_point(|moment| moment.epoch < floor);
        let mut risen = floor;
        for (i, moment) in self.0.iter().enumerate().skip(start) {
            if moment.epoch > rise.wanted {
                break;
            }
            risen = moment.epoch;
            // One count is ours. The newest has another in the channel, but nothing lies beyond it.
            let held = Arc::strong_count(moment) > 1;
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
    use crate::view::tests::moment;

    fn moments(epochs: &[u64]) -> Moments {
        let mut moments = Moments::default();
        epochs
            .iter()
            .for_each(|epoch| moments.push(Arc::new(moment(Epoch(*epoch)))));
        moments
    }

    fn rise(wanted: u64, forced: u64) -> Rise {
        Rise {
            wanted: Epoch(wanted),
            forced: Epoch(forced),
        }
    }

    #[test]
    fn finds_the_newest_up_to_the_time_asked_for() {
        let moments = moments(&[10, 20, 30]);
        let epoch = |at| moments.find(at).map(|moment| moment.epoch.0);
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
            Moments::default().find(AsOf::Epoch(Epoch(1))).err(),
            Some(ReadError::NotYet)
        );
    }

    #[test]
    fn the_oldest_is_a_moment() {
        let moments = moments(&[10, 20, 30]);
        let oldest = |floor| moments.oldest(Epoch(floor)).map(|epoch| epoch.0);
        assert_eq!(
            [0, 10, 11, 30, 31].map(oldest),
            [Some(10), Some(10), Some(20), Some(30), None]
        );
    }

    #[test]
    fn floor_rises_to_the_last_moment_within_the_history() {
        let moments = moments(&[10, 20, 30, 40]);
        assert_eq!(moments.floor(Epoch(0), rise(5, 0)), Epoch(0));
        assert_eq!(moments.floor(Epoch(0), rise(29, 0)), Epoch(20));
        assert_eq!(moments.floor(Epoch(20), rise(40, 0)), Epoch(40));
        assert_eq!(moments.floor(Epoch(30), rise(20, 0)), Epoch(30), "never back");
    }

    #[test]
    fn floor_stops_at_a_held_moment_unless_forced() {
        let moments = moments(&[10, 20, 30, 40]);
        let held = moments.find(AsOf::Epoch(Epoch(20))).unwrap();
        assert_eq!(moments.floor(Epoch(10), rise(40, 0)), Epoch(20));
        assert_eq!(
            moments.floor(Epoch(10), rise(40, 29)),
            Epoch(20),
            "20 is still what an answer at 29 needs"
        );
        assert_eq!(moments.floor(Epoch(10), rise(40, 30)), Epoch(40));
        drop(held);
        assert_eq!(moments.floor(Epoch(20), rise(40, 0)), Epoch(40));
    }
}
