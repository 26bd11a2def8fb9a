//! A connection whose calls end: each has a deadline of its own.
//!
//! Statements are sent unnamed, with the types of their parameters, in one round trip. None is prepared on
//! the server, so none has to be prepared again after a reconnect, and PgBouncer may give each transaction
//! another server connection. Nothing is set for the session, either, but for the transaction alone.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};

use super::failure::PostgresFailure;
use super::settings::{PostgresSettings, Tls, is_url};
use crate::error::{Error, Result};

/// So much longer than the server's own limit a call may take.
const GRACE: Duration = Duration::from_secs(5);

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// An open connection.
pub(super) struct Session {
    runtime: Runtime,
    client: Option<Client>,
    connection: JoinHandle<()>,
    deadline: Duration,
    begin: String,
}

/// How to connect; checked once, used again and again.
pub(super) struct ServerAddress {
    config: Config,
    tls: MakeTlsConnector,
    settings: PostgresSettings,
}

impl ServerAddress {
    /// The server that settings name.
    ///
    /// # Errors
    /// They name none, or a file that can't be read.
    pub(super) fn new(settings: &PostgresSettings, application: &str) -> Result<Arc<Self>> {
        if settings.url.is_empty() {
            return Err(Error::definition("no Postgres server is configured")
                .hint("set `postgres.url`, as in postgresql://thalweg@db:5432/reports"));
        }
        if !is_url(&settings.url) {
            // Its text may hold a password, so it is not shown.
            return Err(Error::definition("the setting `postgres.url` is malformed").hint(
                "write postgresql://USER@HOST:PORT/DATABASE, and the password as `postgres.password`",
            ));
        }
        let mut config: Config = settings.url.parse().map_err(|error: tokio_postgres::Error| {
            // Its own text leaves the reason out.
            let why = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            Error::definition("the setting `postgres.url` cannot be parsed").detail(why)
        })?;
        if let Some(password) = &settings.password {
            config.password(password.reveal());
        }
        config.application_name(application.chars().take(63).collect::<String>());
        config.connect_timeout(settings.connect_timeout);
        config.keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(settings.statement_timeout + GRACE);
        config.ssl_mode(match settings.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Require | Tls::VerifyFull => SslMode::Require,
        });
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Arc::new(Self {
            config,
            tls: tls(settings)?,
            settings: settings.clone(),
        }))
    }

    /// `HOST:PORT/DATABASE`, for errors.
    pub(super) fn place(&self) -> &str {
        let url = &self.settings.url;
        url.split_once('@').map_or(url, |(_, place)| place)
    }

    /// A new connection.
    pub(super) fn connect(&self) -> Result<Session, PostgresFailure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal("cannot make a runtime").detail(error))?;
        let hosts = self.config.get_hosts().len().max(1) as u32;
        let at_most = self.settings.connect_timeout.saturating_mul(hosts) + GRACE;
        let connected = runtime
            .block_on(async { tokio::time::timeout(at_most, self.config.connect(self.tls.clone())).await });
        let (client, connection) = match connected {
            Ok(connected) => connected?,
            Err(_) => return Err(PostgresFailure::Late("connect".into())),
        };
        let connection = runtime.spawn(async move {
            // What went wrong is told by the call that it concerns.
            if let Err(error) = connection.await {
                tracing::debug!(target: "thalweg::postgres", %error, "connection closed");
            }
        });
        Ok(Session {
            runtime,
            client: Some(client),
            connection,
            deadline: self.settings.statement_timeout + GRACE,
            begin: begin(&self.settings),
        })
    }
}

/// Begins a transaction that sees what was committed, commits to disk, and ends by itself if the client
/// stands still: a process that was stopped must not hold its successor up for ever.
fn begin(settings: &PostgresSettings) -> String {
    let (statement, lock) = (
        settings.statement_timeout.as_millis(),
        settings.lock_timeout.as_millis(),
    );
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
        SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; \
        SET LOCAL idle_in_transaction_session_timeout = {statement}; \
        SELECT set_config('synchronous_commit', 'on', true) \
        WHERE current_setting('synchronous_commit') = 'off'"
    )
}

fn tls(settings: &PostgresSettings) -> Result<MakeTlsConnector> {
    let wrong = |error: openssl::error::ErrorStack| Error::definition("cannot set up TLS").detail(error);
    let mut builder = SslConnector::builder(SslMethod::tls()).map_err(wrong)?;
    if let Some(file) = &settings.ca_file {
        builder.set_ca_file(file).map_err(|error| {
            Error::definition(format!("cannot read certificates from {}", file.display()))
                .detail(error)
                .hint("`postgres.ca_file` is a file of certificates in PEM")
        })?;
    }
    if settings.tls == Tls::Require {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let mut connector = MakeTlsConnector::new(builder.build());
    let verifies = settings.tls == Tls::VerifyFull;
    connector.set_callback(move |config, _host| {
        config.set_verify_hostname(verifies);
        Ok(())
    });
    Ok(connector)
}

impl Session {
    /// Begins a transaction.
    pub(super) fn begin(&self) -> Result<(), PostgresFailure> {
        self.batch(&self.begin).map_err(|failure| match failure {
            // Where it recovers, writing is a feature that it has not.
            PostgresFailure::Postgres(error) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                PostgresFailure::Standby
            }
            other => other,
        })
    }

    /// Commits what is not in doubt: a transaction that had failed would be rolled back without an error, so
    /// this is for one all of whose statements went well.
    pub(super) fn commit(&self) -> Result<(), PostgresFailure> {
        self.batch("COMMIT")
    }

    /// Gives a transaction up. A connection that can't is of no use any more.
    pub(super) fn rollback(&self) -> Result<(), PostgresFailure> {
        self.batch("ROLLBACK")
    }

    /// Runs statements without parameters.
    pub(super) fn batch(&self, sql: &str) -> Result<(), PostgresFailure> {
        self.call(sql, async |client| client.batch_execute(sql).await)
    }

    /// Runs a statement. Returns how many rows it touched.
    pub(super) fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, PostgresFailure> {
        self.call(sql, async |client| client.execute_typed(sql, parameters).await)
    }

    /// Runs a query.
    pub(super) fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, PostgresFailure> {
        self.call(sql, async |client| client.query_typed(sql, parameters).await)
    }

    fn call<T>(
        &self,
        sql: &str,
        run: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, PostgresFailure> {
        let Some(client) = &self.client else {
            return Err(PostgresFailure::Late("the connection is closed".into()));
        };
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(self.deadline, run(client)).await });
        match ended {
            Ok(returned) => Ok(returned?),
            Err(_) => Err(PostgresFailure::Late(sql.chars().take(60).collect())),
        }
    }

    /// Tells the server that nothing more comes.
    pub(super) fn close(mut self) {
        drop(self.client.take());
        let connection = &mut self.connection;
        // Whether the server hears of it or not, the connection is gone.
        let _ended = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(1), connection).await });
    }
}
