//! Reads of a view whose shards are in several processes.
//!
//! ```text
//!   rows(query, snapshot) ─┬─ this process's shards ─────────────────────────┐
//!                          └─ ShardRead ═▶ every other process ═▶ ShardAnswer ┴─ combined, in order ─▶ page
//! ```
//!
//! All processes read as of the same epoch: one that has not closed it yet waits for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scan::{StoredPage, StoredRow};
use super::serve::{Filter, OrderBy, ReadError, RowQuery, RowsQuery, WindowPick};
use crate::clock;
use crate::time::Epoch;

/// A read of the shards of another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShardRead {
    /// The view.
    pub view: String,
    /// The epoch to read.
    pub epoch: Epoch,
    /// Maximum time, including the time until the epoch is closed there.
    pub limit: Duration,
    /// What to read.
    pub query: ShardQuery,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ShardQuery {
    /// One row.
    Row(RowQuery),
    /// The row with this encoded key.
    Key(Vec<u8>),
    /// Some rows.
    Rows {
        /// The query.
        query: RemoteRows,
        /// The row of the query's cursor, if the order depends on its contents.
        last: Option<StoredRow>,
    },
    /// How many there are.
    Count,
}

/// A [`RowsQuery`], without the limits that are of this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RemoteRows {
    filters: Vec<Filter>,
    order: Vec<OrderBy>,
    limit: usize,
    window: Option<WindowPick>,
    cursor: Option<String>,
    scanned_max: usize,
}

impl RemoteRows {
    /// The same query.
    pub(crate) fn of(query: &RowsQuery) -> Self {
        Self {
            filters: query.filters.clone(),
            order: query.order.clone(),
            limit: query.limit,
            window: query.window,
            cursor: query.cursor.clone(),
            scanned_max: query.scanned_max,
        }
    }

    /// The query to be answered within `limit`.
    pub(crate) fn within(self, limit: Duration) -> RowsQuery {
        RowsQuery {
            filters: self.filters,
            order: self.order,
            limit: self.limit,
            window: self.window,
            cursor: self.cursor,
            scanned_max: self.scanned_max,
            until: clock::instant().checked_add(limit),
        }
    }
}

/// What a process has found in its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ShardAnswer {
    /// A row, if it is there.
    Row(Option<StoredRow>),
    /// Some rows.
    Rows(StoredPage),
    /// How many there are.
    Count(usize),
}

/// Why another process could not read its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ShardError {
    /// See [`ReadError::Gone`].
    Gone(Epoch),
    /// See [`ReadError::TooMuch`].
    TooMuch(usize, Option<usize>, String),
    /// See [`ReadError::TooLong`].
    TooLong,
    /// It has not closed the epoch in time.
    Behind,
}

impl From<ReadError> for ShardError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone { oldest } => Self::Gone(oldest),
            ReadError::TooMuch {
                scanned_max,
                rows,
                hint,
            } => Self::TooMuch(scanned_max, rows, hint),
            ReadError::TooLong => Self::TooLong,
            // What is wrong with the query itself was found by the process that asks.
            _ => Self::Behind,
        }
    }
}

impl From<ShardError> for ReadError {
    fn from(error: ShardError) -> Self {
        match error {
            ShardError::Gone(oldest) => Self::Gone { oldest },
            ShardError::TooMuch(scanned_max, rows, hint) => Self::TooMuch {
                scanned_max,
                rows,
                hint,
            },
            ShardError::TooLong => Self::TooLong,
            ShardError::Behind => Self::Elsewhere,
        }
    }
}

/// Waits for the answers of all other processes.
pub(crate) type Gather = Box<dyn FnOnce() -> Result<Vec<ShardAnswer>, ReadError>>;

/// The shards of the other processes.
pub(crate) trait RemoteShards: Send + Sync {
    /// Asks all of them; the result waits for their answers, and blocks.
    fn ask(&self, read: ShardRead) -> Gather;
}
