//! Which operator makes rows of a table's records.

use std::time::Duration;

use timely::dataflow::StreamVec;

use crate::metrics::SourceMetrics;
use crate::operator::captured::{Held, captured};
use crate::operator::process::Setup;
use crate::operator::upsert::upsert;
use crate::record::{Change, Event, Record, Timed};
use crate::source::DeadLetter;
use crate::source::captured::Captured;
use crate::time::Epoch;

/// A record that rows can be made of: an upsert, or a captured change.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be turned into rows of `{K}` → `{V}`")]
pub trait RowRecord<K: Record, V: Record>: Event {
    /// What is kept of a key.
    type Kept: Event;

    /// Makes rows of records, and letters of those that it turns down.
    fn rows<'s>(
        records: StreamVec<'s, Epoch, Timed<Self>>,
        remember: Duration,
        setup: Setup<Timed<Self>>,
        counts: &SourceMetrics,
    ) -> Rows<'s, K, V>;
}

/// Rows as they change, and letters.
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
    type Kept = Held<V>;

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
