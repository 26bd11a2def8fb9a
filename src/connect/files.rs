//! Files of lines as a source: a file a partition, a line a record.
//!
//! ```text
//!   Files::lines("in/*.jsonl").json::<T>() ─▶ Lines<T>: Source<T> ── .keyed(..) ─▶ KeyedLines<T, K, V>: UpsertSource<K, V>
//!
//!   in/2026-01.jsonl   partition 0   {"id":1}⏎{"id":2}⏎        offset of a record: the byte that its line begins at
//!   in/2026-02.jsonl   partition 1   {"id":3}⏎{"id             followed: waits for the line's end; until the end: a record
//! ```
//!
//! Files only ever grow, and new ones sort after those that are there: a partition's number is its file's
//! place in the order of names. The ledger binds offsets with counts and hashes, so a replay reads the same
//! lines, and a file that was changed below what is bound halts the service. An offset is a byte and not a
//! line, so that a restart goes to it at once and a line that was cut short by the end of the input stays cut
//! there: `tail -c +$((offset + 1))` shows the record.

mod listing;
mod reader;

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use self::listing::{FilesDriver, Listing, NAME};
use self::reader::{FilesReader, LineOrigin};
use crate::bridge::Waker;
use crate::codec::format::{DecoderResources, Format};
use crate::codec::json::JsonFormat;
use crate::codec::text::TextFormat;
use crate::connect::connector::Connector;
use crate::error::{Error, Result};
use crate::record::Event;
use crate::source::records::Payload;
use crate::source::{
    Environment, OpenedSource, Source, TimeRules, UpsertSource, dead_letters_to, time_rules,
};
use crate::time::EventTime;

/// How often a file that was read to its end is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// Files whose format is still to be named.
///
/// ```
/// use std::time::Duration;
/// use thalweg::{EventTime, connect::files::Files};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// let payments = Files::lines("in/payments-*.jsonl")
///     .json::<Payment>()
///     .event_time(|p| EventTime::from_millis(p.at_ms))
///     .lateness(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Files {
    pattern: PathBuf,
}

impl Files {
    /// The files at `pattern`: a file, a folder (all files in it but hidden ones), or a path whose last part
    /// has `*` for any characters and `?` for one. Relative to the folder that the process was started in; in
    /// a cluster every process sees the same files.
    pub fn lines(pattern: impl Into<PathBuf>) -> Self {
        Self {
            pattern: pattern.into(),
        }
    }

    /// Lines are in this format: one of those in [`codec`](crate::codec), or of your own. Lines of nothing
    /// but white space are passed over; lines may end in CRLF. A line ends at its first line feed, so what is
    /// binary, as Avro is, can't stand on lines.
    pub fn format<T: 'static>(self, format: impl Format<T>) -> Lines<T> {
        Lines {
            pattern: self.pattern,
            format: Box::new(format),
            poll: POLL,
            waits: false,
            dead_letters: None,
            rules: TimeRules::default(),
        }
    }

    /// Lines are JSON. Fields that `T` lacks are passed over; so are lines of nothing but white space, and a
    /// byte order mark before a line. Lines may end in CRLF.
    pub fn json<T: DeserializeOwned + 'static>(self) -> Lines<T> {
        self.format(JsonFormat { strict: false })
    }

    /// Lines are JSON, and a field that `T` lacks, at any depth, makes the record a dead letter that names
    /// the field.
    pub fn json_strict<T: DeserializeOwned + 'static>(self) -> Lines<T> {
        self.format(JsonFormat { strict: true })
    }

    /// Lines are the bare text of one value, in UTF-8: `text::<String>()` for strings, `text::<u64>()` for
    /// `42`.
    pub fn text<T: DeserializeOwned + 'static>(self) -> Lines<T> {
        self.format(TextFormat)
    }
}

/// Files with a `T` on each line: a source of events.
#[must_use]
pub struct Lines<T> {
    pattern: PathBuf,
    format: Box<dyn Format<T>>,
    poll: Duration,
    waits: bool,
    dead_letters: Option<String>,
    rules: TimeRules<T>,
}

impl<T> Lines<T> {
    time_rules!();
    dead_letters_to!();

    /// How often a file that was read to its end is looked at again. Default: 200 ms. New files are looked
    /// for twice a second.
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// Waits at the start until there is a file, in place of an error.
    pub fn wait_for_files(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Rows by key: `row` takes a line's value apart into the key and its row, or none to delete it. The last
    /// line of a key wins, so all lines of a key belong into one file.
    pub fn keyed<K, V>(self, row: impl Fn(T) -> (K, Option<V>) + 'static) -> KeyedLines<T, K, V> {
        KeyedLines {
            lines: self,
            row: Box::new(row),
            rows: PhantomData,
        }
    }
}

/// Files of rows `V` by key `K`, made of a `T` on each line.
#[must_use]
pub struct KeyedLines<T, K, V> {
    lines: Lines<T>,
    row: Box<dyn Fn(T) -> (K, Option<V>)>,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<T: Event> Source<T> for Lines<T> {
    fn open(mut self, env: &Environment) -> Result<OpenedSource<T>> {
        if self.rules.event_time.is_none() {
            return Err(
                Error::definition(format!("lines of {} have no event time", self.pattern.display()))
                    .detail("records of a topic carry a timestamp; lines of a file do not")
                    .hint("take it from the value: `.event_time(|line| EventTime::from_millis(line.at_ms))`"),
            );
        }
        let rules = std::mem::take(&mut self.rules);
        self.opened(rules, env, Box::new(|value| value))
    }
}

impl<T, K, V> UpsertSource<K, V> for KeyedLines<T, K, V>
where
    T: 'static,
    K: Event,
    V: Event,
{
    type Records = (K, Option<V>);

    fn open(self, env: &Environment) -> Result<OpenedSource<(K, Option<V>)>> {
        let rules = TimeRules {
            timed: false,
            ..TimeRules::default()
        };
        self.lines.opened(rules, env, self.row)
    }
}

impl<T: 'static> Lines<T> {
    fn opened<R: 'static>(
        self,
        rules: TimeRules<R>,
        env: &Environment,
        make: Box<dyn Fn(T) -> R>,
    ) -> Result<OpenedSource<R>> {
        let mut format = self.format;
        format.prepare()?;
        let (listing, until_end) = (Listing::new(self.pattern), env.until_end);
        let (registry, poll) = (env.registry.clone(), self.poll);
        let driver = FilesDriver::new(listing.clone(), until_end, self.waits, format.name());
        Ok(OpenedSource {
            topic: listing.pattern().display().to_string(),
            description: format!("files `{}`", listing.pattern().display()),
            driver: Arc::new(driver),
            rules,
            dead_letters: self.dead_letters,
            reader: Box::new(move |waker: Waker| {
                let resources = DecoderResources {
                    registry: registry.as_ref(),
                    waker: &waker,
                };
                let lines = Payload::new(&*format, &resources)?;
                let place = LineOrigin { listing, until_end };
                Ok(Box::new(FilesReader::new(place, lines, make, poll, waker)?))
            }),
        })
    }
}

/// Files, as settings, checks and the command line see them.
pub(crate) struct FilesConnector;

impl Connector for FilesConnector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn log(&self) -> &'static str {
        "file"
    }
}

#[cfg(test)]
mod tests;
