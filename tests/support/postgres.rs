//! A real Postgres, and what a test does to it: databases of its own, a crash, a standstill, a standby.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thalweg::connect::postgres::{PostgresSettings, Tls};
use thalweg::secret::Secret;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::block_on;
use super::server::Server;

const SCRIPT: &str = "postgres.sh";
const PASSWORD: &str = "thalweg-secret";

/// A server on 127.0.0.1. It ends when it is dropped, and with the test process at the latest.
pub struct Postgres {
    server: Arc<Server>,
    database: String,
}

impl Postgres {
    /// Starts a server of this test's own: one that it may kill. It takes a second or two.
    pub fn start() -> Self {
        Self {
            server: Arc::new(Server::start(SCRIPT, &[], serves)),
            database: "thalweg".into(),
        }
    }

    /// A database of this test's own in the server that all tests of this process share.
    pub fn shared() -> Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let shared = SHARED.get_or_init(Self::start);
        let database = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        shared.run(&format!("CREATE DATABASE {database}"));
        Self {
            server: shared.server.clone(),
            database,
        }
    }

    /// Its address, the same after a restart.
    pub fn url(&self) -> String {
        self.url_as("thalweg")
    }

    /// The same for another user.
    pub fn url_as(&self, user: &str) -> String {
        format!(
            "postgresql://{user}@127.0.0.1:{}/{}",
            self.server.port(),
            self.database
        )
    }

    /// Settings that lead to it, by TLS, with its certificate looked at.
    pub fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            password: Some(Secret::new(PASSWORD)),
            tls: Tls::VerifyFull,
            ca_file: Some(self.server.folder().join("ca.pem")),
            ..PostgresSettings::at(self.url())
        }
    }

    /// Kills the server; its other processes end by themselves.
    pub fn kill9(&self) {
        self.server.end(libc::SIGKILL);
    }

    /// Shuts it down in order.
    pub fn stop(&self) {
        self.server.end(libc::SIGINT);
    }

    /// Starts it again on the same port and data.
    pub fn restart(&self) {
        self.server.start_again(serves);
    }

    /// Makes of a server that was stopped a standby, which nobody may write to, until `SELECT pg_promote()`.
    pub fn become_standby(&self) {
        use std::os::unix::fs::MetadataExt;
        let data = self.server.folder().join("data");
        let signal = data.join("standby.signal");
        std::fs::write(&signal, "").expect("the folder is there");
        let owner = std::fs::metadata(&data).expect("the folder is there");
        std::os::unix::fs::chown(&signal, Some(owner.uid()), None)
            .expect("it is made by who made the folder");
    }

    /// Runs statements, which have to succeed. Returns the rows of the last query, each value as text.
    pub fn run(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let ran = self.try_run(sql);
        ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The same where a statement may fail.
    pub fn try_run(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let mut config: tokio_postgres::Config = self.url().parse().expect("a URL");
        config.password(PASSWORD).connect_timeout(Duration::from_secs(10));
        block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let mut rows = Vec::new();
            for message in client.simple_query(sql).await? {
                match message {
                    SimpleQueryMessage::RowDescription(_) => rows.clear(),
                    SimpleQueryMessage::Row(row) => {
                        let values = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                        rows.push(values.collect());
                    }
                    _ => {}
                }
            }
            drop(client);
            let _ended = connection.await;
            Ok(rows)
        })
    }

    /// The rows of a query, each as its values with bars between, sorted.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        let line = |row: Vec<Option<String>>| {
            let values = row
                .into_iter()
                .map(|value| value.unwrap_or_else(|| "null".into()));
            values.collect::<Vec<_>>().join("|")
        };
        let mut lines: Vec<String> = self.run(sql).into_iter().map(line).collect();
        lines.sort();
        lines
    }

    /// The only value of a query.
    pub fn value(&self, sql: &str) -> String {
        self.lines(sql).pop().unwrap_or_default()
    }
}

/// It takes a login: a port that is open comes before that.
fn serves(port: u16) -> bool {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("thalweg")
        .dbname("thalweg");
    config.password(PASSWORD).connect_timeout(Duration::from_secs(2));
    block_on(async { config.connect(NoTls).await.is_ok() })
}
