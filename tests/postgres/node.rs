//! The engine as a process of its own, to be killed, or in this process.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thalweg::checkpoint::store::CheckpointStore;
use thalweg::connect::postgres::{Postgres as Sink, PostgresSettings, Tls};
use thalweg::disk::HostDisk;
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::{self, RunSettings, Service};
use thalweg::secret::Secret;
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::oracle::Input;
use crate::support::postgres::Postgres;

const ASKED: &str = "THALWEG_TEST_POSTGRES_NODE";
pub const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    owner: String,
    limit: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transfer {
    id: u64,
    from: u32,
    to: u32,
    cents: i64,
    at_us: i64,
}

/// What a node is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub url: String,
    pub password: String,
    pub ca_file: PathBuf,
    pub input: PathBuf,
    /// Where ledger and checkpoints are.
    pub data_dir: PathBuf,
    pub workers: usize,
    pub until_end: bool,
    pub statement_timeout: Duration,
    pub fault: Option<String>,
}

impl Node {
    pub fn of(postgres: &Postgres, input: &Input, data_dir: &Path) -> Self {
        let settings = postgres.settings();
        Self {
            url: settings.url,
            password: settings.password.unwrap().reveal().to_owned(),
            ca_file: settings.ca_file.unwrap(),
            input: input.dir.clone(),
            data_dir: data_dir.to_owned(),
            workers: 1,
            until_end: false,
            statement_timeout: settings.statement_timeout,
            fault: None,
        }
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn until_end(mut self) -> Self {
        self.until_end = true;
        self
    }

    pub fn fault(mut self, fault: &str) -> Self {
        self.fault = Some(fault.to_owned());
        self
    }

    /// Starts the dataflow in this process.
    pub fn start(&self) -> thalweg::Result<Service> {
        let settings = PostgresSettings {
            password: Some(Secret::new(&*self.password)),
            tls: Tls::VerifyFull,
            ca_file: Some(self.ca_file.clone()),
            statement_timeout: self.statement_timeout,
            lock_timeout: self.statement_timeout,
            ..PostgresSettings::at(&*self.url)
        };
        start(
            &flow(&self.input),
            settings,
            &self.data_dir,
            self.workers,
            self.until_end,
        )
    }

    /// Starts it as a process.
    pub fn spawn(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command
            .args(["--exact", "postgres::node", "--nocapture", "--test-threads=1"])
            .env(ASKED, serde_json::to_string(self).expect("settings are plain"))
            .env("THALWEG_FAULT", self.fault.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: only prctl is called between fork and exec.
        unsafe {
            // Gone with the test that started it, however that ends.
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Process(command.spawn().expect("the test binary can be run"))
    }
}

/// A node that runs.
pub struct Process(Child);

impl Process {
    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child was not waited for.
        unsafe { libc::kill(self.0.id().cast_signed(), signal) };
    }

    pub fn kill9(mut self) {
        self.signal(libc::SIGKILL);
        let _reaped = self.0.wait();
    }

    /// Waits for its end. Returns whether it was killed, and what it said.
    pub fn ended(mut self) -> (bool, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.0.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    self.signal(libc::SIGKILL);
                    break self.0.wait().expect("it was killed");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let lines = BufReader::new(self.0.stderr.take().expect("piped")).lines();
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        let late = if Instant::now() > deadline {
            "\nit had to be killed"
        } else {
            ""
        };
        (status.signal() == Some(libc::SIGKILL), said.join("\n") + late)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let _reaped = self.0.wait();
    }
}

/// The body of the child process.
pub fn run_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let node: Node = serde_json::from_str(&asked).expect("the parent says what to run");
    let ended = node.start().and_then(Service::join);
    if let Err(error) = ended {
        eprintln!("failed: {error}");
        std::process::exit(7);
    }
}

/// Starts a dataflow in this process.
pub fn start(
    flow: &thalweg::Flow,
    settings: PostgresSettings,
    data_dir: &Path,
    workers: usize,
    until_end: bool,
) -> thalweg::Result<Service> {
    std::fs::create_dir_all(data_dir).unwrap();
    let store = CheckpointStore::new(Arc::new(HostDisk), &data_dir.join("checkpoints"));
    let settings = RunSettings {
        workers,
        until_end,
        store: runtime::LedgerLocation::Directory(data_dir.to_owned()),
        env: environment(settings),
        checkpoints: Some(checkpoints::CheckpointSettings::new(
            store,
            CheckpointSchedule::Every(Duration::from_millis(50)),
        )),
        ..RunSettings::default()
    };
    Service::start(flow, settings)
}

pub fn environment(settings: PostgresSettings) -> Environment {
    Environment {
        connectors: Extensions::of(settings),
        group: "tests".into(),
        ..Environment::default()
    }
}

/// Waits until something holds of a service that goes on.
pub fn eventually(what: &str, service: &Service, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            !service.halt().is_halted(),
            "{what}: {:?}",
            service.halt().error()
        );
        let trouble = || service.sink_trouble();
        assert!(Instant::now() < deadline, "{what}: {:?}", trouble());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Why a service halts, as it has to.
pub fn halted(service: Service) -> String {
    let deadline = Instant::now() + PATIENCE;
    while !service.halt().is_halted() {
        assert!(
            Instant::now() < deadline,
            "it goes on: {:?}",
            service.sink_trouble()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    service.join().err().expect("it halted").to_string()
}

fn flow(input: &Path) -> thalweg::Flow {
    let input = input.to_owned();
    dataflow("bank", move |flow: Dataflow| {
        let files = |of: &str| Files::lines(input.join(format!("{of}-*.jsonl")));
        let accounts = files("accounts")
            .json::<(u32, Option<Account>)>()
            .poll(Duration::from_millis(5))
            .keyed(|(id, row)| (id, row));
        let accounts = flow.table("accounts", accounts).key_named("id");
        accounts.upsert_to("accounts_pg", Sink::table("accounts"));
        accounts.changes_to("changes_pg", Sink::table("public.changes"));
        let transfers = files("transfers")
            .json::<Transfer>()
            .poll(Duration::from_millis(5))
            .event_time(|transfer| EventTime(transfer.at_us))
            .lateness(Duration::from_secs(30 * 86_400));
        let transfers = flow.source("transfers", transfers);
        transfers.append_to("transfers_pg", Sink::table("transfers").shards(2));
        transfers
            .flat_map(|transfer| [(transfer.from, -transfer.cents), (transfer.to, transfer.cents)])
            .key_by("account", |(account, _)| *account)
            .window("balance", Tumbling::of(Duration::from_secs(86_400)))
            .aggregate(|a| a.sum(|(_, cents)| *cents))
            .upsert_to("balances_pg", Sink::table("balances"));
    })
}
