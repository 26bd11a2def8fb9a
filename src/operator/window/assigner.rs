//! Window assigners: which windows an event belongs to.

use std::time::Duration;

use crate::time::{EventTime, Window, WindowLayout, micros};

/// Assigns windows to an event.
///
/// If windows overlap, an event may be late for some of its windows and on time for others: it counts in
/// those that are still open. It becomes a dead letter, or whatever [`Late`](crate::late::Late) says, if it
/// is late for all of them; in either case the metric `thalweg_late_windows_total` counts each window that
/// misses it. An event that is assigned no window is in no row, as if a filter had dropped it.
pub trait WindowAssigner: 'static {
    /// Adds every window that contains `at` to `out`, each once.
    fn windows(&self, at: EventTime, out: &mut Vec<Window>);

    /// The layout of the windows.
    fn layout(&self) -> WindowLayout;

    /// How the operator computes the windows. Only the assigners of this library use anything other than
    /// [`windows`](Self::windows).
    #[doc(hidden)]
    fn method(&self) -> AssignerKind {
        AssignerKind::Each
    }

    /// Whether each instant belongs to exactly one window.
    fn disjoint(&self) -> bool {
        matches!(self.layout(), WindowLayout::Aligned { size, every, .. } if size == every)
    }
}

/// How the operator computes windows.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum AssignerKind {
    /// Each event is folded into each of its windows.
    Each,
    /// Events are folded into slices, from which aligned windows are combined.
    Sliced,
    /// Overlapping windows of a key merge.
    Merged {
        /// How long a window lasts after its last event.
        gap: Duration,
    },
}

/// Slices of event time, each of which is contained in or disjoint from every window: "On-the-fly sharing for
/// streamed aggregation" (Krishnamurthy et al., 2006).
///
/// ```text
///   size 4, every 2      ├── slice ──┤
///   windows  ├───────────┼───────────┤           ends where the slice ends: the first
///                        ├───────────┼───────────┤                          the last
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    size: i64,
    every: i64,
    offset: i64,
    /// The length of a slice.
    pub(super) length: i64,
}

impl Slices {
    /// The slices of an assigner, if it has any.
    pub(super) fn of(assign: &dyn WindowAssigner) -> Option<Self> {
        let (AssignerKind::Sliced, WindowLayout::Aligned { size, every, offset }) =
            (assign.method(), assign.layout())
        else {
            return None;
        };
        let (size, every, offset) = (micros(size).max(1), micros(every).max(1), micros(offset));
        let mut gcd = (size, every);
        while gcd.1 != 0 {
            gcd = (gcd.1, gcd.0 % gcd.1);
        }
        let length = gcd.0;
        Some(Self {
            size,
            every,
            offset,
            length,
        })
    }

    /// The start of the slice that contains a time.
    pub(super) fn start(&self, time: EventTime) -> EventTime {
        let into = time.0.wrapping_sub(self.offset).rem_euclid(self.length);
        EventTime(time.0.saturating_sub(into))
    }

    /// The ends of the first and the last window that contain a slice.
    pub(super) fn ends(&self, start: EventTime) -> (EventTime, EventTime) {
        let into = start.0.wrapping_sub(self.offset).rem_euclid(self.every);
        let last = start.0.saturating_sub(into).saturating_add(self.size);
        let after = last.saturating_sub(start.0.saturating_add(self.length)).max(0);
        (
            EventTime(last.saturating_sub(after / self.every * self.every)),
            EventTime(last),
        )
    }

    /// The first of a slice's windows that ends after `over`: the slice's start and this window's end, with
    /// the number of windows that are over. `None` if all are over.
    pub(super) fn open(&self, start: EventTime, over: EventTime) -> (Option<Window>, u64) {
        let (first, last) = self.ends(start);
        if last.0 < start.0.saturating_add(self.length) {
            // Between windows.
            return (None, 0);
        }
        if over < first {
            return (Some(Window { start, end: first }), 0);
        }
        let windows = |upto: i64| (upto.saturating_sub(first.0) / self.every + 1) as u64;
        if over >= last {
            return (None, windows(last.0));
        }
        let missed = windows(over.0);
        let end = EventTime(first.0 + missed as i64 * self.every);
        (Some(Window { start, end }), missed)
    }

    /// The windows that contain a slice, starting with the one that [`open`](Self::open) returned.
    pub(super) fn windows(&self, open: Window) -> impl Iterator<Item = Window> + use<> {
        let (_, last) = self.ends(open.start);
        let (size, every) = (self.size, self.every);
        let mut end = Some(open.end.0);
        std::iter::from_fn(move || {
            let this = end.filter(|end| *end <= last.0)?;
            end = this.checked_add(every);
            Some(Window {
                start: EventTime(this.saturating_sub(size)),
                end: EventTime(this),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_are_parts_of_the_windows_that_contain_them(
            size in 1i64..40, every in 1i64..40, offset in 0i64..40, time in -200i64..200, over in -250i64..250,
        ) {
            let offset = offset % every;
            let mut gcd = (size, every);
            while gcd.1 != 0 {
                gcd = (gcd.1, gcd.0 % gcd.1);
            }
            let slices = Slices { size, every, offset, length: gcd.0 };
            let start = slices.start(EventTime(time));
            prop_assert!(start.0 <= time && time < start.0 + slices.length);
            let starts = (-300..300).map(|n| n * every + offset);
            let of = |at: i64| starts.clone().filter(move |start| *start <= at && at < start + size).collect::<Vec<_>>();
            // Every instant of a slice has the same windows.
            let expected = of(time);
            prop_assert_eq!(&of(start.0), &expected);
            prop_assert_eq!(&of(start.0 + slices.length - 1), &expected);
            let late = expected.iter().filter(|start| *start + size <= over).count();
            let open: Vec<i64> = expected.into_iter().filter(|start| start + size > over).collect();
            let (first, missed) = slices.open(start, EventTime(over));
            if open.is_empty() && late == 0 {
                // In a gap between windows.
                prop_assert!(first.is_none_or(|first| slices.windows(first).next().is_none()));
                return Ok(());
            }
            prop_assert_eq!(missed, late as u64);
            prop_assert_eq!(first.is_some(), !open.is_empty());
            let found: Vec<i64> = first.into_iter().flat_map(|first| slices.windows(first)).map(|window| window.start.0).collect();
            prop_assert_eq!(found, open);
        }
    }
}
