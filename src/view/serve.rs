//! Type-erased reads of a view, as used by HTTP and tests.
//!
//! ```text
//!  Views ──get(name)──▶ Arc<dyn Serve>          Views ──closed() / snapshot(as_of)──▶ Arc<Snapshot>
//!                            │                                                          │
//!                            └────────── row / rows / changes (query, &snapshot) ◀──────┘
//! ```
//!
//! Every call reads as of one [`Snapshot`]. Holding the `Arc<Snapshot>` pins its epoch: its versions are kept
//! while the view's limit on old versions allows; beyond that, the call returns [`ReadError::Gone`], never a
//! partial result.
//!
//! A view holds the shards of this process's workers. In a cluster, `row` and `rows` ask the other processes
//! for the rest and block until they answer: call them where that is allowed, or use
//! [`local_row`](Serve::local_row) first. If a process does not answer, they return [`ReadError::Elsewhere`],
//! never a part of the rows. `changes` always does so in a cluster.

use std::fmt;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::schema::RowSchema;
use crate::schema::datum::Datum;
use crate::time::{Epoch, EventTime};
use crate::view::{Snapshot, ViewSpec};

/// A type-erased view.
pub trait Serve: Send + Sync {
    /// The view's definition.
    fn spec(&self) -> &ViewSpec;

    /// The row schema; rows hold the key's fields first, then the value's.
    fn schema(&self) -> &RowSchema;

    /// The approximate number of rows in the local shards, which includes open epochs.
    fn rows_len(&self) -> usize;

    /// Number of row changes in the local shards since the process started.
    fn applied(&self) -> u64;

    /// The last epoch up to `at` in which a row changed; [`Epoch::ZERO`] if none did, or if it is not known:
    /// no longer, or as other processes have shards too.
    fn changed(&self, at: &Snapshot) -> Epoch;

    /// No epoch below this one can be read. [`Epoch::ZERO`] until history has been pruned for the first time;
    /// see [`Views::oldest`](crate::view::Views::oldest) for the first epoch that exists.
    fn oldest(&self) -> Epoch;

    /// The event time below which the view's rows are complete at `at`: the watermark of its sources, or of
    /// those of its windows if that is lower, minus the time for which the view holds records back.
    /// [`EventTime::MIN`] if nothing is known.
    fn watermark(&self, at: &Snapshot) -> EventTime;

    /// The workers whose shards are in this process, ascending.
    fn shards(&self) -> Vec<usize>;

    /// Reads one row by its full key; in a windowed view by the key and a window, exact or selected.
    ///
    /// Returns `Ok(None)` if there is no such row as of `at`.
    fn row(&self, query: &RowQuery, at: &Snapshot) -> Result<Option<FoundRow>, ReadError>;

    /// Whether all shards are in this process, so that no read asks another one.
    fn is_whole(&self) -> bool;

    /// Like [`row`](Self::row), but looks into this process's shards only: `None` does not mean that there is
    /// no such row, unless the view [is whole](Self::is_whole).
    fn local_row(&self, query: &RowQuery, at: &Snapshot) -> Result<Option<FoundRow>, ReadError>;

    /// The approximate number of rows in all shards of the cluster; those of this process if another one does
    /// not answer.
    fn rows_count(&self, at: &Snapshot) -> usize;

    /// Reads rows by filters, ordered, in pages.
    fn rows(&self, query: &RowsQuery, at: &Snapshot) -> Result<Page, ReadError>;

    /// Reads rows of this process's shards only: a part of a cluster's answer.
    fn local_rows(&self, query: &RowsQuery, at: &Snapshot) -> Result<Page, ReadError>;

    /// The changes that lead from the rows matching `query` at `from` to those matching it at `to`: at most
    /// one per key, however many epochs lie in between. `order`, `limit` and `cursor` of the query are
    /// ignored; `window` must be `None` or [`WindowPick::Start`], because others move with the watermark
    /// alone.
    fn changes(&self, query: &RowsQuery, from: &Snapshot, to: &Snapshot)
    -> Result<Vec<RowChange>, ReadError>;

    /// Order-independent hash of the local shards' changes in a closed epoch (0: none); `None` if hashes are
    /// off ([`ViewSpec::hashed`]) or the epoch is older than the history.
    fn hash(&self, epoch: Epoch) -> Option<u64>;
}

/// A value given by a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GivenValue {
    /// Text, as in a URL, already percent-decoded.
    Text(String),
    /// A JSON value as written in a body: its numbers keep all of their digits.
    Json(String),
}

impl From<&str> for GivenValue {
    fn from(text: &str) -> Self {
        GivenValue::Text(text.to_owned())
    }
}
impl From<String> for GivenValue {
    fn from(text: String) -> Self {
        GivenValue::Text(text)
    }
}
impl From<serde_json::Value> for GivenValue {
    fn from(value: serde_json::Value) -> Self {
        GivenValue::Json(value.to_string())
    }
}
impl From<Box<RawValue>> for GivenValue {
    fn from(json: Box<RawValue>) -> Self {
        GivenValue::Json(Box::<str>::from(json).into())
    }
}

/// A query for one row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowQuery {
    /// Key fields by name, in any order. All are required, except that `window` may replace `window_start`
    /// and `window_end`.
    pub key: Vec<(String, GivenValue)>,
    /// The window, in a windowed view. [`WindowPick::Open`] selects the newest open window that has a row.
    pub window: Option<WindowPick>,
}

/// Selects windows without arithmetic in the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowPick {
    /// Windows that end after the view's watermark.
    Open,
    /// The newest closed window: one for the whole view if windows are aligned, otherwise one per key.
    LastClosed,
    /// The windows that start at this time.
    Start(EventTime),
}

/// How to compare a field with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A condition on one field. Null is less than every value, and equal to itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// A field of the key or the value.
    pub field: String,
    /// The comparison.
    pub op: Op,
    /// The value to compare with.
    pub value: GivenValue,
}

/// A field to order by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderBy {
    /// A field of the key or the value.
    pub field: String,
    /// Whether the order is descending.
    pub descending: bool,
}

/// A query for rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RowsQuery {
    /// All must match.
    pub filters: Vec<Filter>,
    /// If empty, by key. Ties are broken by key, in the direction of the last field, so pages are well
    /// defined. An order that follows the key's fields (leaving out those fixed by equality) costs a page;
    /// others read all matches.
    pub order: Vec<OrderBy>,
    /// Maximum number of rows per page; at least 1.
    pub limit: usize,
    /// Which windows, in a windowed view; `None`: all that are kept.
    pub window: Option<WindowPick>,
    /// [`Page::next`] of the previous page, read at the epoch that it names ([`cursor_epoch`]); everything
    /// except `limit` must be the same.
    pub cursor: Option<String>,
    /// Maximum number of rows to scan. A result in key order is cut short there ([`Page::cut_short`]). Other
    /// orders need every row that the key does not exclude: they fail with [`ReadError::TooMuch`], before
    /// reading a single row if that would be the whole view.
    pub scanned_max: usize,
    /// The deadline of the scan. A result in key order is cut short there; others fail with
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

/// A row of a result. [`RowSchema::write_row`] writes it as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundRow {
    /// One datum per field: the key's fields, then the value's, as in the schema.
    pub row: Vec<Datum>,
    /// The epoch in which the row last changed: its ETag.
    pub version: Epoch,
    /// In a windowed view: whether all events of the window are included.
    pub closed: Option<bool>,
}

/// Some rows, and the cursor of the next ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<FoundRow>,
    /// Opaque cursor; `None` if these were the last rows.
    pub next: Option<String>,
    /// How many rows were scanned.
    pub scanned: usize,
    /// Whether the scan stopped at a limit and the page has fewer rows than exist, perhaps none: `next`
    /// continues after them.
    pub cut_short: bool,
}

/// The change of a row between two snapshots.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// The row's new contents.
    Upsert(FoundRow),
    /// The row was deleted or no longer matches: the datums of its key's fields.
    Delete(Vec<Datum>),
}

/// Why a read failed. Each maps to one problem type over HTTP.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ReadError {
    /// No epoch has been closed yet.
    NotYet,
    /// The requested version is no longer kept.
    Gone {
        /// The oldest epoch that can be read.
        oldest: Epoch,
    },
    /// There is no field with this name.
    FieldUnknown {
        /// The given name.
        field: String,
        /// A similar name of a field.
        nearest: Option<String>,
        /// The valid names.
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
        /// The given value.
        got: String,
    },
    /// The comparison does not apply to the field.
    Filter {
        /// The field.
        field: String,
        /// The reason.
        why: String,
    },
    /// A window was requested in a view without windows, or twice.
    Window {
        /// The reason.
        why: String,
    },
    /// The cursor is invalid, or belongs to another query or epoch.
    Cursor {
        /// The reason.
        why: String,
    },
    /// The query would scan too many rows.
    TooMuch {
        /// The limit.
        scanned_max: usize,
        /// The number of rows in the view, if all of them would be scanned.
        rows: Option<usize>,
        /// How to make it cheaper.
        hint: String,
    },
    /// The scan took too long.
    TooLong,
    /// Another process, which holds rows of the view, does not answer.
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
            ReadError::Elsewhere => {
                f.write_str("another process of the cluster, which holds rows of this view, does not answer")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// The epoch at which a [`Page::next`] must be read.
pub fn cursor_epoch(cursor: &str) -> Result<Epoch, ReadError> {
    Ok(PageCursor::parse(cursor)?.epoch)
}

/// The end of a page. Encoded as postcard in URL-safe base64, with the key as the view encodes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageCursor {
    /// The epoch that all pages are read at.
    pub epoch: Epoch,
    /// Identifies the query: the cursor is invalid for any other.
    pub query: u64,
    /// The last row's key.
    pub key: Vec<u8>,
}

impl PageCursor {
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
