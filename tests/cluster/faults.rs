//! Processes that are killed, and such that hang, while every process is asked all the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::member::{ACCOUNTS, Cluster, Member, PATIENCE, Transfer, client, get, of_answer};
use crate::support::kafka::Broker;

const PARTITIONS: i32 = 3;

/// How many faults: a few by default, `CYCLES=200` for more.
fn cycles() -> u64 {
    let asked = std::env::var("CYCLES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(6)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What was written, and up to where.
#[derive(Default)]
struct Written {
    balances: BTreeMap<i64, (u64, i64)>,
    ends: BTreeMap<i32, i64>,
}

/// Writes transfers until it is told to stop.
fn write(broker: &Broker, topic: &str, stop: &AtomicBool) -> Written {
    let (mut random, mut written) = (Random(88_172_645_463_325_252), Written::default());
    while !stop.load(Ordering::Acquire) {
        for partition in 0..PARTITIONS {
            let transfers: Vec<Transfer> = (0..20)
                .map(|_| Transfer {
                    payer: random.below(ACCOUNTS as u64) as i64,
                    payee: random.below(ACCOUNTS as u64) as i64,
                    cents: 1 + random.below(1_000) as i64,
                })
                .collect();
            for transfer in &transfers {
                let entries = [
                    (transfer.payer, -transfer.cents),
                    (transfer.payee, transfer.cents),
                ];
                for (account, cents) in entries {
                    let balance = written.balances.entry(account).or_default();
                    *balance = (balance.0 + 1, balance.1 + cents);
                }
            }
            let records = transfers.iter().map(|transfer| {
                let json = serde_json::to_vec(transfer).expect("numbers are JSON");
                (b"", json, 1_790_000_000_000)
            });
            let offsets = broker.produce(topic, partition, &records.collect::<Vec<_>>());
            written.ends.insert(partition, offsets.end - 1);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    written
}

/// Asks one process until it is told to stop: whatever it answers has to add up.
fn ask(url: &str, stop: &AtomicBool, answers: &AtomicU64) {
    let (client, mut newest) = (client(), 0);
    while !stop.load(Ordering::Acquire) {
        let path = "/v1/views/balances/rows?limit=1000&positions=false";
        match get(&client, &format!("{url}{path}")) {
            Some((200, answer)) => {
                let epoch = answer["epoch"].as_u64().expect("an epoch");
                assert!(epoch >= newest, "{url} went back from {newest} to {epoch}");
                newest = epoch;
                let sum: i64 = of_answer(&answer).values().map(|(_, cents)| cents).sum();
                assert_eq!(sum, 0, "{url} as of {epoch}: {answer}");
                answers.fetch_add(1, Ordering::Relaxed);
            }
            // It starts, or one of the others does.
            None | Some((503, _)) => {}
            Some((status, answer)) => panic!("{url}: {status} {answer}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cluster_survives_the_loss_of_any_process() {
    let (broker, topic) = (Broker::shared(), "cluster-transfers");
    broker.create_topic(topic, PARTITIONS);
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::new(broker, topic, dir.path(), 3).with(&[
        "--set",
        "checkpoint.interval=200ms",
        "--set",
        "cluster.peer_timeout=1s",
        "--set",
        "kafka.group=cluster-survives",
    ]);
    let members = [0, 1, 2].map(|process| Member::start(&cluster, process));
    let (stop_writing, stop_asking) = (AtomicBool::new(false), AtomicBool::new(false));
    let answers = [0, 1, 2].map(|_| AtomicU64::new(0));
    std::thread::scope(|scope| {
        let written = scope.spawn(|| write(broker, topic, &stop_writing));
        let askers = std::iter::zip(&members, &answers).map(|(member, answers)| {
            let (url, stop) = (member.url(), &stop_asking);
            scope.spawn(move || ask(&url, stop, answers))
        });
        let askers: Vec<_> = askers.collect();
        let faults = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            members.iter().for_each(Member::ready);
            look_at(&members);
            cause_faults(&members);
        }));
        stop_writing.store(true, Ordering::Release);
        let written = written.join().expect("it writes");
        let ended = faults.and_then(|()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&members, &written)))
        });
        stop_asking.store(true, Ordering::Release);
        for asker in askers {
            asker.join().expect("every answer adds up");
        }
        if let Err(panic) = ended {
            let logs = members.iter().map(|member| tail(&member.log()));
            eprintln!("{}", logs.collect::<Vec<_>>().join("\n\n"));
            std::panic::resume_unwind(panic);
        }
    });
    for answers in &answers {
        assert!(answers.load(Ordering::Relaxed) > 10, "{answers:?}");
    }
    for member in members {
        member.stop();
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Every process sees all of them.
fn look_at(members: &[Member; 3]) {
    for (process, member) in members.iter().enumerate() {
        // A process may be ready, as the topic was empty, before its first epoch is closed.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = member.ask("/v1/cluster").expect("it answers");
            assert_eq!(
                (status, answer["process"].as_u64()),
                (200, Some(process as u64)),
                "{answer}"
            );
            let all = answer["processes"].as_array().expect("a list");
            assert_eq!(all.len(), 3, "{answer}");
            assert!(all.iter().all(|one| one["connected"] == true), "{answer}");
            if all.iter().all(|one| one["epoch"].is_u64()) {
                break;
            }
            assert!(Instant::now() < deadline, "{answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (_, sources) = member.ask("/v1/sources").expect("it answers");
        let partitions = sources["sources"][0]["partitions"].as_array().expect("a list");
        assert_eq!(partitions.len(), PARTITIONS as usize, "{sources}");
        assert!(partitions.iter().all(|one| one["end"].is_i64()), "{sources}");
    }
}

fn cause_faults(members: &[Member; 3]) {
    let mut random = Random(6_364_136_223_846_793_005);
    for cycle in 0..cycles() {
        let victim = &members[(cycle % 3) as usize];
        // Some time for state to grow, and for a checkpoint to be under way.
        std::thread::sleep(Duration::from_millis(300 + random.below(500)));
        let before = members.each_ref().map(Member::child);
        let begun = Instant::now();
        let hangs = cycle % 2 == 1;
        let child = victim.signal(if hangs { libc::SIGSTOP } else { libc::SIGKILL });
        // Every other process notices, and is started again.
        let deadline = Instant::now() + PATIENCE;
        let is_new = |(member, before): (&Member, &Option<u32>)| {
            let now = member.child();
            std::ptr::eq(member, victim) || (now.is_some() && now != *before)
        };
        while !std::iter::zip(members, &before).all(is_new) {
            assert!(Instant::now() < deadline, "cycle {cycle}: nobody noticed");
            std::thread::sleep(Duration::from_millis(5));
        }
        let noticed = begun.elapsed();
        if hangs {
            // SAFETY: a plain system call, to a process that this test has started.
            unsafe { libc::kill(child.cast_signed(), libc::SIGCONT) };
        }
        let begun = Instant::now();
        while victim.child().is_none_or(|now| now == child) {
            assert!(Instant::now() < deadline, "cycle {cycle}: the victim goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        members.iter().for_each(Member::ready);
        println!(
            "cycle {cycle}: {} noticed and left after {noticed:?}, ready {:?} later",
            if hangs { "hang" } else { "kill" },
            begun.elapsed()
        );
    }
}

/// In the end, every process has what was written.
fn compare(members: &[Member; 3], written: &Written) {
    let after: Vec<String> = written
        .ends
        .iter()
        .map(|(partition, end)| format!("&after=transfers:{partition}:{end}"))
        .collect();
    let path = format!("/v1/views/balances/rows?limit=1000&wait=30s{}", after.concat());
    for member in members {
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            match member.ask(&path) {
                Some((200, answer)) => break answer,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
        };
        assert_eq!(of_answer(&answer), written.balances, "{}", member.url());
        for account in 0..ACCOUNTS {
            let (status, answer) = member
                .ask(&format!("/v1/views/balances/row?account={account}"))
                .expect("it answers");
            match written.balances.get(&account) {
                Some((_, cents)) => assert_eq!(answer["row"]["cents"].as_i64(), Some(*cents), "{answer}"),
                None => assert_eq!(status, 404, "{answer}"),
            }
        }
    }
}
