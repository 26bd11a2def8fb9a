//! Who is not let in, what they are told, and that nobody else is held up by them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::member::{Cluster, Member, PATIENCE};
use crate::support::kafka::Broker;

fn cluster(topic: &str, processes: usize, dir: &std::path::Path) -> Cluster {
    let broker = Broker::shared();
    broker.create_topic(topic, 1);
    let group = format!("kafka.group={topic}");
    Cluster::new(broker, topic, dir, processes).with(&["--set", &group])
}

/// A process that is refused ends with the reason; what the other one logs.
fn refused(topic: &str, own: &[&str], theirs: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = cluster(topic, 2, dir.path());
    let first = cluster.spawn(0, &[&["--http", "127.0.0.1:0"], own].concat());
    let second = cluster.spawn(1, &[&["--http", "127.0.0.1:0"], theirs].concat());
    let (status, log) = second.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    let (_, waiting) = first.end(libc::SIGTERM);
    (log, waiting)
}

#[test]
fn a_process_that_does_not_belong_is_told_why() {
    let secret = |text: &'static str| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        std::fs::write(&file, text).expect("it can be written");
        (dir, format!("cluster.secret_file={}", file.display()))
    };
    let (_kept, right) = secret("open sesame");
    let (_kept_too, wrong) = secret("open barley");
    let (told, waiting) = refused("cluster-secret", &["--set", &right], &["--set", &wrong]);
    assert!(told.contains("secret is another one"), "{told}");
    assert!(
        !told.contains("open") && !waiting.contains("sesame"),
        "{told}{waiting}"
    );

    let (told, waiting) = refused("cluster-workers", &["--workers", "1"], &["--workers", "2"]);
    assert!(told.contains("it has 2 workers; this process has 1"), "{told}");
    assert!(waiting.contains("process 1 may not join"), "{waiting}");
}

#[test]
fn connections_of_others_hold_up_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = cluster("cluster-others", 2, dir.path());
    let first = Member::start(&cluster, 0);
    let connect = || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(&cluster.hosts[0]) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", first.log()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Some say nothing at all.
    let silent: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    // Some speak another language, and are hung up on.
    let mut other = connect();
    other
        .write_all(b"GET / HTTP/1.1\r\nhost: thalweg\r\n\r\n")
        .expect("it takes bytes");
    other.set_read_timeout(Some(PATIENCE)).expect("a limit");
    assert!(matches!(other.read(&mut [0; 64]), Ok(0) | Err(_)));
    let second = Member::start(&cluster, 1);
    first.ready();
    second.ready();
    drop(silent);
    // Once all are there, nobody is let in any more.
    assert!(TcpStream::connect(&cluster.hosts[0]).is_err());
    second.stop();
    first.stop();
}

#[test]
fn a_cluster_that_stays_incomplete_says_who_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = cluster("cluster-missing", 3, dir.path());
    let alone = cluster.spawn(
        0,
        &["--http", "127.0.0.1:0", "--set", "cluster.formation_timeout=1s"],
    );
    let (status, log) = alone.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    for (process, address) in cluster.hosts.iter().enumerate().skip(1) {
        assert!(log.contains(&format!("{process} ({address})")), "{log}");
    }
    // An address that is taken.
    let taken = TcpListener::bind(&cluster.hosts[0]).expect("it was free");
    let (status, log) = cluster.spawn(0, &["--http", "127.0.0.1:0"]).ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the address of this process"), "{log}");
    drop(taken);
}
