//! What a dataflow's sinks were given in a test.

use serde::de::DeserializeOwned;

use crate::dataflow::plan::PlannedSink;
use crate::error::{Error, Result};
use crate::schema::datum::Datum;
use crate::schema::{Numbers, RowSchema};
use crate::sink::Method;
use crate::sink::memory::MemorySinks;
use crate::sink::row::Row;
use crate::time::{Epoch, EventTime};

/// A row that a sink was given: see [`Run::written`](super::Run::written).
///
/// | method | `before` | `after` | `diff` | key | `time` |
/// |---|---|---|---|---|---|
/// | `append_to` | – | the event | 1 | – | its event time |
/// | `upsert_to` | – | the row; none: it was deleted | 1, −1 | of the row | – |
/// | `changes_to`, table | the row before the epoch | the row after it | 1, 0, −1 | of the row | – |
/// | `changes_to`, collection | – | the row | by how many it became more or fewer | – | – |
#[derive(Clone, Debug, PartialEq)]
pub struct Written<R> {
    /// The epoch that it belongs to.
    pub epoch: Epoch,
    /// The row before the epoch.
    pub before: Option<R>,
    /// The row after the epoch, or the event.
    pub after: Option<R>,
    /// By how many the row became more or fewer.
    pub diff: i64,
    /// When the event happened.
    pub time: Option<EventTime>,
    key: Option<String>,
}

impl<R> Written<R> {
    /// The row's key, read into `K` from JSON: a single value as what it is, any other key from an object of
    /// its fields.
    ///
    /// # Errors
    /// [`Request`](crate::Kind::Request): it is no `K`, or the row has no key.
    pub fn key<K: DeserializeOwned>(&self) -> Result<K> {
        let keyless = || Error::request("events and rows of a collection have no key");
        read(self.key.as_deref().ok_or_else(keyless)?)
    }
}

/// The sinks of a dataflow, and what each was given.
pub(super) struct Sinks {
    pub planned: Vec<PlannedSink>,
    pub memory: MemorySinks,
}

impl Sinks {
    pub(super) fn written<R: DeserializeOwned>(&self, name: &str) -> Result<Vec<Written<R>>> {
        let Some(sink) = self.planned.iter().find(|sink| sink.name == name) else {
            let names: Vec<_> = self
                .planned
                .iter()
                .map(|sink| format!("`{}`", sink.name))
                .collect();
            let error = Error::request(format!("the dataflow has no sink `{name}`"));
            return Err(match names.is_empty() {
                true => error.detail("it has none at all"),
                false => error.detail(format!("there are {}", names.join(", "))),
            });
        };
        if sink.method == Method::ForEachEpoch {
            let what = format!("sink `{name}` is a function, which the test calls as it is");
            return Err(Error::request(what).hint("let the function keep what it is given"));
        }
        let texts = self.memory.rows(name).into_iter();
        texts
            .map(|(epoch, row)| text(&sink.schema, sink.method, epoch, &row)?.read())
            .collect()
    }
}

/// A row as JSON: not generic, so that it is compiled once.
fn text(schema: &RowSchema, method: Method, epoch: Epoch, row: &Row) -> Result<Written<String>> {
    let unreadable = || Error::internal("a row of a sink can't be decoded");
    let written = |fields: Option<Vec<Datum>>| {
        let mut out = Vec::new();
        schema.write_row(&fields.ok_or_else(unreadable)?, Numbers::Exact, &mut out);
        String::from_utf8(out).map_err(|_| unreadable())
    };
    let whole = |write: &dyn Fn(&mut Vec<u8>) -> bool| {
        let mut out = Vec::new();
        match write(&mut out) {
            true => String::from_utf8(out).map_err(|_| unreadable()),
            false => Err(unreadable()),
        }
    };
    let after = match (method, row.after()) {
        (_, None) => None,
        (Method::AppendTo, Some(event)) => {
            Some(whole(&|out| schema.write_value(event, Numbers::Exact, out))?)
        }
        (_, Some(_)) => Some(written(row.fields(schema))?),
    };
    let before = row
        .before()
        .map(|_| written(row.fields_before(schema)))
        .transpose()?;
    let has_key = row.place().is_none() && !row.is_count();
    let key = has_key.then(|| whole(&|out| schema.write_record_key(row.key(), Numbers::Exact, out)));
    Ok(Written {
        epoch,
        before,
        after,
        diff: row.diff(),
        time: row.time(),
        key: key.transpose()?,
    })
}

impl Written<String> {
    fn read<R: DeserializeOwned>(self) -> Result<Written<R>> {
        let side = |text: Option<String>| text.as_deref().map(read).transpose();
        Ok(Written {
            epoch: self.epoch,
            before: side(self.before)?,
            after: side(self.after)?,
            diff: self.diff,
            time: self.time,
            key: self.key,
        })
    }
}

fn read<R: DeserializeOwned>(json: &str) -> Result<R> {
    serde_json::from_str(json).map_err(|error| {
        Error::request(format!(
            "what a sink was given is no `{}`",
            std::any::type_name::<R>()
        ))
        .detail(error)
        .detail(json)
    })
}
