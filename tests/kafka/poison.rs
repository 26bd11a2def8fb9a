//! A record that a user's closure panics on: the process ends with a word about where, and with a code that is not 0.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration as Wait, Instant};

use thalweg::Flow;
use thalweg::prelude::*;

use crate::support::kafka::Broker;

const ASKED: &str = "THALWEG_TEST_POISON";

fn flow() -> Flow {
    dataflow("poisoned", |flow: Dataflow<'_>| {
        let numbers = flow.source("numbers", Kafka::topic("poison.v1").text::<i64>());
        let inverse = numbers.map(|n| 1000 / n);
        inverse
            .changes()
            .group_by("n", |n| *n)
            .aggregate("counted", |a| a.count())
            .view("inverses");
    })
}

/// Not a test by itself: the process that the test below starts.
#[test]
fn poisoned() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let arguments = ["thalweg", "run", "--http", "127.0.0.1:0"].map(str::to_owned);
    let arguments = arguments.into_iter().chain(asked.split(' ').map(str::to_owned));
    let code = thalweg::cli::main_from(arguments.map(Into::into), [flow()]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

#[test]
fn the_process_ends_and_says_where() {
    let broker = Broker::shared();
    broker.create_topic("poison.v1", 2);
    let (fine, poison): (Vec<String>, Vec<String>) = (
        (1..50).map(|n| n.to_string()).collect(),
        ["5", "4", "0", "3"].map(str::to_owned).to_vec(),
    );
    for (partition, payloads) in [(0, &fine), (1, &poison)] {
        broker.produce_raw(
            "poison.v1",
            partition,
            payloads.iter().map(|text| (None, Some(text.as_bytes()), 1)),
        );
    }
    for workers in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let asked = format!(
            "--kafka {} --data-dir {} --workers {workers}",
            broker.bootstrap(),
            dir.path().display()
        );
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kafka::poison::poisoned",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ASKED, asked)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + super::PATIENCE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill().unwrap();
                    panic!("it hangs");
                }
                None => std::thread::sleep(Wait::from_millis(20)),
            }
        };
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        let named = "error: a step of the dataflow panicked\n  the map after `numbers`, at topic `poison.v1`, partition 1, offset 2\n  attempt to divide by zero";
        assert!(said.contains(named), "{said}");
        // What was bound is in the ledger, and whole.
        let ledger = thalweg::ledger::verify(&dir.path().join("poisoned")).unwrap();
        assert!(ledger.last.is_some(), "the epoch with the record was bound");
    }
}
