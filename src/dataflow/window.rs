//! How event time is cut into windows.

use std::time::Duration;

pub use crate::operator::window::assign::Assign;
use crate::time::{EventTime, Window, WindowLayout, micros};

/// Windows of one length that follow each other without gap or overlap, aligned to the Unix epoch.
///
/// ```
/// use thalweg::prelude::*;
/// let mut windows = Vec::new();
/// Tumbling::of(Duration::from_secs(60)).windows(EventTime::from_secs(90), &mut windows);
/// assert_eq!(windows, [Window { start: EventTime::from_secs(60), end: EventTime::from_secs(120) }]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    size_us: i64,
    offset_us: i64,
}

impl Tumbling {
    /// Windows of this size. A size below one microsecond is taken as one microsecond.
    pub fn of(size: Duration) -> Self {
        Self {
            size_us: micros(size).max(1),
            offset_us: 0,
        }
    }

    /// Shifts the windows: days that begin at 06:00 have an offset of six hours.
    pub fn offset(self, offset: Duration) -> Self {
        Self {
            offset_us: micros(offset).rem_euclid(self.size_us),
            ..self
        }
    }
}

impl Assign for Tumbling {
    fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
        let into = at.micros().wrapping_sub(self.offset_us).rem_euclid(self.size_us);
        let start = at.micros().saturating_sub(into);
        out.push(Window {
            start: EventTime(start),
            end: EventTime(start.saturating_add(self.size_us)),
        });
    }

    fn layout(&self) -> WindowLayout {
        let us = |us: i64| Duration::from_micros(us.unsigned_abs());
        WindowLayout::Aligned {
            size: us(self.size_us),
            every: us(self.size_us),
            offset: us(self.offset_us),
        }
    }
}
