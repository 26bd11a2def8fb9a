//! What `check` looks at: whether the server answers and may be written to, and whether the table fits.

use tokio_postgres::types::Type as PgType;

use super::failure::PostgresFailure;
use super::progress::TABLE;
use super::session::{ServerAddress, Session};
use super::table::{FoundTable, Layout, TableName};
use crate::error::Error;
use crate::finding::Finding;

/// Looks at what rows will go to.
pub(super) fn examine(server: &ServerAddress, layout: &Layout) -> Vec<Finding> {
    let session = match server.connect() {
        Ok(session) => session,
        Err(failure) => return vec![wrong(failure, server)],
    };
    let found = look(&session, server, layout).unwrap_or_else(|failure| vec![wrong(failure, server)]);
    session.close();
    found
}

fn look(session: &Session, server: &ServerAddress, layout: &Layout) -> Result<Vec<Finding>, PostgresFailure> {
    let table = &layout.table;
    let mut findings = Vec::new();
    let standby = session.query("SELECT pg_is_in_recovery()", &[])?;
    if standby.first().is_some_and(|row| row.get(0)) {
        let what = format!(
            "Postgres at {} is a standby and accepts no writes",
            server.place()
        );
        findings.push(Finding::error(what).hint("name the primary in `postgres.url`"));
    }
    match FoundTable::look(session, table)? {
        Some(found) => {
            findings.push(match found.casts(layout) {
                Ok(_) => Finding::ok(format!("table `{table}` exists and matches the rows")),
                Err(error) => of(&error),
            });
            findings.extend(grants(session, table)?);
        }
        None => findings.extend(makes(session, table)?),
    }
    let own = table.beside(TABLE);
    match FoundTable::look(session, &own)? {
        Some(_) => findings.extend(grants(session, &own)?),
        None => findings.extend(makes(session, &own)?),
    }
    Ok(findings)
}

/// Whether the user may do with a table what a sink does.
fn grants(session: &Session, table: &TableName) -> Result<Option<Finding>, PostgresFailure> {
    let quoted = table.quoted();
    let sql = "SELECT string_agg(p, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p \
        WHERE NOT has_table_privilege($1, p)";
    let rows = session.query(sql, &[(&quoted, PgType::TEXT)])?;
    let missing: Option<String> = rows.first().and_then(|row| row.get(0));
    Ok(missing.map(|missing| {
        let what = format!("the user lacks {missing} on table `{table}`");
        Finding::error(what).hint(format!(
            "GRANT {missing} ON {quoted} TO the user in `postgres.url`"
        ))
    }))
}

/// Whether a table that is not there can be made.
fn makes(session: &Session, table: &TableName) -> Result<Vec<Finding>, PostgresFailure> {
    let sql = "SELECT has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = $1";
    let rows = session.query(sql, &[(&table.schema, PgType::TEXT)])?;
    Ok(vec![match rows.first().map(|row| row.get::<_, bool>(0)) {
        Some(true) => Finding::ok(format!(
            "table `{table}` does not exist: the first start creates it"
        )),
        Some(false) => Finding::error(format!(
            "table `{table}` does not exist, and the user may not create it"
        ))
        .hint(format!(
            "GRANT CREATE ON SCHEMA {} to the user, or create the table",
            table.schema
        )),
        None => Finding::error(format!("schema `{}` does not exist", table.schema)).hint(
            "schemas are not \
                created automatically",
        ),
    }])
}

fn wrong(failure: PostgresFailure, server: &ServerAddress) -> Finding {
    of(&failure.error(format!("cannot query Postgres at {}", server.place())))
}

fn of(error: &Error) -> Finding {
    Finding::error(error.to_string())
}
