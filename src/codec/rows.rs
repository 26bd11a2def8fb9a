//! How rows that leave a dataflow become keys and payloads of records.
//!
//! | rows of | key | payload |
//! |---|---|---|
//! | `append_to` | none | the event |
//! | `upsert_to` | the key's fields | all fields of the row; none where it is gone |
//! | `changes_to` | the key's fields, or the row itself of a collection | `before` and `after` the epoch |

use std::sync::Arc;

use super::header::Header;
use super::registry::Registry;
use crate::error::Result;
use crate::schema::RowSchema;
use crate::sink::row::Row;

/// Writes the rows of one shard of a sink.
pub trait RowEncoder: Send {
    /// Appends the key of a record to `out`; `false`: it has none.
    ///
    /// # Errors
    /// The row can't be written in this format.
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool>;

    /// Adds headers of the record.
    ///
    /// # Errors
    /// As those of [`key`](Self::key).
    fn headers(&mut self, _row: &Row, _headers: &mut Vec<Header>) -> Result<()> {
        Ok(())
    }

    /// Appends the payload; `false`: it has none, as the row of its key is gone.
    ///
    /// # Errors
    /// As those of [`key`](Self::key).
    fn payload(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool>;
}

/// How rows that are given by a method are written.
#[derive(Clone)]
pub struct RowEncoding {
    /// Whether rows of a schema can be written: looked at before anything runs.
    pub check: CheckRows,
    /// Makes encoders, as the sink is opened.
    pub encoder: MakeEncoder,
}

/// Looks at the schema of rows.
///
/// # Errors
/// Rows of that schema can't be written in this format.
pub type CheckRows = Arc<dyn Fn(&RowSchema) -> Result<()> + Send + Sync>;

/// Makes an encoder.
///
/// # Errors
/// Those of the check; or something outside does not take rows like these, such as a schema registry.
pub type MakeEncoder = Arc<dyn Fn(&RowsOf<'_>) -> Result<Box<dyn RowEncoder>> + Send + Sync>;

/// What an encoder is made for.
pub struct RowsOf<'a> {
    /// The rows' schema.
    pub schema: &'a Arc<RowSchema>,
    /// The topic that they go to.
    pub topic: &'a str,
    /// The schema registry.
    pub registry: Option<&'a Registry>,
}
