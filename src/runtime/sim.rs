//! Deterministic simulation: seeded runs of the whole service on one thread, with crashes and restarts,
//! checked against its guarantees.
//!
//! ```text
//!                    ┌──────────── one step at a time, in an order that the seed draws ────────────┐
//!   topics that grow ─▶ workers (timely, 1 to 4) ─▶ sequencer ─▶ writer ─▶ ledger  ┐              │
//!                       └▶ steps and views ─▶ savers ─▶ writer ─▶ checkpoints      ┴▶ SimDisk     │
//!                       └▶ sink tasks ─▶ stores of each contract, progress ─▶ writer              │
//!                    └─────────────────────────────────────────────────────────────────────────────┘
//!   faults     power lost in the midst of any call to the disk, kill, no space, failing flushes, a flipped bit, another
//!              ledger, a stopped process that goes on, records that retention removed, clocks set back, other workers,
//!              stores that fail before or behind the effect of a call
//!   held true  what is closed is durable · rows are those of a naive evaluation · epochs rise, nothing is skipped ·
//!              the newest checkpoint can be restored · no error but those of the faults · an end is reached ·
//!              stores hold what the views show: each row once in a transactional one
//! ```
//!
//! The control dataflow, sequencer, ledger writer, ledger, checkpoint writer and operators are the real code;
//! only threads are left out, and clocks, disk and topics are simulated. A failing seed is reported with the
//! command to repeat it and a log of its run.

mod oracle;
mod process;
mod stores;
mod topic;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::bridge::panic_text;
use crate::clock::sim::draw;

/// Number of seeds in the regular tests; `make sim` runs more.
const SEEDS: u64 = 200;

/// Random draws from a seed.
#[derive(Clone)]
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        draw(&mut self.0)
    }

    /// Less than `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// `n` times in `of`.
    fn chance(&mut self, n: usize, of: usize) -> bool {
        self.below(of) < n
    }

    /// At least `least`, usually not much more, and below `end`.
    fn small(&mut self, least: usize, end: usize) -> usize {
        let width = 1 + self.below(end - least);
        least + self.below(width)
    }
}

/// The result of a check.
type Checked<T = ()> = Result<T, String>;

/// `SEEDS=17` runs one seed, with its log; `SEEDS=0..5000` a range.
fn wanted() -> (std::ops::Range<u64>, bool) {
    let Ok(text) = std::env::var("SEEDS") else {
        return (0..SEEDS, false);
    };
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>();
    let parsed = match text.split_once("..") {
        Some((from, to)) => number(from).and_then(|from| Ok((from..number(to)?, false))),
        None => number(&text).map(|one| (one..one + 1, true)),
    };
    parsed.unwrap_or_else(|_| panic!("SEEDS={text}: one (17), or a range (0..5000)"))
}

/// Runs a seed. Returns the outcome and the log.
fn run(seed: u64) -> (Checked<world::Summary>, Vec<String>) {
    let story = std::sync::Arc::new(Mutex::new(Vec::new()));
    let told = story.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, told).run()));
    let outcome = outcome.unwrap_or_else(|panic| Err(format!("a panic: {}", panic_text(&*panic))));
    let story = std::mem::take(&mut *story.lock());
    (outcome, story)
}

/// Lines of the log that are printed for a failed seed.
const TOLD: usize = 120;

#[test]
fn seeds() {
    let (seeds, told) = wanted();
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let sums = Mutex::new(world::Summary::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || !failed.lock().is_empty() {
                return;
            }
            let (outcome, story) = run(seed);
            if told {
                println!("{}", story.join("\n"));
            }
            match outcome {
                Ok(summary) => sums.lock().add(&summary),
                Err(violation) => {
                    let from = story.len().saturating_sub(TOLD);
                    let story = if told {
                        String::new()
                    } else {
                        story[from..].join("\n")
                    };
                    failed.lock().push((seed, format!("{story}\n*** {violation}")));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work();
        other.join().expect("panics are caught");
    });
    let mut failed = failed.into_inner();
    failed.sort();
    if let Some((seed, text)) = failed.first() {
        panic!("seed {seed} failed:\n{text}\nto see it again: make sim SEEDS={seed}");
    }
    println!("{} seeds: {}", seeds.end - seeds.start, sums.into_inner());
}

/// A seed must reproduce its run, or no failure could be investigated.
#[test]
fn a_seed_reproduces_its_run() {
    for seed in [3, 1_000_003] {
        let (first, story) = run(seed);
        let (second, again) = run(seed);
        assert_eq!(story, again);
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}
