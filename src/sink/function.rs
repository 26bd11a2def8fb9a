//! `for_each_epoch`: a repeating sink whose store is a function of the user's.

use std::fmt::Display;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::record::{Change, Event, Record, Timed};
use crate::schema::RowSchema;
use crate::sink::row::Row;
use crate::sink::{Batch, Method, OpenedSink, Shard, Sink, WriteError, Writer, Writers};
use crate::source::Environment;
use crate::time::Epoch;

/// Turns an encoded row back into what the function takes.
type Decode<R> = fn(&RowSchema, &Row) -> Option<R>;

/// A sink that gives each epoch to a function.
pub(crate) struct FunctionSink<R, F> {
    f: F,
    decode: Decode<R>,
}

impl<K: Record, V: Record, F> FunctionSink<Change<K, V>, F> {
    /// Of the changes of a table.
    pub(crate) fn of_changes(f: F) -> Self {
        Self { f, decode: change }
    }
}

impl<T: Event, F> FunctionSink<Timed<T>, F> {
    /// Of the events of a stream.
    pub(crate) fn of_events(f: F) -> Self {
        Self { f, decode: event }
    }
}

impl<R: 'static, E: Display, F: FnMut(Epoch, &[R]) -> Result<(), E> + Send + 'static> Sink
    for FunctionSink<R, F>
{
    fn open(self, _: Method, _: &Environment) -> Result<OpenedSink> {
        let decode = self.decode;
        let f = Arc::new(Mutex::new(Some(self.f)));
        let writers = Writers::repeating(move |shard: &Shard| {
            let f = f.lock().take();
            let f = f.ok_or_else(|| Error::internal("a function was to be called by two shards"))?;
            Ok(FunctionWriter {
                f,
                decode,
                schema: shard.schema.clone(),
                last: Epoch::ZERO,
            })
        });
        Ok(OpenedSink::new("a function", writers))
    }
}

struct FunctionWriter<R, F> {
    f: F,
    decode: Decode<R>,
    schema: Arc<RowSchema>,
    /// The last epoch that it took: of those that are given again it may have taken some.
    last: Epoch,
}

impl<R, E: Display, F: FnMut(Epoch, &[R]) -> Result<(), E> + Send> Writer for FunctionWriter<R, F> {
    fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
        for batch in epochs {
            if batch.epoch <= self.last {
                continue;
            }
            let rows = batch.rows.iter().map(|row| (self.decode)(&self.schema, row));
            let rows: Option<Vec<R>> = rows.collect();
            let unread = || Error::internal(format!("a row of epoch {} can't be decoded", batch.epoch));
            let rows = rows.ok_or_else(|| WriteError::Fatal(unread()))?;
            (self.f)(batch.epoch, &rows).map_err(|error| {
                WriteError::Retry(Error::external(format!("epoch {}: {error}", batch.epoch)))
            })?;
            self.last = batch.epoch;
        }
        Ok(())
    }
}

fn change<K: Record, V: Record>(schema: &RowSchema, row: &Row) -> Option<Change<K, V>> {
    let value = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => schema.decode_value::<V>(bytes).map(Some),
        None => Some(None),
    };
    Some(Change {
        key: schema.decode_key(row.key())?,
        old: value(row.before())?,
        new: value(row.after())?,
    })
}

fn event<T: Event>(schema: &RowSchema, row: &Row) -> Option<Timed<T>> {
    Some(Timed {
        value: schema.decode_value(row.after()?)?,
        time: row.time()?,
        horizon: row.horizon()?,
        at: row.place()?.position,
    })
}
