//! A database, and Debezium on Kafka Connect that captures its changes.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::kafka::Broker;
use super::server::Server;

const SCRIPT: &str = "debezium.sh";
/// For whatever is waited for. Far more than it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Postgres on 127.0.0.1, set up for logical replication.
pub struct Database {
    server: Server,
}

impl Database {
    /// Starts an empty one.
    pub fn start() -> Self {
        let answers = |port| psql(port, "SELECT 1").is_ok();
        let server = Server::start(SCRIPT, &["--database".to_owned()], answers);
        Self { server }
    }

    /// Runs statements and returns what they gave, a line a row.
    pub fn sql(&self, statements: &str) -> String {
        psql(self.server.port(), statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }
}

fn psql(port: u16, statements: &str) -> Result<String, String> {
    let port = port.to_string();
    let arguments = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "postgres",
        "-qAtX",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
    ];
    let mut command = Command::new("psql");
    let output = command
        .args(arguments)
        .arg(statements)
        .output()
        .expect("psql can be run");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A worker of Kafka Connect with one connector.
pub struct Connector {
    server: Server,
    _config: tempfile::TempDir,
}

impl Connector {
    /// Captures `tables` (`public.accounts,public.orders`) into topics `<prefix>.<table>`, with settings of
    /// the connector besides. Returns when the worker answers.
    pub fn start(
        broker: &Broker,
        database: &Database,
        prefix: &str,
        tables: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = database.server.port();
        let mut config = format!(
            "name={prefix}\n\
            connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
            tasks.max=1\n\
            plugin.name=pgoutput\n\
            database.hostname=127.0.0.1\n\
            database.port={port}\n\
            database.user=postgres\n\
            database.password=unused\n\
            database.dbname=postgres\n\
            topic.prefix={prefix}\n\
            slot.name={prefix}\n\
            publication.name={prefix}\n\
            table.include.list={tables}\n\
            topic.creation.default.replication.factor=1\n\
            topic.creation.default.partitions=1\n\
            key.converter=org.apache.kafka.connect.json.JsonConverter\n\
            key.converter.schemas.enable=false\n\
            value.converter=org.apache.kafka.connect.json.JsonConverter\n\
            value.converter.schemas.enable=false\n\
            value.converter.replace.null.with.default=false\n"
        );
        for (name, value) in more {
            config += &format!("{name}={value}\n");
        }
        let path: PathBuf = folder.path().join("connector.properties");
        std::fs::write(&path, config).expect("the folder can be written to");
        let arguments = [
            "--kafka",
            &broker.bootstrap(),
            // So seldom that a crash makes something come again.
            "--set",
            "offset.flush.interval.ms=8000",
            path.to_str().expect("paths are text"),
        ];
        let server = Server::start(SCRIPT, &arguments.map(str::to_owned), answers);
        Self {
            server,
            _config: folder,
        }
    }

    /// Waits until the worker has noted how far it is.
    pub fn flushed(&self) {
        let offsets = self.server.folder().join("offsets");
        let noted = || std::fs::metadata(&offsets).and_then(|file| file.modified()).ok();
        let (before, deadline) = (noted(), Instant::now() + PATIENCE);
        while noted() == before {
            assert!(
                Instant::now() < deadline,
                "offsets are not noted within {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the worker, and starts it again where it last noted how far it was.
    pub fn crash(&self) {
        self.server.end(libc::SIGKILL);
        self.server.start_again(answers);
    }
}

fn answers(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}
