//! What a service does not start with, or gives up for: each is told with the place and with what to do, the
//! process ends with a code that is not 0, and the ledger is none the worse.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use thalweg::Flow;
use thalweg::ledger::{Claim, Ledger, verify};
use thalweg::prelude::*;

use super::command;
use crate::support::kafka::Broker;

const FILE: &str = "ledger.log";

pub fn flow() -> Flow {
    dataflow("refused", |flow: Dataflow<'_>| {
        flow.source("numbers", Kafka::topic("refused.v1").text::<i64>())
            .changes()
            .group_by("all", |_| 0u8)
            .aggregate("counted", |a| a.sum(|n| *n))
            .view("sum");
    })
}

/// The topic, the same for all tests here; some records are in it from the start.
fn broker() -> &'static Broker {
    static MADE: std::sync::Once = std::sync::Once::new();
    let broker = Broker::shared();
    MADE.call_once(|| {
        broker.create_topic("refused.v1", 1);
        write(broker, 1..50);
    });
    broker
}

fn write(broker: &Broker, numbers: std::ops::Range<i64>) {
    let texts: Vec<String> = numbers.map(|n| n.to_string()).collect();
    let records = texts.iter().map(|text| (None, Some(text.as_bytes()), 1));
    broker.produce_raw("refused.v1", 0, records);
}

/// Counts what is there; its code, and what it said.
fn run(dir: &Path, with: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let dir = dir.to_str().expect("the folder's name is text");
    // Of the ledger alone: a checkpoint would miss what is taken from it here.
    let alone = ["--set", "checkpoint.interval=0s"];
    let arguments = [&["--data-dir", dir, "--until-end"], &alone[..]].concat();
    command::run("refused", broker(), &arguments, with)
}

fn runs(dir: &Path) -> String {
    let (code, said) = run(dir, |_| {});
    assert_eq!(code, Some(0), "{said}");
    said
}

fn fails(dir: &Path, parts: &[&str], with: impl FnOnce(&mut Command)) {
    let (code, said) = run(dir, with);
    assert_eq!(code, Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
}

#[test]
fn a_ledger_of_another_dataflow_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("refused");
    let claim = Claim {
        app: "billing".into(),
        dataflow: "invoices".into(),
        build: "none".into(),
        sources: Vec::new(),
    };
    drop(Ledger::open(&ours, claim).unwrap());
    let before = std::fs::read(ours.join(FILE)).unwrap();
    let place = format!(
        "the ledger `{}` belongs to another dataflow",
        ours.join(FILE).display()
    );
    let theirs = "the ledger's: app `billing`, dataflow `invoices`";
    fails(
        dir.path(),
        &[&place, theirs, "give every dataflow its own ledger"],
        |_| {},
    );
    assert_eq!(std::fs::read(ours.join(FILE)).unwrap(), before);
}

#[test]
fn a_torn_ledger_goes_on_and_a_damaged_one_halts() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("refused");
    let file = folder.join(FILE);
    runs(dir.path());
    let first = verify(&folder).unwrap();
    assert!(first.records >= 49);

    // The end of a write that a crash cut off, never acknowledged: counted once more.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let said = runs(dir.path());
    let place = format!(
        "of `{}`: a write interrupted before it was acknowledged",
        file.display()
    );
    assert!(said.contains(&place), "{said}");
    assert!(verify(&folder).unwrap().records >= first.records);

    // One bit of what was acknowledged.
    let mut flipped = std::fs::read(&file).unwrap();
    let last = flipped.len() - 20;
    flipped[last] ^= 0x10;
    std::fs::write(&file, &flipped).unwrap();
    let place = format!("the ledger `{}` is damaged at byte ", file.display());
    fails(
        dir.path(),
        &[&place, "Restore the file from an intact copy"],
        |_| {},
    );
    assert_eq!(std::fs::read(&file).unwrap(), flipped, "nothing was changed");
}

/// The host's own refusal to let the file grow, as there is no full disk to be had without rights.
#[test]
fn a_ledger_that_may_not_grow_ends_the_process_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("refused");
    let len = || std::fs::metadata(folder.join(FILE)).unwrap().len();
    runs(dir.path());
    let before = len();
    runs(dir.path());
    let claim = len() - before;
    let bound = verify(&folder).unwrap().records;
    write(broker(), 50..60);
    // There is room for the claim, and for a little of the binding.
    let limit = len() + claim + 20;
    let with = |command: &mut Command| {
        // SAFETY: only signal and setrlimit are called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                let limit = libc::rlimit {
                    rlim_cur: limit,
                    rlim_max: limit,
                };
                match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
    };
    let place = format!("cannot write to the ledger `{}`", folder.join(FILE).display());
    fails(dir.path(), &[&place, "File too large", "ulimit -f"], with);
    assert_eq!(len(), limit, "a part of the binding was written");
    let said = runs(dir.path());
    assert!(said.contains("a write interrupted"), "{said}");
    assert!(verify(&folder).unwrap().records >= bound + 10);
}

#[test]
fn a_port_in_use_is_told_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().to_str().unwrap();
    let arguments = ["--data-dir", data, "--http", &address];
    let (code, said) = command::run("refused", broker(), &arguments, |_| {});
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&address) && said.contains("choose another port"),
        "{said}"
    );
}
