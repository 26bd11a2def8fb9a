//! The assigner: which windows an event belongs to.

use crate::time::{EventTime, Window, WindowLayout};

/// Which windows an event belongs to.
///
/// Where windows overlap, an event may come too late for some of its windows and in time for others: it
/// counts in those that are still open. It becomes a dead letter, or whatever [`Late`](crate::late::Late)
/// says, if it is late for all of them; the metric `thalweg_late_windows_total` counts each window that it is
/// missing from in either case. An event that gets no window at all is in no row, as if a filter had dropped
/// it.
pub trait Assign: 'static {
    /// Adds every window that contains `at` to `out`, each once.
    fn windows(&self, at: EventTime, out: &mut Vec<Window>);

    /// Where the windows lie.
    fn layout(&self) -> WindowLayout;

    /// Whether each instant belongs to exactly one window.
    fn disjoint(&self) -> bool {
        matches!(self.layout(), WindowLayout::Aligned { size, every, .. } if size == every)
    }
}
