//! What people do to topics and schemas around a service: the commands `topics` and `schema`, on a real
//! broker and registry.

use std::process::{Command, Output, Stdio};

use crate::support::kafka::Broker;
use crate::support::registry::Registry;
use crate::support::thalweg::binary;

fn thalweg(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the binary can be started")
}

fn told(arguments: &[&str]) -> String {
    let output = thalweg(arguments);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = thalweg(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn topics_are_listed_made_and_measured() {
    let broker = Broker::start();
    let kafka = broker.bootstrap();
    let listed = told(&["topics", "--kafka", &kafka, "--rate", "25MB"]);
    assert!(listed.contains("payments.transactions.v1  missing"), "{listed}");
    assert!(listed.contains("3 are advised"), "{listed}");

    let create = [
        "topics",
        "create",
        "merchant_spend",
        "--kafka",
        &kafka,
        "--partitions",
        "3",
    ];
    let wrong = refused(&[&create[..], &["--topic-config", "retention.mss=1"]].concat());
    assert!(wrong.contains("--topic-config"), "{wrong}");
    let made = told(
        &[
            &create[..],
            &["--replication", "1", "--topic-config", "retention.ms=-1"],
        ]
        .concat(),
    );
    assert!(
        made.contains("payments.transactions.v1  made, 3 partitions"),
        "{made}"
    );
    let again = told(&create);
    assert!(
        again.contains("payments.transactions.v1  was there, 3 partitions"),
        "{again}"
    );

    let listed = told(&["topics", "--kafka", &kafka, "--for", "0"]);
    assert!(
        listed.contains("3 partitions, 0 records, no records arrive"),
        "{listed}"
    );
    // Written for as long as it is looked at.
    let done = std::sync::atomic::AtomicBool::new(false);
    let listed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let payload = "x".repeat(1_000);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let records: Vec<_> = (0..100)
                    .map(|n| (n.to_string(), payload.clone(), 1_000))
                    .collect();
                broker.produce("payments.transactions.v1", 1, &records);
            }
        });
        let output = thalweg(&["topics", "merchant_spend", "--kafka", &kafka, "--for", "2"]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    let line = listed
        .lines()
        .find(|line| line.contains("transactions"))
        .expect("it is listed");
    assert!(line.contains("records/s") && line.contains("MB/s"), "{listed}");
}

#[test]
fn a_schema_is_held_against_the_rules_before_it_is_registered() {
    let registry = Registry::shared();
    let url = registry.url();
    let dir = tempfile::tempdir().unwrap();
    let schema = |fields: &str| {
        let path = dir.path().join("habits.orders.v1.avsc");
        let id = r#"{"name":"id","type":"long"}"#;
        let text = format!(r#"{{"type":"record","name":"Order","fields":[{id}{fields}]}}"#);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let on = ["--registry", &url];
    let first = schema("");
    let ask = |what: &str, file: &str| [&["schema", what, file][..], &on[..]].concat().join("\u{1}");
    let split = |line: String| line.split('\u{1}').map(str::to_owned).collect::<Vec<_>>();
    let run = |what: &str, file: &str| {
        let arguments = split(ask(what, file));
        told(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let fails = |what: &str, file: &str| {
        let arguments = split(ask(what, file));
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = run("check", &first);
    assert!(said.contains("`habits.orders.v1-value` is new"), "{said}");
    let id = registry.register(
        "habits.orders.v1-value",
        &std::fs::read_to_string(&first).unwrap(),
    );
    let said = run("register", &first);
    assert!(said.contains(&format!("schema {id}\n")), "{said}");

    let breaks = schema(r#",{"name":"cents","type":"long"}"#);
    for what in ["check", "register"] {
        let said = fails(what, &breaks);
        assert!(
            said.contains("would reject") && said.contains("field `cents`"),
            "{said}"
        );
        assert!(said.contains("with a default"), "{said}");
    }
    let fits = schema(r#",{"name":"cents","type":"long","default":0}"#);
    let said = run("check", &fits);
    assert!(said.contains("accepts it after version 1"), "{said}");
    let said = run("register", &fits);
    assert!(!said.contains(&format!("schema {id}\n")), "{said}");
}
