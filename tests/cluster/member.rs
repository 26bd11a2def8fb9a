//! A process of a cluster, and the transfers that it computes balances of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thalweg::prelude::{Dataflow, Kafka, dataflow};

use crate::support::free_addresses;
use crate::support::kafka::Broker;
use crate::support::thalweg::Thalweg;

const ASKED: &str = "THALWEG_TEST_MEMBER";

/// For whatever is waited for. Far more than it takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const ACCOUNTS: i64 = 200;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transfer {
    pub payer: i64,
    pub payee: i64,
    pub cents: i64,
}

fn balances(flow: Dataflow, topic: &str) {
    let transfers = Kafka::topic(topic).json::<Transfer>();
    flow.source("transfers", transfers)
        .flat_map(|t| [(t.payer, -t.cents), (t.payee, t.cents)])
        .key_by("account", |(account, _)| *account)
        .aggregate_all("balances", |a| (a.count(), a.sum(|(_, cents)| *cents)))
        .view_with("balances", |view| view.fields(["entries", "cents"]));
}

/// The body of the child process.
pub fn run_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let (topic, asked): (String, Vec<String>) =
        serde_json::from_str(&asked).expect("the parent says what to run");
    let flow = dataflow("balances", move |flow: Dataflow| balances(flow, &topic));
    let code = thalweg::cli::main_from(asked.into_iter().map(Into::into), [flow]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

/// What all processes of a cluster have in common.
pub struct Cluster {
    pub topic: String,
    pub kafka: String,
    pub dir: PathBuf,
    pub hosts: Vec<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Cluster {
    pub fn new(broker: &Broker, topic: &str, dir: &Path, processes: usize) -> Self {
        Self {
            topic: topic.to_owned(),
            kafka: broker.bootstrap(),
            dir: dir.to_owned(),
            hosts: free_addresses(processes),
            arguments: Vec::new(),
        }
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&word| word.to_owned()));
        self
    }

    /// Starts a process, which need not come to serve.
    pub fn spawn(&self, process: usize, more: &[&str]) -> Thalweg {
        let dir = self.dir.join(process.to_string());
        let own = [
            "thalweg",
            "run",
            "--kafka",
            &self.kafka,
            "--data-dir",
            dir.to_str().expect("a plain path"),
            "--hosts",
            &self.hosts.join(","),
            "--process",
            &process.to_string(),
            "--log",
            "json",
        ]
        .map(str::to_owned);
        let more = more.iter().map(|&word| word.to_owned());
        let asked: Vec<String> = own
            .into_iter()
            .chain(self.arguments.clone())
            .chain(more)
            .collect();
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THALWEG_") {
                command.env_remove(name);
            }
        }
        command
            .args(["--exact", "cluster::process", "--nocapture", "--test-threads=1"])
            .env(
                ASKED,
                serde_json::to_string(&(&self.topic, asked)).expect("words are plain"),
            )
            .stdin(Stdio::null());
        Thalweg::spawn_command(command)
    }
}

/// A process below a supervisor, which serves at the same address however often it is started.
pub struct Member {
    supervisor: Thalweg,
    url: String,
    agent: reqwest::Client,
}

impl Member {
    pub fn start(cluster: &Cluster, process: usize) -> Self {
        let [http] = &free_addresses(1)[..] else {
            unreachable!("one was asked for")
        };
        let more = ["--http", http, "--supervise"];
        Self {
            supervisor: cluster.spawn(process, &more),
            url: format!("http://{http}"),
            agent: client(),
        }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The number of the process that serves, if one runs.
    pub fn child(&self) -> Option<u32> {
        // Of whichever of its threads.
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.supervisor.id())).ok()?;
        let children = threads.flatten().map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children"));
            children.unwrap_or_default()
        });
        children
            .collect::<String>()
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// Sends a signal to the process that serves; returns its number.
    pub fn signal(&self, signal: i32) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        let child = loop {
            match self.child() {
                Some(child) => break child,
                None => assert!(Instant::now() < deadline, "nothing runs:\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // SAFETY: a plain system call, to a process that this test has started.
        unsafe { libc::kill(child.cast_signed(), signal) };
        child
    }

    pub fn ask(&self, path: &str) -> Option<(u16, Value)> {
        get(&self.agent, &format!("{}{path}", self.url))
    }

    pub fn is_ready(&self) -> bool {
        self.ask("/health/ready").is_some_and(|(status, _)| status == 200)
    }

    pub fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        self.supervisor.log()
    }

    pub fn stop(self) {
        let (status, log) = self.supervisor.end(libc::SIGTERM);
        assert!(status.success(), "{log}");
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// The status and the answer; `None` where nobody answers.
pub fn get(client: &reqwest::Client, url: &str) -> Option<(u16, Value)> {
    crate::support::block_on(async {
        let asked = client
            .get(url)
            .timeout(Duration::from_secs(35))
            .send()
            .await
            .ok()?;
        let status = asked.status().as_u16();
        let body = asked.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    })
}

/// The balances of an answer, by account.
pub fn of_answer(answer: &Value) -> BTreeMap<i64, (u64, i64)> {
    let rows = answer["rows"].as_array().expect("there are rows");
    let each = rows.iter().map(|row| {
        let number = |field: &str| row[field].as_i64().expect("a number");
        (number("account"), (number("entries") as u64, number("cents")))
    });
    each.collect()
}
