//! Reading a view without knowing its types: what HTTP, SQL and tests see.
//!
//! ```text
//!  Views ──get(name)──▶ Arc<dyn Serve>          Views ──closed() / moment(as_of)──▶ Arc<Moment>
//!                            │                                                          │
//!                            └────────── row / rows / changes (query, &moment) ◀────────┘
//! ```
//!
//! Every call reads as of one [`Moment`]. Whoever holds the `Arc<Moment>` pins its epoch: what it needs is
//! kept while the view's bound on old versions allows; past that the call answers [`ReadError::Gone`], never
//! half an answer.
//!
//! A view holds the shards of this process's workers. In a cluster of several processes `rows` and `changes`
//! say [`ReadError::Elsewhere`], and so does `row` where it finds none: what another process has is not known
//! here.

use std::fmt;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::schema::RowSchema;
use crate::schema::datum::Datum;
use crate::time::{Epoch, EventTime};
use crate::view::{Moment, ViewSpec};

/// A view, its types erased.
pub trait Serve: Send + Sync {
    /// What the view was defined as.
    fn spec(&self) -> &ViewSpec;

    /// Names and types of its fields; rows hold the key's fields first, then the value's.
    fn schema(&self) -> &RowSchema;

    /// Rows in the local shards, roughly: epochs still open are counted.
    fn rows_len(&self) -> usize;

    /// Changes of rows in the local shards since the process started.
    fn applied(&self) -> u64;

    /// The last epoch up to `at` in which any row of the local shards changed; [`Epoch::ZERO`] when none did,
    /// or when it is no longer known.
    fn changed(&self, at: &Moment) -> Epoch;

    /// No epoch below this one can be read any more. [`Epoch::ZERO`] until history has been given up for the
    /// first time; see [`Views::oldest`](crate::view::Views::oldest) for the first epoch that there is.
    fn oldest(&self) -> Epoch;

    /// The event time below which the view's rows are complete at `at`: the watermark of its sources, and of
    /// those of its windows where that is lower, less what the view holds back. [`EventTime::MIN`] when
    /// nothing is known.
    fn watermark(&self, at: &Moment) -> EventTime;

    /// Which workers' shards are in this process, ascending.
    fn shards(&self) -> Vec<usize>;

    /// One row by its whole key; of a windowed view by the key and a window, exact or picked.
    ///
    /// `Ok(None)`: there is no such row as of `at`.
    fn row(&self, query: &RowQuery, at: &Moment) -> Result<Option<FoundRow>, ReadError>;

    /// Rows by filters, in order, by pages.
    fn rows(&self, query: &RowsQuery, at: &Moment) -> Result<Page, ReadError>;

    /// The same of this process's shards alone: a part of a cluster's answer.
    fn local_rows(&self, query: &RowsQuery, at: &Moment) -> Result<Page, ReadError>;

    /// What leads from the rows that match `query` at `from` to those that match it at `to`: at most one
    /// change a key, whatever number of epochs lies between. `order`, `limit` and `cursor` of the query are
    /// not looked at; `window` must be `None` or [`WindowPick::Start`], as others move with the watermark
    /// alone.
    fn changes(&self, query: &RowsQuery, from: &Moment, to: &Moment) -> Result<Vec<RowChange>, ReadError>;

    /// Order-free hash of the local shards' changes in a closed epoch (0: none); `None` when hashes are off
    /// ([`ViewSpec::hashed`]) or the epoch is older than the history.
    fn hash(&self, epoch: Epoch) -> Option<u64>;
}

/// A value as a client gave it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Given {
    /// Text, as in a URL, already percent-decoded.
    Text(String),
    /// A JSON value, as it is written in a body: its numbers have all of their digits.
    Json(String),
}

impl From<&str> for Given {
    fn from(text: &str) -> Self {
        Given::Text(text.to_owned())
    }
}
impl From<String> for Given {
    fn from(text: String) -> Self {
        Given::Text(text)
    }
}
impl From<serde_json::Value> for Given {
    fn from(value: serde_json::Value) -> Self {
        Given::Json(value.to_string())
    }
}
impl From<Box<RawValue>> for Given {
    fn from(json: Box<RawValue>) -> Self {
        Given::Json(Box::<str>::from(json).into())
    }
}

/// Asks for one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowQuery {
    /// Key fields by name, in any order. All of them, but that `window` may stand for `window_start` and
    /// `window_end`.
    pub key: Vec<(String, Given)>,
    /// Which window, of a windowed view. [`WindowPick::Open`] takes the newest open window that has a row.
    pub window: Option<WindowPick>,
}

/// Picks windows without arithmetic by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum WindowPick {
    /// Windows whose end lies beyond the view's watermark.
    Open,
    /// The newest closed window: one for the whole view where windows are aligned, one for each key
    /// otherwise.
    LastClosed,
    /// The windows that start there.
    Start(EventTime),
}

/// How a field is compared with a given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// At most.
    Le,
    /// Greater than.
    Gt,
    /// At least.
    Ge,
    /// Text that begins with the value.
    Prefix,
}

impl Op {
    /// By its name in a URL: `eq ne lt le gt ge prefix`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Op::Eq,
            "ne" => Op::Ne,
            "lt" => Op::Lt,
            "le" => Op::Le,
            "gt" => Op::Gt,
            "ge" => Op::Ge,
            "prefix" => Op::Prefix,
            _ => return None,
        })
    }
}

/// A condition on one field. Null is below every value, and equal to itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filter {
    /// A field of the key or the value.
    pub field: String,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: Given,
}

/// A field to order by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderBy {
    /// A field of the key or the value.
    pub field: String,
    /// Greatest first.
    pub descending: bool,
}

/// Asks for rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RowsQuery {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Empty: by key. Ties are broken by key, in the direction of the last field, so pages are well defined.
    /// An order that follows the key's fields (those fixed by equality left out) costs a page; others look at
    /// all that match.
    pub order: Vec<OrderBy>,
    /// At most so many rows in a page; at least 1.
    pub limit: usize,
    /// Which windows, of a windowed view; `None`: all that are kept.
    pub window: Option<WindowPick>,
    /// [`Page::next`] of the page before, read at the epoch it names ([`cursor_epoch`]); all else but `limit`
    /// must be the same.
    pub cursor: Option<String>,
    /// Looks at so many rows at most. An answer in the order of keys is cut short there
    /// ([`Page::cut_short`]). All others need every row that their key does not leave out: they are
    /// [`ReadError::TooMuch`], before a single row is looked at where that is the whole view.
    pub scanned_max: usize,
    /// Looks at rows until then. An answer in the order of keys is cut short there; all others are
    /// [`ReadError::TooLong`].
    pub until: Option<Instant>,
}

impl Default for RowsQuery {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            order: Vec::new(),
            limit: 100,
            window: None,
            cursor: None,
            scanned_max: 1_000_000,
            until: None,
        }
    }
}

/// A row as found. Written as JSON by [`RowSchema::write_row`].
#[derive(Clone, Debug, PartialEq)]
pub struct FoundRow {
    /// One datum a field: the key's fields, then the value's, as in the schema.
    pub row: Vec<Datum>,
    /// The epoch in which the row last changed: its ETag.
    pub version: Epoch,
    /// Of a windowed view: whether all events of the window are in.
    pub closed: Option<bool>,
}

/// Some rows, and how to get the next ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<FoundRow>,
    /// Opaque; `None` when these were the last rows.
    pub next: Option<String>,
    /// How many rows were looked at.
    pub scanned: usize,
    /// Whether it has fewer rows than there are, perhaps none, because enough were looked at: `next` goes on
    /// behind them.
    pub cut_short: bool,
}

/// The change of one row between two moments.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// The row is now this.
    Upsert(FoundRow),
    /// The row is gone, or no longer matches: the datums of its key's fields.
    Delete(Vec<Datum>),
}

/// Why a read has no answer. Each maps to one problem type over HTTP.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ReadError {
    /// No epoch has been closed yet.
    NotYet,
    /// The version asked for is no longer kept.
    Gone {
        /// The oldest epoch that can be read.
        oldest: Epoch,
    },
    /// No field has this name.
    FieldUnknown {
        /// The name given.
        field: String,
        /// The name of a field that is much like it.
        nearest: Option<String>,
        /// The names that would do.
        known: Vec<String>,
    },
    /// A field of the key is missing.
    KeyMissing {
        /// The field.
        field: String,
    },
    /// A field was given twice.
    KeyTwice {
        /// The field.
        field: String,
    },
    /// A value does not fit its field's type.
    KeyType {
        /// The field.
        field: String,
        /// The type's name, as in the schema.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The comparison makes no sense for the field.
    Filter {
        /// The field.
        field: String,
        /// Why not.
        why: String,
    },
    /// A window was asked of a view without windows, or twice.
    Window {
        /// Why not.
        why: String,
    },
    /// The cursor can't be read, or belongs to another query or epoch.
    Cursor {
        /// Why not.
        why: String,
    },
    /// The query would look at too many rows.
    TooMuch {
        /// The bound that it met.
        scanned_max: usize,
        /// How many rows the view has, where it would look at all of them.
        rows: Option<usize>,
        /// What would make it cheaper.
        hint: String,
    },
    /// Looking at the rows took too long.
    TooLong,
    /// Other processes have rows of the view, and what this one has is no whole answer.
    Elsewhere,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotYet => f.write_str("no epoch has been closed yet"),
            ReadError::Gone { oldest } => write!(f, "version no longer kept; the oldest is {oldest}"),
            ReadError::FieldUnknown {
                field,
                nearest: Some(nearest),
                ..
            } => {
                write!(f, "no field is named `{field}`; `{nearest}` is the nearest")
            }
            ReadError::FieldUnknown { field, known, .. } => {
                write!(f, "no field is named `{field}`; there are {}", known.join(", "))
            }
            ReadError::KeyMissing { field } => write!(f, "the key's field `{field}` is missing"),
            ReadError::KeyTwice { field } => write!(f, "field `{field}` is given twice"),
            ReadError::KeyType { field, expected, got } => {
                write!(f, "field `{field}` is of type {expected}, got {got}")
            }
            ReadError::Filter { field, why } => write!(f, "field `{field}`: {why}"),
            ReadError::Window { why } | ReadError::Cursor { why } => f.write_str(why),
            ReadError::TooMuch {
                scanned_max,
                rows: Some(rows),
                ..
            } => write!(
                f,
                "the read would scan all {rows} rows; the limit is {scanned_max}"
            ),
            ReadError::TooMuch { scanned_max, .. } => {
                write!(f, "the read would scan more than {scanned_max} rows")
            }
            ReadError::TooLong => f.write_str("scanning the rows took too long"),
            ReadError::Elsewhere => f.write_str("other processes of the cluster hold rows of this view"),
        }
    }
}

impl std::error::Error for ReadError {}

/// The epoch at which a [`Page::next`] must be read.
pub fn cursor_epoch(cursor: &str) -> Result<Epoch, ReadError> {
    Ok(Cursor::parse(cursor)?.epoch)
}

/// Where a page ended. Postcard in URL-safe base64; the key is encoded as the view has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The epoch that all pages are read at.
    pub epoch: Epoch,
    /// Tells the query apart: a cursor is of no use to another one.
    pub query: u64,
    /// The last row's key.
    pub key: Vec<u8>,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Result<Self, ReadError> {
        let malformed = || ReadError::Cursor {
            why: "invalid cursor: pass `next` unchanged".into(),
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        match postcard::take_from_bytes(&bytes) {
            Ok((cursor, [])) => Ok(cursor),
            _ => Err(malformed()),
        }
    }

    pub(crate) fn write(&self) -> String {
        let bytes = postcard::to_stdvec(self).expect("integers and bytes can be written to memory");
        URL_SAFE_NO_PAD.encode(bytes)
    }
}
