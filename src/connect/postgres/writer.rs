//! The writer of one shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::column::ColumnArray;
use super::failure::PostgresFailure;
use super::progress::{ProgressRow, ShardClaim};
use super::session::{Parameter, ServerAddress, Session};
use super::table::{Column, ColumnOrigin, Layout};
use crate::error::Result;
use crate::fault;
use crate::schema::datum::Datum;
use crate::sink::row::Row;
use crate::sink::{Batch, Progress, Shard, TransactionalWriter, WriteError};
use crate::time::Epoch;

/// Rows of one statement, at most.
const STATEMENT_ROWS: usize = 4096;
/// The same in bytes of encoded rows, but for one row that has more.
const STATEMENT_BYTES: usize = 4 << 20;

/// Writes the rows of a shard.
pub(super) struct PostgresWriter {
    server: Arc<ServerAddress>,
    shard: Shard,
    layout: Layout,
    progress: ProgressRow,
    open: Option<OpenSession>,
}

/// A connection, and what was found and claimed by it.
struct OpenSession {
    session: Session,
    claim: ShardClaim,
    insert: String,
    delete: String,
    arrays: Vec<ColumnArray>,
}

/// A row to be written.
#[derive(Clone, Copy)]
struct PendingRow<'a> {
    /// Its number in what is committed.
    number: usize,
    epoch: Epoch,
    row: &'a Row,
    /// Its key's row is gone.
    deletes: bool,
}

/// Rows of one statement: all are deleted, or none is.
#[derive(Clone, Copy)]
struct StatementRows<'a> {
    deletes: bool,
    items: &'a [PendingRow<'a>],
}

impl<'a> StatementRows<'a> {
    fn of(items: &'a [PendingRow<'a>]) -> Self {
        let deletes = items.first().is_some_and(|item| item.deletes);
        Self { deletes, items }
    }
}

impl PostgresWriter {
    pub(super) fn new(
        server: Arc<ServerAddress>,
        shard: Shard,
        layout: Layout,
        application: &str,
    ) -> Result<Self> {
        Ok(Self {
            progress: ProgressRow::new(application, &layout.table, &shard)?,
            server,
            shard,
            layout,
            open: None,
        })
    }

    /// Connects, takes the shard over, and finds what was committed by then.
    fn connect(&mut self) -> Result<ShardClaim, PostgresFailure> {
        self.open = None;
        let session = self.server.connect()?;
        let casts = self.progress.prepare(&session, &self.layout)?;
        let claim = self.progress.claim(&session)?;
        let arrays = self
            .layout
            .columns
            .iter()
            .map(|column| ColumnArray::new(column.store));
        self.open = Some(OpenSession {
            session,
            claim: claim.clone(),
            insert: self.layout.insert(&casts),
            delete: self.layout.delete(&casts),
            arrays: arrays.collect(),
        });
        Ok(claim)
    }

    /// Begins a transaction. A connection that was closed while there was nothing to write is no trouble.
    fn begin(&mut self, before: u64) -> Result<(), PostgresFailure> {
        let begun = self.open.as_ref().map(|open| open.session.begin());
        match begun {
            Some(Ok(())) => return Ok(()),
            Some(Err(failure)) if !failure.is_of_the_connection() => return Err(failure),
            Some(Err(_)) | None => {}
        }
        let claim = self.connect()?;
        if claim.number.is_none() || claim.rows != before {
            // Another one has written, or a commit was lost: the task asks anew.
            return Err(PostgresFailure::Fenced);
        }
        self.open()?.session.begin()
    }

    fn open(&mut self) -> Result<&mut OpenSession, PostgresFailure> {
        let gone = || PostgresFailure::Late("there is no connection".into());
        self.open.as_mut().ok_or_else(gone)
    }

    fn write(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), PostgresFailure> {
        let rows: usize = epochs.iter().map(|batch| batch.rows.len()).sum();
        let before = progress.rows - rows as u64;
        let items = items(epochs, self.layout.keys > 0);
        let works = works(&items);
        self.begin(before)?;
        let open = self.open.as_ref().ok_or(PostgresFailure::Fenced)?;
        let claim = open.claim.number.ok_or(PostgresFailure::Fenced)?;
        self.progress.advance(&open.session, claim, before, progress)?;
        fault::point("postgres_sink.advanced");
        for (at, work) in works.iter().enumerate() {
            if let Err(failure) = self.run(work) {
                return Err(self.located(&works, at, failure));
            }
        }
        fault::point("postgres_sink.written");
        self.open()?.session.commit()?;
        fault::point("postgres_sink.committed");
        Ok(())
    }

    /// Runs one statement.
    fn run(&mut self, work: &StatementRows<'_>) -> Result<(), PostgresFailure> {
        let gone = || PostgresFailure::Late("there is no connection".into());
        let open = self.open.as_mut().ok_or_else(gone)?;
        let columns = match work.deletes {
            true => &self.layout.columns[..self.layout.keys],
            false => &self.layout.columns[..],
        };
        open.arrays.iter_mut().for_each(ColumnArray::clear);
        for item in work.items {
            encode(item, &self.shard, columns, &mut open.arrays).map_err(|(column, why)| {
                PostgresFailure::Row(item.number, self.layout.refused(column, &why))
            })?;
        }
        let parameters = columns.iter().zip(&open.arrays);
        let parameters: Vec<Parameter<'_>> = parameters
            .map(|(column, array)| (array as _, column.store.parameter()))
            .collect();
        let sql = if work.deletes { &open.delete } else { &open.insert };
        let touched = open.session.execute(sql, &parameters)?;
        // Of a row that came and went since the last commit there is nothing to delete.
        let expected = work.items.len() as u64;
        if !work.deletes && touched < expected && !self.layout.may_be_there() {
            return Err(self.layout.withheld(touched, expected).into());
        }
        Ok(())
    }

    /// Finds the row that a failure is of: by running halves of its statement in a transaction that comes to
    /// nothing.
    fn located(
        &mut self,
        works: &[StatementRows<'_>],
        at: usize,
        failure: PostgresFailure,
    ) -> PostgresFailure {
        if !failure.is_of_a_row() {
            return failure;
        }
        let found = self.search(works, at);
        let ended = self.open().and_then(|open| open.session.rollback());
        match (found, ended) {
            (Err(found @ PostgresFailure::Row(..)), Ok(())) => found,
            _ => failure,
        }
    }

    /// An error is what was found; none: it does not come again.
    fn search(&mut self, works: &[StatementRows<'_>], at: usize) -> Result<(), PostgresFailure> {
        self.open()?.session.rollback()?;
        self.open()?.session.begin()?;
        for work in &works[..at] {
            self.run(work)?;
        }
        let StatementRows { deletes, mut items } = works[at];
        while items.len() > 1 {
            let (first, second) = items.split_at(items.len() / 2);
            self.open()?.session.batch("SAVEPOINT half")?;
            items = match self.run(&StatementRows {
                deletes,
                items: first,
            }) {
                Ok(()) => second,
                Err(failure) if failure.is_of_a_row() => {
                    self.open()?.session.batch("ROLLBACK TO SAVEPOINT half")?;
                    first
                }
                Err(failure) => return Err(failure),
            };
        }
        let ran = self.run(&StatementRows { deletes, items });
        match (ran, items.first()) {
            (Err(failure), Some(item)) if failure.is_of_a_row() => Err(PostgresFailure::Row(
                item.number,
                failure.error(self.layout.unwritten()),
            )),
            (ran, _) => ran,
        }
    }

    fn failed(&self, epochs: &[Batch], failure: PostgresFailure) -> WriteError {
        match failure {
            PostgresFailure::Row(number, error) => WriteError::Refused {
                row: place(epochs, number),
                error,
            },
            other => other.error(self.unwritten()).into(),
        }
    }

    fn unwritten(&self) -> String {
        format!(
            "{} of Postgres at {}",
            self.layout.unwritten(),
            self.server.place()
        )
    }
}

/// Which of the rows are written: of several of one key the last, as all of them are committed at once. What
/// goes comes first, so that a row that is new may have what another one gave up.
fn items(epochs: &[Batch], is_keyed: bool) -> Vec<PendingRow<'_>> {
    let mut number = 0;
    let mut all = Vec::new();
    for batch in epochs {
        for row in &batch.rows {
            all.push(PendingRow {
                number,
                epoch: batch.epoch,
                row,
                deletes: is_keyed && row.after().is_none(),
            });
            number += 1;
        }
    }
    if !is_keyed {
        return all;
    }
    let last: BTreeMap<&[u8], PendingRow<'_>> = all.into_iter().map(|item| (item.row.key(), item)).collect();
    let mut last: Vec<PendingRow<'_>> = last.into_values().collect();
    last.sort_by_key(|item| !item.deletes);
    last
}

/// Cuts them into statements.
fn works<'a>(items: &'a [PendingRow<'a>]) -> Vec<StatementRows<'a>> {
    let mut works = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, item) in items.iter().enumerate() {
        let is_other = at > start && items[start].deletes != item.deletes;
        let is_full =
            at - start >= STATEMENT_ROWS || at > start && bytes + item.row.bytes() > STATEMENT_BYTES;
        if is_other || is_full {
            works.push(StatementRows::of(&items[start..at]));
            (start, bytes) = (at, 0);
        }
        bytes += item.row.bytes();
    }
    works.push(StatementRows::of(&items[start..]));
    works.retain(|work| !work.items.is_empty());
    works
}

/// Adds a row to the columns' arrays; an error names the column.
fn encode<'a>(
    item: &PendingRow<'_>,
    shard: &Shard,
    columns: &'a [Column],
    arrays: &mut [ColumnArray],
) -> Result<(), (&'a str, String)> {
    let (schema, row) = (&shard.schema, item.row);
    let key = row.key_fields(schema).unwrap_or_default();
    let (after, mut before) = (row.fields(schema), None);
    for (column, array) in columns.iter().zip(arrays) {
        let datum: Option<&Datum> = match column.origin {
            ColumnOrigin::Epoch | ColumnOrigin::Diff => {
                let number = if column.origin == ColumnOrigin::Diff {
                    row.diff()
                } else {
                    item.epoch.0 as i64
                };
                array.push_i64(number);
                continue;
            }
            ColumnOrigin::After(at) if at < key.len() => key.get(at),
            ColumnOrigin::After(at) => after.as_ref().and_then(|after| after.get(at)),
            ColumnOrigin::Before(at) => {
                let before = before.get_or_insert_with(|| row.fields_before(schema));
                before.as_ref().and_then(|before| before.get(at))
            }
        };
        match datum {
            None => array.push_null(),
            Some(datum) => {
                array
                    .push(datum, &column.ty)
                    .map_err(|why| (&*column.name, why))?;
            }
        }
    }
    Ok(())
}

/// Which batch, and which row of it, has this number.
fn place(epochs: &[Batch], mut number: usize) -> (usize, usize) {
    for (at, batch) in epochs.iter().enumerate() {
        if number < batch.rows.len() {
            return (at, number);
        }
        number -= batch.rows.len();
    }
    (0, 0)
}

impl TransactionalWriter for PostgresWriter {
    fn resume(&mut self) -> Result<Option<Progress>> {
        let claimed = self.connect();
        claimed
            .map(|claim| claim.progress)
            .map_err(|failure| failure.error(self.unwritten()))
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        self.write(epochs, progress).map_err(|failure| {
            // A transaction that is open comes to nothing with its connection; whether one that was to be
            // committed was, the next claim finds out: it waits for the row that both of them lock.
            self.open = None;
            self.failed(epochs, failure)
        })
    }

    fn close(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            open.session.close();
        }
        Ok(())
    }
}
