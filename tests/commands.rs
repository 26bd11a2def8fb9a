//! The command line, as people use it: the real binary, started, stopped by signals, started again.
//!
//! On a real Kafka, as an embedded broker is gone with its process, and what was bound to its topics with it.

use std::collections::BTreeSet;

use ::thalweg::ledger;
use libc::{SIGINT, SIGTERM};
use serde_json::Value;

use crate::support::kafka::Broker;
use crate::support::registry::Registry;
use crate::support::thalweg::{self, Thalweg};

const TOPIC: &str = "payments.transactions.v1";
const ALL: &str = "/v1/views/merchant_spend/rows?limit=10000";

fn signals() -> [(i32, &'static str); 2] {
    [(SIGTERM, "SIGTERM"), (SIGINT, "Ctrl-C")]
}

#[test]
fn a_demo_ends_well_by_either_signal_and_leaves_nothing_behind() {
    for (signal, name) in signals() {
        let folder = tempfile::tempdir().unwrap();
        let demo = Thalweg::start_with(&["demo", "--rate", "2000"], |command| {
            command.env("TMPDIR", folder.path());
        });
        demo.ready();
        demo.get(&format!("{ALL}&after=payments:0:10,payments:3:10&wait=30s"));
        let left = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(
            left(),
            1,
            "the demo keeps its ledger elsewhere: what is looked at here?"
        );
        let (status, log) = demo.end(signal);
        assert!(status.success(), "{status}\n{log}");
        assert!(log.contains("stopping") && log.contains(name), "{log}");
        assert_eq!(left(), 0, "the ledger of a demo is left behind");
    }
}

#[test]
fn a_service_that_was_stopped_goes_on_where_it_was() {
    let (kafka, registry) = (Broker::shared().bootstrap(), Registry::shared().url());
    let folder = tempfile::tempdir().unwrap();
    let dir = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (dir("first"), dir("second"));
    let on = |what: &[&str], dir: &str| {
        let outside = ["--kafka", &kafka, "--registry", &registry, "--data-dir", dir];
        [what, &outside]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let start = |what: &[&str], dir: &str| {
        let args = on(what, dir);
        let service = Thalweg::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        service.ready();
        service
    };
    let bound = |dir: &str| {
        ledger::verify(&std::path::Path::new(dir).join("merchant_spend"))
            .unwrap()
            .last
    };

    // `demo` makes the topics and fills them, in the middle of which it is stopped.
    let demo = start(&["demo", "--rate", "2000"], &first);
    let mut seen = demo.get(&format!(
        "{ALL}&after=payments:0:300,payments:1:300,payments:2:300,merchants:0:99&wait=30s"
    ));
    assert!(rows(&seen).len() > 50, "{seen}");
    let mut service = demo;
    for (signal, name) in signals() {
        let (status, log) = service.end(signal);
        assert!(status.success(), "{status}\n{log}");
        assert!(log.contains("stopping") && log.contains(name), "{log}");
        assert!(
            bound(&first).map(|epoch| epoch.0) >= seen["epoch"].as_u64(),
            "an answer was not durable"
        );

        // Started again, by `run` now, it gives the very same answer as of that epoch.
        service = start(&["run", "merchant_spend"], &first);
        let again = service.get(&format!("{ALL}&as_of={}", seen["epoch"]));
        assert_eq!(again, seen);
        // What the stop finished, after the last answer, is there as well.
        seen = service.get(ALL);
        assert!(seen["epoch"].as_u64() >= bound(&first).map(|epoch| epoch.0));
    }

    // Every record is counted once, or is a dead letter.
    let ends = ends();
    let after: Vec<_> = (0..)
        .zip(&ends)
        .map(|(partition, end)| format!("payments:{partition}:{}", end - 1))
        .collect();
    let seen = service.get(&format!("{ALL}&after={}&wait=30s", after.join(",")));
    let counted: u64 = rows(&seen).iter().map(|row| row["n"].as_u64().unwrap()).sum();
    let dead = service.get("/v1/views/payments.dead_letters/rows?limit=10000");
    assert!(!rows(&dead).is_empty(), "the demo writes what can't be read");
    assert_eq!(
        counted + rows(&dead).len() as u64,
        ends.iter().sum::<i64>() as u64
    );
    let sources = service_sources(&service);
    let of = |name: &str| sources.iter().find(|source| source["name"] == name).unwrap();
    let (payments, merchants) = (of("payments"), of("merchants"));
    assert_eq!(
        (&payments["topic"], &payments["formats"]["value"]),
        (&TOPIC.into(), &"avro".into())
    );
    assert_eq!(payments["rules"]["late"], "dead_letter");
    assert!(merchants["rules"].is_null() && !payments["watermark"].is_null());
    let partitions = payments["partitions"].as_array().unwrap();
    let ends_seen: Vec<_> = partitions
        .iter()
        .map(|p| p["position"].as_i64().unwrap())
        .collect();
    assert_eq!(ends_seen, ends);
    assert!(
        partitions
            .iter()
            .all(|p| p["lag_seconds"] == 0 && p["paused"] == false),
        "{partitions:?}"
    );

    let (status, log) = service.end(SIGTERM);
    assert!(status.success(), "{status}\n{log}");

    // A ledger of its own cuts other epochs, and comes to the same rows.
    let other = start(&["run", "merchant_spend"], &second);
    let others = other.get(&format!("{ALL}&after={}&wait=30s", after.join(",")));
    assert_eq!(
        (rows(&others), &others["positions"]),
        (rows(&seen), &seen["positions"])
    );
    let (status, log) = other.end(SIGINT);
    assert!(status.success(), "{status}\n{log}");

    // The ledger of a service that runs is not moved away.
    let reset = |yes: &[&str]| {
        let dir = std::path::Path::new(&first).join("merchant_spend");
        let args = [&["ledger", "reset", dir.to_str().unwrap()][..], yes].concat();
        let output = thalweg::command(&args).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&told).into_owned(),
        )
    };
    let running = start(&["run", "merchant_spend"], &first);
    let (done, told) = reset(&["--yes"]);
    assert!(!done && told.contains("another process holds"), "{told}");
    let (status, log) = running.end(SIGTERM);
    assert!(status.success(), "{status}\n{log}");
    let before = bound(&first);
    let (done, told) = reset(&[]);
    assert!(
        !done && told.contains("would move") && told.contains("--yes"),
        "{told}"
    );
    assert_eq!(bound(&first), before);
    let (done, told) = reset(&["--yes"]);
    assert!(done && told.contains("was moved to"), "{told}");
    // From the start again, it comes to the same rows.
    let fresh = start(&["run", "merchant_spend"], &first);
    let anew = fresh.get(&format!("{ALL}&after={}&wait=30s", after.join(",")));
    assert_eq!(
        (rows(&anew), &anew["positions"]),
        (rows(&seen), &seen["positions"])
    );
    let (status, log) = fresh.end(SIGTERM);
    assert!(status.success(), "{status}\n{log}");
    let folders = std::fs::read_dir(&first).unwrap().count();
    assert_eq!(folders, 2, "the old ledger is kept beside the new one");

    // With --until-end nobody has to stop it.
    let args = on(&["run", "merchant_spend", "--until-end"], &dir("third"));
    let ending = Thalweg::spawn(&args.iter().map(String::as_str).collect::<Vec<_>>(), |_| {});
    let (status, log) = ending.ended();
    assert!(status.success(), "{status}\n{log}");
    let records = ledger::verify(&folder.path().join("third/merchant_spend"))
        .unwrap()
        .records;
    assert_eq!(
        records as i64,
        ends.iter().sum::<i64>() + 100,
        "payments, and a hundred merchants"
    );
}

#[test]
fn a_missing_registry_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = [
        "run",
        "--kafka",
        "127.0.0.1:1",
        "--http",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let output = thalweg::command(&args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for topic in ["payments.merchants.v1", TOPIC] {
        assert!(told.contains(&format!("topic `{topic}`")), "{told}");
    }
    assert!(told.contains("registry") && told.contains("--registry"), "{told}");
    assert!(!data.exists(), "a ledger was begun");
    // To look at a dataflow takes no settings at all.
    assert!(thalweg::command(&["plan"]).output().unwrap().status.success());
}

fn service_sources(service: &Thalweg) -> Vec<Value> {
    service.get("/v1/sources")["sources"].as_array().unwrap().clone()
}

fn rows(answer: &Value) -> &Vec<Value> {
    answer["rows"].as_array().expect("rows are a list")
}

/// Where the partitions of the payments end.
fn ends() -> Vec<i64> {
    let records = Broker::shared().records(TOPIC);
    let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    let end = |partition| {
        let of = records.iter().filter(|record| record.partition == partition);
        of.map(|record| record.offset + 1).max().expect("it has a record")
    };
    partitions.into_iter().map(end).collect()
}
