//! Killed between every two steps of the sink, by name, on one ledger and one database; and stopped, so that
//! another one takes over and the first goes on as if nothing had been.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thalweg::fault::POINTS;

use super::node::{Node, PATIENCE, Process};
use super::oracle::Input;
use crate::support::postgres::Postgres;

/// Adds lines until it is dropped.
struct Growing<'a>(&'a AtomicBool);

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn growing(input: &mut Input, run: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopped = Growing(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                input.grow(3);
                std::thread::sleep(Duration::from_millis(4));
            }
        });
        run();
    });
}

#[test]
fn killed_between_any_two_steps() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let mut input = Input::new(dir.path(), 3);
    input.grow(5);
    let node = Node::of(&postgres, &input, &dir.path().join("ledger"));
    let points = POINTS.iter().map(|point| point.name);
    let points: Vec<&str> = points
        .filter(|name| name.starts_with("postgres_sink.") || name.starts_with("sink."))
        .collect();
    assert_eq!(points.len(), 8);
    growing(&mut input, || {
        let mut turn = 0;
        // The second time the thread stands at its point for a while, and others go on.
        for hold in [0, 30] {
            for point in &points {
                turn += 1;
                let passage = match *point {
                    // Each of five shards passes once in a start.
                    "postgres_sink.locked" | "postgres_sink.claimed" => 1 + turn % 5,
                    _ => 4 + turn % 7,
                };
                let node = node
                    .clone()
                    .workers(1 + turn % 3)
                    .fault(&format!("{point}:{passage}:{hold}"));
                let (killed, said) = node.spawn().ended();
                assert!(
                    killed && said.contains(&format!("killed at {point}")),
                    "{point}: {said}"
                );
            }
        }
    });
    let (_, said) = node.until_end().workers(2).spawn().ended();
    assert!(!said.contains("failed"), "{said}");
    assert!(input.check(&postgres) > 1_000);
}

#[test]
fn whoever_was_stopped_and_goes_on_writes_nothing_more() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let mut input = Input::new(dir.path(), 5);
    input.grow(50);
    let node = Node {
        // So long a transaction that stands still holds its locks.
        statement_timeout: Duration::from_secs(1),
        ..Node::of(&postgres, &input, &dir.path().join("ledger"))
    };
    // A stands in the midst of a transaction; then it goes on, with the server's word that it is over.
    let first = node.clone().spawn();
    let second = Node {
        data_dir: dir.path().join("copy"),
        ..node.clone()
    };
    growing(&mut input, || {
        // Each of the five shards has been claimed once.
        let claimed = "SELECT count(*) = 5 AND bool_and(claim = 1) FROM thalweg_progress";
        let first = wait(&postgres, claimed, first);
        let first = wait(&postgres, "SELECT count(*) > 300 FROM transfers", first);
        first.signal(libc::SIGSTOP);
        // What a successor on another machine has of the ledger.
        copy(&node.data_dir, &second.data_dir);
        let second = second.spawn();
        let before = postgres.value("SELECT max(epoch) FROM thalweg_progress");
        let taken = "SELECT bool_and(claim > 1) FROM thalweg_progress";
        let second = wait(&postgres, taken, second);
        let further = format!("SELECT min(epoch) > {before} FROM thalweg_progress");
        let second = wait(&postgres, &further, second);
        first.signal(libc::SIGCONT);
        let (killed, said) = first.ended();
        assert!(
            !killed && said.contains("another process writes to sink"),
            "{said}"
        );
        second.kill9();
    });
    let (_, said) = second.until_end().workers(2).spawn().ended();
    assert!(!said.contains("failed"), "{said}");
    assert!(input.check(&postgres) > 300);
}

/// Waits until something holds that a process is to bring about; returns the process.
fn wait(postgres: &Postgres, until: &str, process: Process) -> Process {
    let deadline = std::time::Instant::now() + PATIENCE;
    let holds = || {
        postgres
            .try_run(until)
            .is_ok_and(|rows| rows[0][0].as_deref() == Some("t"))
    };
    while !holds() {
        if std::time::Instant::now() > deadline {
            process.signal(libc::SIGKILL);
            panic!("{until}: {}", process.ended().1);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => _ = std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap(),
        }
    }
}
