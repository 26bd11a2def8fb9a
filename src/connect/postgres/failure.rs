//! What goes wrong with Postgres, and who can do something about it.
//!
//! | SQLSTATE | is | then |
//! |---|---|---|
//! | none (network), 08, 25, 26, 40, 53, 57, 58, XX, 55P03 | of the moment | tried again by a new connection |
//! | 22, 23, 44, 54, P0, 21 | of a row | the row is found and refused, by key |
//! | anything else: 28 login, 3D database, 42 names and rights, 0A | of the set-up | the service halts |
//!
//! Classes are those of [Appendix A](https://www.postgresql.org/docs/current/errcodes-appendix.html) of its
//! manual.

use std::error::Error as _;

use tokio_postgres::error::{DbError, SqlState};

use crate::error::Error;

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum PostgresFailure {
    /// Postgres, or the way to it.
    Postgres(tokio_postgres::Error),
    /// A call did not end in time.
    Late(String),
    /// Another writer of the shard has taken over.
    Fenced,
    /// Nobody can write to this server.
    Standby,
    /// This row can't be written: its number in what was to be committed.
    Row(usize, Error),
    /// What is to be told as it is.
    Said(Error),
}

/// Who can do something about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureClass {
    /// Time.
    Moment,
    /// Whoever made the row.
    Row,
    /// Whoever set things up.
    SetUp,
}

impl From<tokio_postgres::Error> for PostgresFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<Error> for PostgresFailure {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

/// Who can do something about an error of this code.
pub(super) fn class(code: &str) -> FailureClass {
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "55P03") => FailureClass::Moment,
        // A damaged table or index does not mend itself.
        (_, "XX001" | "XX002") => FailureClass::SetUp,
        ("08" | "25" | "26" | "40" | "53" | "57" | "58" | "XX", _) => FailureClass::Moment,
        ("21" | "22" | "23" | "44" | "54" | "P0", _) => FailureClass::Row,
        _ => FailureClass::SetUp,
    }
}

impl PostgresFailure {
    /// Whether a row is at fault, which one nobody has said yet.
    pub(super) fn is_of_a_row(&self) -> bool {
        self.class() == Some(FailureClass::Row)
    }

    /// Whether another connection may do better at once: this one is closed, or the server has said that it
    /// ends it.
    pub(super) fn is_of_the_connection(&self) -> bool {
        self.class() == Some(FailureClass::Moment)
    }

    /// Of what Postgres says, or that nothing is heard of it.
    fn class(&self) -> Option<FailureClass> {
        let Self::Postgres(error) = self else {
            return None;
        };
        Some(
            error
                .code()
                .map_or(FailureClass::Moment, |code| class(code.code())),
        )
    }

    /// For a person, under the line that says what could not be done.
    pub(super) fn error(self, what: String) -> Error {
        match self {
            Self::Said(error) | Self::Row(_, error) => error,
            Self::Late(call) => Error::external(what).detail(format!("timed out: {call}")),
            Self::Fenced => Error::external(what).detail("fenced: another writer has taken over"),
            Self::Standby => Error::external(what)
                .detail("the server is a standby or in recovery: it accepts no writes")
                .hint(PRIMARY),
            Self::Postgres(error) => match error.as_db_error() {
                Some(told) => of_server(what, told),
                None => of_network(what, &error),
            },
        }
    }
}

fn of_network(what: String, error: &tokio_postgres::Error) -> Error {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        told = format!("{told}: {inner}");
        cause = inner.source();
    }
    let out = Error::external(what).detail(&told);
    let hint = if told.contains("server does not support TLS") {
        "enable `ssl` on the server, or set `postgres.tls` to disable on a trusted network"
    } else if told.contains("certificate verify failed") {
        "set `postgres.ca_file` to the authority that signed the certificate; the certificate must be for \
         the host in `postgres.url`"
    } else if told.contains("password missing") {
        "set `postgres.password_file`, or THALWEG_POSTGRES_PASSWORD"
    } else if told.contains("Connection refused") || told.contains("lookup address") {
        "is the server running, and is `postgres.url` its address?"
    } else {
        return out;
    };
    out.hint(hint)
}

fn of_server(what: String, told: &DbError) -> Error {
    let code = told.code().code();
    let error = match class(code) {
        FailureClass::Moment => Error::external(what),
        FailureClass::Row | FailureClass::SetUp => Error::definition(what),
    };
    let mut error = error.detail(format!("{} (SQLSTATE {code})", told.message()));
    if let Some(detail) = told.detail() {
        error = error.detail(detail);
    }
    for (what, name) in [("column", told.column()), ("constraint", told.constraint())] {
        if let Some(name) = name {
            error = error.detail(format!("{what} `{name}`"));
        }
    }
    match hint(told.code()).or(told.hint()) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

const PRIMARY: &str = "name the primary in `postgres.url`, or all hosts, separated by commas";

fn hint(code: &SqlState) -> Option<&'static str> {
    Some(match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user in `postgres.url`, `postgres.password`, and the server's pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "create the database, or name another one in `postgres.url`",
        SqlState::INVALID_SCHEMA_NAME => "create the schema: schemas are not created automatically",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "the user needs SELECT, INSERT, UPDATE and DELETE on the table and on `thalweg_progress` next \
             to it, and CREATE on the schema if the tables do not exist yet"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => PRIMARY,
        SqlState::LOCK_NOT_AVAILABLE => "another session holds a lock on the table or on a row: see pg_locks",
        SqlState::TOO_MANY_CONNECTIONS => "each shard of a sink uses a connection: raise `max_connections`",
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
            "the table was altered while the sink was running: undo the change, or restart to have the \
             table checked again"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let of_the_moment = [
            "40001", "40P01", "57P01", "57P03", "57014", "08006", "53300", "25006", "55P03", "26000",
        ];
        let of_rows = [
            "23505", "23502", "23514", "22001", "22003", "22P05", "54000", "P0001",
        ];
        let of_the_set_up = [
            "28P01", "3D000", "42501", "42P01", "42703", "0A000", "3F000", "55000",
        ];
        assert!(
            of_the_moment
                .iter()
                .all(|code| class(code) == FailureClass::Moment)
        );
        assert!(of_rows.iter().all(|code| class(code) == FailureClass::Row));
        assert!(
            of_the_set_up
                .iter()
                .all(|code| class(code) == FailureClass::SetUp)
        );
    }
}
