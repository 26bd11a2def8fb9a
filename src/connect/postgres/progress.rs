//! How far each shard has come, in a table beside the rows' own: one row a shard, which is locked and moved
//! on in the transaction that writes rows.
//!
//! ```text
//!   thalweg_progress   application  sink      shard │ destination    ledger  generation  claim  epoch  rows
//!                      tests.spend  spend_pg  0     │ public.spend   …       7           12     …      48201
//! ```
//!
//! A writer that resumes takes the next number of `claim`; whoever holds an older one finds no row to move
//! on, and commits nothing more. The row's lock is what makes it sure: a transaction of the writer before has
//! either ended by then, or waits and then finds the new claim.

use tokio_postgres::Row;
use tokio_postgres::types::Type as PgType;

use super::failure::PostgresFailure;
use super::session::{Parameter, Session};
use super::table::{FoundTable, Layout, TableName};
use crate::error::{Error, Result};
use crate::fault;
use crate::sink::{Progress, Shard};
use crate::time::Epoch;

/// The table's name, in the schema of the rows' table.
pub(super) const TABLE: &str = "thalweg_progress";
/// Whoever makes tables here holds this lock: two that make the same one at once would get in each other's
/// way. The bytes of "thalweg".
const MAKING: i64 = 0x0074_6861_6c77_6567;

/// One shard's row of the table.
pub(super) struct ProgressRow {
    table: TableName,
    application: String,
    destination: TableName,
    sink: String,
    number: i32,
    ledger: i64,
    generation: i64,
}

/// What stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredProgress {
    destination: String,
    ledger: i64,
    generation: i64,
    claim: i64,
    epoch: i64,
    rows: i64,
}

/// What a shard may do with what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ProgressDecision {
    /// Another service is newer: nothing is claimed.
    Newer,
    /// It is of an older ledger, and brought rows under that.
    Older,
    /// Go on behind it.
    Own,
}

/// A claim that holds until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardClaim {
    /// Its number; none where a newer service has the shard.
    pub(super) number: Option<i64>,
    /// What was committed by then.
    pub(super) progress: Option<Progress>,
    /// Rows of that.
    pub(super) rows: u64,
}

impl ProgressRow {
    /// # Errors
    /// The shard's numbers are larger than any that there are.
    pub(super) fn new(application: &str, destination: &TableName, shard: &Shard) -> Result<Self> {
        let too_large = |error| Error::internal("a shard's number is too large").detail(error);
        Ok(Self {
            table: destination.beside(TABLE),
            application: application.into(),
            destination: destination.clone(),
            sink: shard.sink.to_string(),
            number: i32::try_from(shard.number).map_err(too_large)?,
            ledger: bigint(shard.ledger)?,
            generation: bigint(shard.generation)?,
        })
    }

    /// Makes both tables where they are missing, and looks whether rows fit theirs. Returns the types of its
    /// columns.
    pub(super) fn prepare(&self, session: &Session, layout: &Layout) -> Result<Vec<String>, PostgresFailure> {
        let has_own = FoundTable::look(session, &self.table)?.is_some();
        if let (true, Some(found)) = (has_own, FoundTable::look(session, &self.destination)?) {
            return Ok(found.casts(layout)?);
        }
        session.begin()?;
        session.query("SELECT pg_advisory_xact_lock($1)", &[(&MAKING, PgType::INT8)])?;
        if FoundTable::look(session, &self.table)?.is_none() {
            session.batch(&self.create())?;
            tracing::info!(table = %self.table, "created table");
        }
        if FoundTable::look(session, &self.destination)?.is_none() {
            self.was_never_there(session)?;
            session.batch(&layout.create())?;
            tracing::info!(table = %self.destination, "created table");
        }
        session.commit()?;
        match FoundTable::look(session, &self.destination)? {
            Some(found) => Ok(found.casts(layout)?),
            None => Err(Error::external(format!("table `{}` was dropped again", self.destination)).into()),
        }
    }

    fn create(&self) -> String {
        format!(
            "CREATE TABLE {} (application text NOT NULL, sink text NOT NULL, shard integer NOT NULL, \
            destination text NOT NULL, ledger bigint NOT NULL, generation bigint NOT NULL, \
            claim bigint NOT NULL, epoch bigint NOT NULL, rows bigint NOT NULL, \
            updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (application, sink, shard))",
            self.table.quoted()
        )
    }

    /// A table that rows were delivered to, and that is gone, took them with it.
    fn was_never_there(&self, session: &Session) -> Result<(), PostgresFailure> {
        let table = self.table.quoted();
        let sql = format!(
            "SELECT coalesce(sum(rows), 0)::bigint FROM {table} \
            WHERE application = $1 AND sink = $2 AND ledger = $3 AND destination = $4"
        );
        let destination = self.destination.to_string();
        let of = [
            (&self.application as _, PgType::TEXT),
            (&self.sink as _, PgType::TEXT),
            (&self.ledger as _, PgType::INT8),
            (&destination as _, PgType::TEXT),
        ];
        let rows: i64 = one(session.query(&sql, &of)?)?.try_get(0)?;
        if rows == 0 {
            return Ok(());
        }
        let sink = &self.sink;
        let error = Error::integrity(format!("table `{destination}` of sink `{sink}` no longer exists"))
            .detail(format!(
                "according to `{}`, {rows} rows were written to it",
                self.table
            ))
            .hint("restore it; or give the sink another name and an empty table, to refill it");
        Err(error.into())
    }

    /// Takes the shard over, unless a newer service has it.
    pub(super) fn claim(&self, session: &Session) -> Result<ShardClaim, PostgresFailure> {
        session.begin()?;
        let stored = self.lock(session)?;
        let found = self.judge(&stored);
        if found == ProgressDecision::Newer {
            session.rollback()?;
            return stored.claim(None);
        }
        if stored.rows > 0 && stored.destination != self.destination.to_string() {
            return Err(self.is_elsewhere(&stored).into());
        }
        if found == ProgressDecision::Older {
            self.start_over(session)?;
        }
        fault::point("postgres_sink.locked");
        let fresh = found == ProgressDecision::Older || stored.ledger != self.ledger;
        let claimed = StoredProgress {
            destination: self.destination.to_string(),
            ledger: self.ledger,
            generation: self.generation,
            claim: stored.claim + 1,
            epoch: if fresh { 0 } else { stored.epoch },
            rows: if fresh { 0 } else { stored.rows },
        };
        self.write(session, &claimed)?;
        session.commit()?;
        fault::point("postgres_sink.claimed");
        claimed.claim(Some(claimed.claim))
    }

    /// Reads the row, made if it was not there, and holds it until the transaction's end.
    fn lock(&self, session: &Session) -> Result<StoredProgress, PostgresFailure> {
        let table = self.table.quoted();
        let insert = format!(
            "INSERT INTO {table} (application, sink, shard, destination, ledger, generation, claim, \
             epoch, rows) \
            VALUES ($1, $2, $3, $4, 0, 0, 0, 0, 0) ON CONFLICT (application, sink, shard) DO NOTHING"
        );
        let destination = self.destination.to_string();
        let mut of = self.place();
        of.push((&destination, PgType::TEXT));
        session.execute(&insert, &of)?;
        // All shards, in one order: two that begin anew would otherwise wait for each other.
        let all =
            format!("SELECT 1 FROM {table} WHERE application = $1 AND sink = $2 ORDER BY shard FOR UPDATE");
        session.query(&all, &of[..2])?;
        let select = format!(
            "SELECT destination, ledger, generation, claim, epoch, rows FROM {table} \
            WHERE application = $1 AND sink = $2 AND shard = $3 FOR UPDATE"
        );
        let row = one(session.query(&select, &of[..3])?)?;
        Ok(StoredProgress {
            destination: row.try_get(0)?,
            ledger: row.try_get(1)?,
            generation: row.try_get(2)?,
            claim: row.try_get(3)?,
            epoch: row.try_get(4)?,
            rows: row.try_get(5)?,
        })
    }

    fn judge(&self, stored: &StoredProgress) -> ProgressDecision {
        let is_same = stored.ledger == self.ledger;
        if stored.ledger > self.ledger || is_same && stored.generation > self.generation {
            ProgressDecision::Newer
        } else if !is_same && stored.rows > 0 {
            ProgressDecision::Older
        } else {
            ProgressDecision::Own
        }
    }

    /// What was delivered under an older ledger would stay among the rows of this one: events twice, rows
    /// that are long gone. The table has to be empty, or the word be that it need not be.
    fn start_over(&self, session: &Session) -> Result<(), PostgresFailure> {
        // The other shards' rows go as well, and their table will not be empty for long. It waits for what an
        // older service has under way: only then does it show whether the table is empty.
        let sql = format!(
            "UPDATE {} SET ledger = $3, epoch = 0, rows = 0, generation = 0 \
            WHERE application = $1 AND sink = $2 AND ledger < $3",
            self.table.quoted()
        );
        let of = [
            (&self.application as _, PgType::TEXT),
            (&self.sink as _, PgType::TEXT),
            (&self.ledger as _, PgType::INT8),
        ];
        session.execute(&sql, &of)?;
        let table = self.destination.quoted();
        let filled = one(session.query(&format!("SELECT EXISTS (SELECT 1 FROM {table})"), &[])?)?;
        if filled.try_get(0)? {
            let (sink, own) = (&self.sink, self.table.quoted());
            let application = &self.application;
            let error = Error::integrity(format!(
                "table `{}` holds rows of an older ledger",
                self.destination
            ))
            .detail(format!(
                "sink `{sink}` starts under a new one and would add its rows to them"
            ))
            .hint(format!(
                "empty it (TRUNCATE {table}); or, to add the rows to the existing ones, delete the sink's \
                 progress (DELETE FROM {own} WHERE application = '{application}' AND sink = '{sink}')"
            ));
            return Err(error.into());
        }

        Ok(())
    }

    fn is_elsewhere(&self, stored: &StoredProgress) -> Error {
        let (sink, was) = (&self.sink, &stored.destination);
        Error::integrity(format!("the rows of sink `{sink}` are in another table"))
            .detail(format!(
                "they were written to `{was}`; the dataflow now names `{}`",
                self.destination
            ))
            .hint("name that table; or give the sink another name and an empty table, to refill it")
    }

    fn write(&self, session: &Session, claimed: &StoredProgress) -> Result<(), PostgresFailure> {
        let sql = format!(
            "UPDATE {} SET destination = $4, ledger = $5, generation = $6, claim = $7, epoch = $8, rows = \
             $9, \
            updated_at = now() WHERE application = $1 AND sink = $2 AND shard = $3",
            self.table.quoted()
        );
        let mut of = self.place();
        of.push((&claimed.destination, PgType::TEXT));
        for number in [
            &claimed.ledger,
            &claimed.generation,
            &claimed.claim,
            &claimed.epoch,
            &claimed.rows,
        ] {
            of.push((number, PgType::INT8));
        }
        session.execute(&sql, &of)?;
        Ok(())
    }

    /// Moves on, as the first statement of a transaction: who has lost the shard writes nothing.
    ///
    /// # Errors
    /// [`PostgresFailure::Fenced`]: another writer has it, or has written more.
    pub(super) fn advance(
        &self,
        session: &Session,
        claim: i64,
        before: u64,
        progress: &Progress,
    ) -> Result<(), PostgresFailure> {
        let sql = format!(
            "UPDATE {} SET epoch = $7, rows = $8, updated_at = now() WHERE application = $1 AND sink = $2 \
            AND shard = $3 AND ledger = $4 AND claim = $5 AND rows = $6",
            self.table.quoted()
        );
        let (before, epoch, rows) = (bigint(before)?, bigint(progress.epoch.0)?, bigint(progress.rows)?);
        let mut of = self.place();
        of.extend([&self.ledger, &claim, &before, &epoch, &rows].map(|number| (number as _, PgType::INT8)));
        match session.execute(&sql, &of)? {
            1 => Ok(()),
            _ => Err(PostgresFailure::Fenced),
        }
    }

    /// Which row of the table is the shard's.
    fn place(&self) -> Vec<Parameter<'_>> {
        vec![
            (&self.application, PgType::TEXT),
            (&self.sink, PgType::TEXT),
            (&self.number, PgType::INT4),
        ]
    }
}

impl StoredProgress {
    fn claim(&self, number: Option<i64>) -> Result<ShardClaim, PostgresFailure> {
        let progress = Progress {
            ledger: self.ledger as u64,
            generation: self.generation as u64,
            epoch: Epoch(self.epoch as u64),
            rows: self.rows as u64,
        };
        Ok(ShardClaim {
            number,
            rows: progress.rows,
            // One that is newer has to be told of even if it has committed nothing yet.
            progress: (self.epoch > 0 || number.is_none()).then_some(progress),
        })
    }
}

fn bigint(of: u64) -> Result<i64> {
    i64::try_from(of).map_err(|error| Error::internal(format!("{of} is no bigint")).detail(error))
}

fn one(rows: Vec<Row>) -> Result<Row, PostgresFailure> {
    let row = rows.into_iter().next();
    row.ok_or_else(|| Error::external("Postgres answered without a row").into())
}
