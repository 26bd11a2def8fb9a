//! The operators that turn a table's records into rows.

use std::time::Duration;

use timely::dataflow::StreamVec;

use crate::metrics::SourceMetrics;
use crate::operator::captured::{CapturedEntry, captured};
use crate::operator::process::Setup;
use crate::operator::upsert::upsert;
use crate::record::{Change, Event, Record, Timed};
use crate::source::DeadLetter;
use crate::source::captured::Captured;
use crate::time::Epoch;

/// A record that can be turned into rows: an upsert or a captured change.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be turned into rows of `{K}` → `{V}`")]
pub trait RowRecord<K: Record, V: Record>: Event {
    /// The state per key.
    type Kept: Event;

    /// Turns records into rows, and rejected ones into dead letters.
    fn rows<'s>(
        records: StreamVec<'s, Epoch, Timed<Self>>,
        remember: Duration,
        setup: Setup<Timed<Self>>,
        counts: &SourceMetrics,
    ) -> Rows<'s, K, V>;
}

/// Changes of rows, and dead letters.
type Rows<'s, K, V> = (
    StreamVec<'s, Epoch, Change<K, V>>,
    Option<StreamVec<'s, Epoch, DeadLetter>>,
);

impl<K: Record, V: Record> RowRecord<K, V> for (K, Option<V>) {
    type Kept = V;

    fn rows<'s>(
        records: StreamVec<'s, Epoch, Timed<Self>>,
        _: Duration,
        setup: Setup<Timed<Self>>,
        _: &SourceMetrics,
    ) -> Rows<'s, K, V> {
        (upsert(records, setup), None)
    }
}

impl<K: Record, V: Record> RowRecord<K, V> for Captured<K, V> {
    type Kept = CapturedEntry<V>;

    fn rows<'s>(
        records: StreamVec<'s, Epoch, Timed<Self>>,
        remember: Duration,
        setup: Setup<Timed<Self>>,
        counts: &SourceMetrics,
    ) -> Rows<'s, K, V> {
        let (changes, letters) = captured(records, remember, setup, counts);
        (changes, Some(letters))
    }
}
