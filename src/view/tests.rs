//! What the tests of views share.

use std::sync::Arc;

use crate::position::EpochBinding;
use crate::time::{Epoch, EventTime};
use crate::view::Moment;

/// A moment without sources.
pub(crate) fn moment(epoch: Epoch) -> Moment {
    let binding = EpochBinding {
        epoch,
        now: EventTime(0),
        ranges: Vec::new(),
        watermarks: Vec::new(),
        topics: Vec::new(),
        schemas: Vec::new(),
    };
    Moment {
        epoch,
        watermarks: Arc::new([]),
        positions: Arc::new([]),
        binding: Arc::new(binding),
    }
}
