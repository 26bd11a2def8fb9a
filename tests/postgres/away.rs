//! A server that is killed, is a standby, or closes connections: the service goes on once it is back.

use std::time::Duration;

use super::node::{Node, eventually};
use super::oracle::Input;
use crate::support::postgres::Postgres;

#[test]
fn a_server_that_is_killed_under_load_has_each_row_once() {
    let (postgres, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let mut input = Input::new(dir.path(), 7);
    let node = Node::of(&postgres, &input, &dir.path().join("ledger")).workers(2);
    let service = node.start().unwrap();
    for round in 0..4 {
        let before = service.sinks()().iter().map(|sink| sink.rows).sum::<u64>();
        eventually("rows before the crash", &service, || {
            input.grow(20);
            sum_is_zero(&postgres);
            let rows = service.sinks()().iter().map(|sink| sink.rows).sum::<u64>();
            rows > before + 200
        });
        // Wherever the writers are by then.
        input.grow(200);
        std::thread::sleep(Duration::from_millis(7 * round));
        postgres.kill9();
        input.grow(50);
        eventually("trouble", &service, || {
            input.grow(1);
            service.sink_trouble().is_some()
        });
        let trouble = service.sink_trouble().unwrap();
        assert!(trouble.contains("Postgres at 127.0.0.1"), "{trouble}");
        postgres.restart();
        eventually("it is well again", &service, || service.sink_trouble().is_none());
    }
    service.stop();
    service.join().unwrap();
    node.until_end().start().unwrap().join().unwrap();
    assert!(input.check(&postgres) > 1_000);
}

/// Whoever reads the table of one shard sees whole epochs: what went from one account came to another.
fn sum_is_zero(postgres: &Postgres) {
    let sum = "SELECT CASE WHEN to_regclass('balances') IS NULL THEN 0 END";
    if postgres.value(sum) == "0" {
        return;
    }
    assert_eq!(
        postgres.value("SELECT coalesce(sum(value), 0) FROM balances"),
        "0"
    );
}

#[test]
fn a_standby_is_waited_for() {
    let (postgres, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let mut input = Input::new(dir.path(), 11);
    input.grow(30);
    let node = Node::of(&postgres, &input, &dir.path().join("ledger"));
    node.clone().until_end().start().unwrap().join().unwrap();
    postgres.stop();
    postgres.become_standby();
    postgres.restart();
    input.grow(30);
    let service = node.clone().start().unwrap();
    eventually("trouble", &service, || service.sink_trouble().is_some());
    let trouble = service.sink_trouble().unwrap();
    assert!(trouble.contains("the server is a standby"), "{trouble}");
    postgres.run("SELECT pg_promote()");
    eventually("it goes on", &service, || service.sink_trouble().is_none());
    service.stop();
    service.join().unwrap();
    node.until_end().start().unwrap().join().unwrap();
    input.check(&postgres);
}

/// A connection that the server, or something on the way, closes while there is nothing to write is opened
/// again without a word.
#[test]
fn a_connection_that_was_closed_in_between_is_no_trouble() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let mut input = Input::new(dir.path(), 13);
    input.grow(30);
    let node = Node::of(&postgres, &input, &dir.path().join("ledger"));
    let service = node.clone().start().unwrap();
    let settled = |service: &thalweg::runtime::Service| {
        service.sinks()()
            .iter()
            .all(|sink| sink.rows > 0 && sink.waiting_rows == 0)
    };
    eventually("the first rows", &service, || settled(&service));
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let before = service.sinks()().iter().map(|sink| sink.rows).min().unwrap();
    input.grow(60);
    eventually("more rows", &service, || {
        service.sinks()()
            .iter()
            .all(|sink| sink.rows > before && sink.waiting_rows == 0)
    });
    assert!(service.sinks()().iter().all(|sink| sink.retries == 0));
    service.stop();
    service.join().unwrap();
    node.until_end().start().unwrap().join().unwrap();
    input.check(&postgres);
}
