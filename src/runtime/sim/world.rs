//! A seed's world: topics, a disk, processes one after the other and at times beside each other, and what
//! befalls them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::oracle::{self, Naming, Oracle, Sale};
use super::process::Process;
use super::topic::{LOST, Topic};
use super::{Checked, Draws, stores};
use crate::checkpoint::store::CheckpointStore;
use crate::clock;
use crate::dataflow::Flow;
use crate::disk::Disk;
use crate::disk::sim::{FileId, SimDisk};
use crate::error::{Error, Kind};
use crate::ledger::tests::counted;
use crate::ledger::{Ledger, LedgerStore};
use crate::position::{PartitionId, SourceId};
use crate::runtime::checkpoints::{self, CheckpointSchedule};
use crate::runtime::{self, PlanSummary, RunSettings};
use crate::schema::Numbers;
use crate::sequencer::Cuts;
use crate::source::Environment;
use crate::time::Epoch;
use crate::view::serve::{ReadError, RowsQuery};
use crate::view::{AsOf, Snapshot};

/// So many stops may be cut short before it is one too many.
const STOPS_MAX: usize = 30;

const LEDGER: &str = "/ledger";
const CHECKPOINTS: &str = "/checkpoints";
const APP: &str = "sim";
/// When every run begins.
const BEGIN_US: u64 = 1_800_000_000_000_000;
/// So many steps are enough for what is left when nothing is in the way any more.
const END_STEPS: usize = 20_000;

/// What seeds came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    steps: usize,
    epochs: usize,
    looks: usize,
    told: BTreeMap<&'static str, usize>,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Summary) {
        self.steps += other.steps;
        self.epochs += other.epochs;
        self.looks += other.looks;
        for (what, times) in &other.told {
            *self.told.entry(what).or_default() += times;
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.told.entry(what).or_default() += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} epochs, {} looks",
            self.steps, self.epochs, self.looks
        )?;
        self.told
            .iter()
            .try_for_each(|(what, times)| write!(f, ", {what}: {times}"))
    }
}

/// What a process may be refused or halted for.
#[derive(Clone, Debug, PartialEq)]
enum AllowedFailure {
    /// The disk was full, or its flushes failed.
    Disk,
    /// Another process has started since.
    Stopped,
    /// A bit of the ledger is another one: to be turned back.
    Flipped { path: PathBuf, file: FileId, bit: usize },
    /// A bit of a checkpoint is; its files as they were.
    Damaged(Vec<(PathBuf, Vec<u8>)>),
    /// Another ledger lies in the place of this one.
    Swapped(Vec<u8>),
    /// Records went that are needed: where the partitions of `sales` began.
    Lost(Vec<i64>),
}

impl AllowedFailure {
    fn covers(&self, error: &Error) -> bool {
        let text = error.to_string();
        let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let lost = [
            LOST,
            "has lost records",
            "the beginning of the ledger was trimmed",
        ];
        match self {
            AllowedFailure::Disk => error.kind() == Kind::External && says(&["cannot", "has stopped"]),
            AllowedFailure::Stopped => says(&[
                "has taken over",
                "another process",
                "cannot",
                LOST,
                "has lost records",
            ]),
            AllowedFailure::Flipped { .. } => says(&["ledger.log"]),
            AllowedFailure::Damaged(_) => says(&lost) || says(&["catalogue.json"]),
            // A store may have rows of the ledger that was there before: it is asked first where its shard
            // opens.
            AllowedFailure::Swapped(_) => says(&[
                "does not belong to this ledger's history",
                "another ledger's rows go to sink",
            ]),
            AllowedFailure::Lost(_) => says(&lost[..2]),
        }
    }
}

pub(super) struct World {
    draws: Draws,
    story: Arc<Mutex<Vec<String>>>,
    summary: Summary,
    disk: SimDisk,
    sales: Topic<Sale>,
    names: Topic<Naming>,
    oracle: Oracle,
    /// When the rows of each view had changed last, as of each epoch, when they were first looked at.
    versions: BTreeMap<(Epoch, &'static str), Vec<Epoch>>,
    current: Option<Process>,
    stopped: Vec<Process>,
    started: usize,
    excuses: Vec<AllowedFailure>,
    /// A checkpoint that was published, and that nothing has damaged since.
    published: Option<Epoch>,
    /// All processes have one worker, and live longer: then checkpoints follow on each other, and the ledger
    /// is trimmed.
    alone: bool,
    trimmed: Option<Epoch>,
    /// The last start was cut short by a loss of power.
    cut_short: bool,
    /// How many processes ended before everything was delivered.
    unfinished: usize,
    /// Event time.
    at_us: i64,
    settings: RunSettings,
    _clocks: clock::sim::SimulatedClocksGuard,
}

fn planned() -> &'static (Flow, PlanSummary) {
    static PLANNED: OnceLock<(Flow, PlanSummary)> = OnceLock::new();
    PLANNED.get_or_init(|| {
        let flow = oracle::flow();
        let plan = runtime::plan(&flow, &Environment::default()).expect("the plan is drawn");
        (flow, (*plan).clone())
    })
}

impl World {
    pub(super) fn new(seed: u64, story: Arc<Mutex<Vec<String>>>) -> Self {
        let mut draws = Draws(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let clocks = clock::sim::begin(BEGIN_US, draws.next());
        let disk = SimDisk::new();
        stores::begin(Draws(draws.next()));
        let sales = Topic::new(1 + draws.below(3), Draws(draws.next()));
        let names = Topic::new(1 + draws.below(2), Draws(draws.next()));
        let (held, called) = (sales.clone(), names.clone());
        let ms = |ms: usize| Duration::from_millis(ms as u64);
        let ledgers = disk.clone();
        let alone = draws.chance(1, 4);
        let mut settings = RunSettings {
            store: runtime::LedgerLocation::Opened(Arc::new(move |claim| {
                let (ledger, recovered) = Ledger::open_on(&ledgers, Path::new(LEDGER), claim)?;
                Ok((Box::new(ledger) as Box<dyn LedgerStore>, recovered))
            })),
            cuts: Cuts::Clock {
                interval: ms(1 + draws.below(4)),
            },
            epochs_in_flight_max: 1 + draws.below(3),
            history: ms(draws.below(40)),
            checkpoints: (!draws.chance(1, 12)).then(|| {
                let store = CheckpointStore::new(Arc::new(disk.clone()), Path::new(CHECKPOINTS));
                let mut made = checkpoints::CheckpointSettings::new(
                    store,
                    CheckpointSchedule::Every(ms(draws.small(0, 30))),
                );
                made.keep = draws.small(1, 4);
                made
            }),
            trim_least: (!draws.chance(1, 6)).then(|| draws.small(1, 3000) as u64),
            substitutes: Some(Arc::new(move || {
                HashMap::from([
                    ("sales".to_owned(), held.substitute()),
                    ("names".to_owned(), called.substitute()),
                ])
            })),
            ..RunSettings::default()
        };
        settings.env.group = APP.to_owned();
        settings.bounds.batch_max = 1 + draws.below(10);
        if draws.chance(1, 4) {
            settings.bounds.records_max = 1 + draws.below(8);
        }
        Self {
            draws,
            story,
            summary: Summary::default(),
            disk,
            sales,
            names,
            oracle: Oracle::default(),
            versions: BTreeMap::new(),
            current: None,
            stopped: Vec::new(),
            started: 0,
            excuses: Vec::new(),
            published: None,
            alone,
            trimmed: None,
            cut_short: false,
            unfinished: 0,
            at_us: 1_000,
            settings,
            _clocks: clocks,
        }
    }

    pub(super) fn run(mut self) -> Checked<Summary> {
        let lives = 1 + self.draws.below(3);
        for _ in 0..lives {
            if self.current.is_none() {
                self.between();
                self.start()?;
            }
            self.live()?;
        }
        self.end()?;
        if let Some(rows) = self.oracle.rows.get(&self.oracle.last()) {
            let told = stores::hold(rows)?;
            for (what, times) in [
                ("rows in stores", told.rows),
                ("calls of stores that failed", told.failures),
                ("fenced commits", told.fenced),
                ("repeated rows", told.repeated),
            ] {
                *self.summary.told.entry(what).or_default() += times;
            }
        }
        Ok(self.summary)
    }

    fn tell(&mut self, what: &'static str, more: impl fmt::Display) {
        self.summary.count(what);
        let line = format!("{:>5} {what} {more}", self.summary.steps);
        self.story.lock().push(line);
    }

    /// Starts a process, and once more where what was damaged had to be mended first.
    fn start(&mut self) -> Checked {
        for _ in 0..20 {
            let mut settings = self.settings.clone();
            settings.workers = if self.alone { 1 } else { self.draws.small(1, 5) };
            if self.draws.chance(1, 8) {
                let calls = 1 + self.draws.below(12);
                self.disk.set_calls_left(calls);
            }
            self.sales.forget_fetched();
            self.names.forget_fetched();
            self.started += 1;
            let (flow, plan) = planned();
            let workers = settings.workers;
            match Process::start(self.started, flow, plan, settings) {
                Ok(process) => {
                    let (number, restored) = (self.started, process.checkpointed);
                    self.tell(
                        "start",
                        format_args!("{number} on {workers} workers, from {restored:?}"),
                    );
                    self.current = Some(process);
                    self.cut_short = false;
                    return Ok(());
                }
                Err(_) if self.disk.is_dead() => {
                    self.lose_power();
                    self.cut_short = true;
                }
                Err(error) if self.cut_short && self.is_torn_twice(&error) => {}
                Err(error) => {
                    self.excused(&error, &[], self.started)?;
                }
            }
        }
        Err("a start was refused again and again".into())
    }

    /// Whether an error is one of those that there may be; what is behind it is mended.
    fn excused(&mut self, error: &Error, own: &[AllowedFailure], number: usize) -> Checked {
        let text = error.to_string().replace('\n', " / ");
        if own.iter().any(|excuse| excuse.covers(error)) {
            self.tell("halt", format_args!("of {number}: {text}"));
            return Ok(());
        }
        let Some(at) = self.excuses.iter().position(|excuse| excuse.covers(error)) else {
            return Err(format!("{number} gave an error that nothing stands for: {text}"));
        };
        self.tell("refusal", format_args!("of {number}: {text}"));
        let excuse = self.excuses.remove(at);
        self.repair(excuse);
        Ok(())
    }

    /// A claim that is torn behind a torn frame may make that one look whole: the ledger then takes it for
    /// damage, as it says. Somebody has to cut it; what counts must be before that.
    fn is_torn_twice(&mut self, error: &Error) -> bool {
        let text = error.to_string();
        let at = text
            .split("is damaged at byte ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let at = at.and_then(|at| at.trim().parse::<usize>().ok());
        let path = Path::new(LEDGER).join("ledger.log");
        match (at, self.disk.bytes(&path)) {
            (Some(at), Some(bytes)) if text.contains("it is complete, but its checksum") => {
                self.disk.put(&path, bytes[..at].to_vec());
                self.tell("torn", format_args!("twice, and cut at byte {at}"));
                true
            }
            _ => false,
        }
    }

    fn repair(&mut self, excuse: AllowedFailure) {
        match excuse {
            AllowedFailure::Disk | AllowedFailure::Stopped => self.restore_disk(),
            AllowedFailure::Flipped { path, file, bit } => {
                self.disk.flip(&path, bit, Some(file));
            }
            // A start removes what no manifest that it can read names.
            AllowedFailure::Damaged(files) => files
                .into_iter()
                .for_each(|(path, bytes)| self.disk.put(&path, bytes)),
            AllowedFailure::Swapped(bytes) => self.disk.put(&Path::new(LEDGER).join("ledger.log"), bytes),
            AllowedFailure::Lost(starts) => {
                for (partition, start) in starts.into_iter().enumerate() {
                    self.sales.set_start(partition, start);
                }
            }
        }
    }

    fn restore_disk(&mut self) {
        self.disk.set_space_left(None);
        self.disk.set_sync_fails(false);
        self.disk.set_creates_fail(0);
        self.excuses.retain(|excuse| *excuse != AllowedFailure::Disk);
    }

    /// What happens while no process runs.
    fn between(&mut self) {
        self.restore_disk();
        match self.draws.below(12) {
            0..3 => self.flip(),
            3 => self.swap(),
            4..7 => self.forget_old(),
            7 if self.started > 0 && self.draws.chance(1, 3) => self.lose_records(),
            8 => {
                let by = self.draws.below(7_200_000_000) as i64 - 3_600_000_000;
                clock::sim::set_wall(by);
                self.tell("clock", format_args!("set by {by} us"));
            }
            _ => {}
        }
    }

    /// A bit of some file turns over.
    fn flip(&mut self) {
        if self.excuses.iter().any(|excuse| {
            matches!(
                excuse,
                AllowedFailure::Flipped { .. } | AllowedFailure::Damaged(_) | AllowedFailure::Swapped(_)
            )
        }) {
            return;
        }
        let dir = if self.draws.chance(1, 3) {
            LEDGER
        } else {
            CHECKPOINTS
        };
        let names = self.disk.list(Path::new(dir)).unwrap_or_default();
        if names.is_empty() {
            return;
        }
        let whole = |name: &String| {
            let path = Path::new(dir).join(name);
            self.disk.bytes(&path).map(|bytes| (path, bytes))
        };
        let files: Vec<_> = names.iter().filter_map(whole).collect();
        let (path, bytes) = files[self.draws.below(files.len())].clone();
        if bytes.is_empty() {
            return;
        }
        let bit = self.draws.below(8 * bytes.len());
        let Some(file) = self.disk.flip(&path, bit, None) else {
            return;
        };
        self.tell("flip", format_args!("bit {bit} of {}", path.display()));
        self.excuses.push(if dir == LEDGER {
            AllowedFailure::Flipped { path, file, bit }
        } else {
            self.published = None;
            AllowedFailure::Damaged(files)
        });
    }

    /// The ledger of another history, in which epochs have the same numbers, lies beside the checkpoints.
    fn swap(&mut self) {
        let store = CheckpointStore::new(Arc::new(self.disk.clone()), Path::new(CHECKPOINTS));
        let (Ok((Some(newest), _)), Ok((None, mut bindings))) = (
            store.newest(APP, planned().0.name(), None),
            counted(&self.disk, Path::new(LEDGER)),
        ) else {
            return;
        };
        let before = bindings
            .iter()
            .filter(|binding| binding.epoch <= newest.epoch)
            .count();
        if !self.excuses.is_empty() || before == 0 {
            return;
        }
        let at = self.draws.below(before);
        bindings[at].now = bindings[at].now.plus(Duration::from_micros(1));
        let other = SimDisk::new();
        let claim = crate::ledger::Claim {
            app: APP.to_owned(),
            dataflow: planned().0.name().to_owned(),
            build: "another".to_owned(),
            sources: Vec::new(),
        };
        let (mut ledger, _) = Ledger::open_on(&other, Path::new(LEDGER), claim).expect("a sound disk");
        ledger.append(&bindings).expect("a sound disk");
        let path = Path::new(LEDGER).join("ledger.log");
        if let (Some(own), Some(others)) = (self.disk.bytes(&path), other.bytes(&path)) {
            self.disk.put(&path, others);
            self.tell(
                "swap",
                format_args!("of the ledger, another from {} on", bindings[at].epoch),
            );
            self.excuses.push(AllowedFailure::Swapped(own));
        }
    }

    /// Retention removes what every checkpoint that is there is behind.
    fn forget_old(&mut self) {
        let store = CheckpointStore::new(Arc::new(self.disk.clone()), Path::new(CHECKPOINTS));
        let epochs = store.epochs().unwrap_or_default();
        if self.published.is_none() || !self.excuses.is_empty() {
            return;
        }
        for partition in 0..self.sales.partitions() {
            let id = PartitionId {
                source: SourceId::of("sales"),
                partition: partition as u32,
            };
            let positions = epochs.iter().map(|epoch| {
                let manifest = store.manifest(*epoch).ok()?;
                let at = manifest.at.binding.ranges.iter().find(|range| range.id == id)?;
                Some(at.hi)
            });
            let least = positions.map(|hi| hi.unwrap_or(0)).min().unwrap_or(0);
            let start = self.sales.starts()[partition].max(least);
            self.sales.set_start(partition, start);
        }
        let starts = self.sales.starts();
        self.tell("retention", format_args!("up to {starts:?}"));
    }

    /// Retention removes what may still be needed.
    fn lose_records(&mut self) {
        let starts = self.sales.starts();
        let partition = self.draws.below(starts.len());
        let end = self.sales.ends()[partition];
        if !self.oracle.is_bound(SourceId::of("sales"), partition as u32) {
            return; // It would begin behind what is gone.
        }
        self.sales.set_start(partition, end);
        self.tell(
            "loss",
            format_args!("of all before {end} in partition {partition}"),
        );
        self.excuses.push(AllowedFailure::Lost(starts));
    }

    /// A process runs for a while, and what befalls it ends that.
    fn live(&mut self) -> Checked {
        let steps = self.draws.small(10, if self.alone { 1000 } else { 400 });
        self.turns(steps)?;
        if self.current.is_none() {
            return Ok(());
        }
        match self.draws.below(12) {
            0..3 => self.lose_power(),
            3..6 => {
                let calls = 1 + self.draws.below(24);
                self.tell("power", format_args!("lasts for {calls} calls"));
                self.disk.set_calls_left(calls);
                self.turns(400)?;
                if self.current.is_some() {
                    self.lose_power();
                }
            }
            6 => {
                self.tell("kill", "");
                self.current = None;
            }
            7 => self.halt_by_stop()?,
            8..10 => {
                self.tell("stopped", "and another one starts");
                if let Some(mut process) = self.current.take() {
                    process.stopped = true;
                    self.stopped.push(process);
                }
            }
            _ => {
                self.trouble();
                self.turns(200)?;
                self.restore_disk();
            }
        }
        Ok(())
    }

    /// The disk is full, or fails.
    fn trouble(&mut self) {
        self.excuses.push(AllowedFailure::Disk);
        match self.draws.below(3) {
            0 => {
                let bytes = self.draws.below(3000);
                self.tell("full", format_args!("but for {bytes} bytes"));
                self.disk.set_space_left(Some(bytes));
            }
            1 => {
                self.tell("flushes", "fail");
                self.disk.set_sync_fails(true);
            }
            _ => {
                let files = 1 + self.draws.below(4);
                self.tell("files", format_args!("can't be made, {files} of them"));
                self.disk.set_creates_fail(files);
            }
        }
    }

    fn lose_power(&mut self) {
        self.unfinished += 1;
        self.current = None;
        self.stopped.clear();
        let seed = self.draws.next();
        self.disk.crash(seed);
        self.tell("crash", "");
    }

    /// Asks for a stop, and waits for it.
    fn halt_by_stop(&mut self) -> Checked {
        self.tell("stop", "");
        for _ in 0..END_STEPS {
            let Some(process) = &self.current else {
                return Ok(());
            };
            process.stop();
            self.turn()?;
        }
        Err("a stop came to no end".into())
    }

    fn turns(&mut self, steps: usize) -> Checked {
        for _ in 0..steps {
            if self.current.is_none() {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Something happens.
    fn turn(&mut self) -> Checked {
        self.summary.steps += 1;
        match self.draws.below(100) {
            0..6 => self.grow(),
            6..11 => {
                self.sales.fetch(false);
                self.names.fetch(false);
            }
            11..16 => {
                let us = match self.draws.below(40) {
                    0 => 1_000_000,
                    1..4 => 40_000,
                    _ => self.draws.below(3_000),
                };
                clock::sim::pass(Duration::from_micros(us as u64));
            }
            16 if self.draws.chance(1, 20) => {
                clock::sim::set_wall(-3_600_000_000);
                self.tell("clock", "set back an hour");
            }
            16 if self.draws.chance(1, 12) && self.sales.partitions() < 4 => {
                self.sales.add_partition();
                self.tell("partition", "added");
            }
            _ => return self.step(),
        }
        Ok(())
    }

    fn grow(&mut self) {
        let draws = &mut self.draws;
        self.at_us += draws.small(0, 12) as i64;
        if draws.chance(1, 4) {
            let given: Vec<_> = (0..1 + draws.below(3)).map(|_| oracle::naming(draws)).collect();
            let partition = draws.below(self.names.partitions());
            self.names.append(partition, given);
        } else {
            let at_us = self.at_us;
            let given: Vec<_> = (0..1 + draws.below(5))
                .map(|_| oracle::sale(draws, at_us))
                .collect();
            let partition = draws.below(self.sales.partitions());
            self.sales.append(partition, given);
        }
    }

    /// A process takes a step of its own.
    fn step(&mut self) -> Checked {
        let old = !self.stopped.is_empty() && self.draws.chance(1, 5);
        let taken = match old {
            true => Some(self.stopped.swap_remove(self.draws.below(self.stopped.len()))),
            false => self.current.take(),
        };
        let Some(mut process) = taken else { return Ok(()) };
        match self.draws.below(20) {
            0..12 => process.work(&mut self.draws, &self.disk),
            12..15 if process.write(&self.disk) => {}
            12..15 => {
                // Others had gone on while it was being written.
                for _ in 0..self.draws.below(60) {
                    process.work(&mut self.draws, &self.disk);
                }
                self.look_at(&mut process)?;
            }
            15..18 => process.save(1 + self.draws.below(60)),
            18 => process.prepare(),
            _ => process.look(),
        }
        if self.disk.is_dead() {
            drop(process);
            self.lose_power();
            return Ok(());
        }
        self.look_at(&mut process)?;
        stores::kept()?;
        if let Some(error) = process.error() {
            let own = match process.stopped {
                true => vec![AllowedFailure::Stopped, AllowedFailure::Disk],
                false => Vec::new(),
            };
            self.unfinished += usize::from(!old);
            return self.excused(&error, &own, process.number);
        }
        if process.is_over() {
            self.unfinished += usize::from(!old && !process.shared.sinks.take_on());
            return match process.shared.inbox.stopping() {
                true => Ok(()),
                false => Err(format!("{} ended by itself", process.number)),
            };
        }
        match old {
            true => self.stopped.push(process),
            false => self.current = Some(process),
        }
        Ok(())
    }

    /// Holds what a process has made true against what is promised.
    fn look_at(&mut self, process: &mut Process) -> Checked {
        let closed = process.shared.views.closed();
        let closed_epoch = closed.as_ref().map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
        // Whoever reads the newest epoch, and is not told to wait, sees none older than what was seen before
        // the start.
        let answers = !process.stopped && process.shared.recovering().is_none();
        if answers && closed_epoch < self.oracle.last() {
            return Err(format!(
                "{} answers as of {closed_epoch}, and {} was closed before",
                process.number,
                self.oracle.last()
            ));
        }
        let made = process.shared.checkpoints.get().and_then(|made| made.newest());
        if made > process.checkpointed {
            let epoch = made.unwrap_or_default();
            self.tell("checkpoint", format_args!("as of {epoch} by {}", process.number));
            if epoch > closed_epoch {
                return Err(format!(
                    "a checkpoint as of {epoch}, and {closed_epoch} is the last closed"
                ));
            }
            self.published = self.published.max(made);
        }
        let news = made > process.checkpointed || closed_epoch > process.closed;
        process.checkpointed = made;
        let swapped = self
            .excuses
            .iter()
            .any(|excuse| matches!(excuse, AllowedFailure::Swapped(_)));
        if !news && (swapped || !self.draws.chance(1, 100)) {
            return Ok(());
        }
        self.summary.looks += 1;
        self.survives(closed_epoch)?;
        if closed_epoch > process.closed {
            self.equals(process, closed_epoch)?;
            process.closed = closed_epoch;
        }
        Ok(())
    }

    /// If the power went now, what is closed would be bound, and the newest checkpoint could be restored.
    fn survives(&mut self, closed: Epoch) -> Checked {
        let left = self.disk.after_crash(self.draws.next());
        let read = counted(&left, Path::new(LEDGER));
        let (trimmed, bindings) = read.map_err(|error| format!("after a loss of power: {error}"))?;
        let last = bindings.last().map(|binding| binding.epoch).max(trimmed);
        if trimmed > self.trimmed {
            self.trimmed = trimmed;
            self.tell("trim", format_args!("up to {}", trimmed.unwrap_or_default()));
        }
        let needed = closed.max(self.oracle.last());
        if last.unwrap_or_default() < needed {
            return Err(format!(
                "{needed} is closed, and a loss of power would leave the ledger at {last:?}"
            ));
        }
        for binding in &bindings {
            let known = self
                .oracle
                .bindings
                .binary_search_by_key(&binding.epoch, |known| known.epoch);
            match known {
                Ok(at) if self.oracle.bindings[at] == *binding => {}
                Ok(at) => {
                    let known = &self.oracle.bindings[at];
                    return Err(format!(
                        "the ledger says {binding:?}, and it was closed as {known:?}"
                    ));
                }
                Err(_) if binding.epoch <= closed => {
                    self.oracle.next(binding, &self.sales, &self.names)?;
                    self.summary.epochs += 1;
                }
                Err(_) => {}
            }
        }
        let Some(published) = self.published else {
            return Ok(());
        };
        let store = CheckpointStore::new(Arc::new(left), Path::new(CHECKPOINTS));
        match store.newest(APP, planned().0.name(), None) {
            Err(error) => Err(format!(
                "after a loss of power checkpoints can't be read: {error}"
            )),
            Ok((Some(newest), _)) if newest.epoch >= published => {
                let from = newest.from.as_ref().map(|base| base.binding.epoch);
                if trimmed > from {
                    return Err(format!(
                        "the ledger is trimmed to {trimmed:?}, and {} begins at {from:?}",
                        newest.epoch
                    ));
                }
                Ok(())
            }
            Ok((found, notes)) => {
                let found = found.map(|newest| newest.epoch);
                Err(format!(
                    "{published} was published, and a loss of power leaves {found:?}: {notes:?}"
                ))
            }
        }
    }

    /// Every epoch that was closed since the last look has the rows that it should have.
    fn equals(&mut self, process: &Process, upto: Epoch) -> Checked {
        let from = self
            .oracle
            .bindings
            .partition_point(|binding| binding.epoch <= process.closed);
        let views = &process.shared.views;
        let history = oracle::NAMES_HISTORY.max(self.settings.history);
        for at in from..self.oracle.bindings.len() {
            let binding = self.oracle.bindings[at].clone();
            if binding.epoch > upto {
                break;
            }
            let snapshot = match views.snapshot(AsOf::Epoch(binding.epoch)) {
                Ok(snapshot) if snapshot.epoch == binding.epoch => snapshot,
                Ok(_) | Err(ReadError::Gone { .. }) if is_past(binding.epoch, upto, history) => continue,
                Ok(_) => return Err(format!("{} can't be asked for as of {upto}", binding.epoch)),
                Err(error) => return Err(format!("{}: {error}", binding.epoch)),
            };
            if *snapshot.binding != binding {
                return Err(format!(
                    "{} closed {:?}, and the ledger has {binding:?}",
                    process.number, snapshot.binding
                ));
            }
            self.compare(process, &snapshot)?;
        }
        if self.oracle.last() < upto {
            return Err(format!(
                "{} closed {upto}, and the ledger ends with {}",
                process.number,
                self.oracle.last()
            ));
        }
        Ok(())
    }

    fn compare(&mut self, process: &Process, snapshot: &Snapshot) -> Checked {
        let expected = &self.oracle.rows[&snapshot.epoch];
        let newest = process
            .shared
            .views
            .closed()
            .map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
        for (name, rows) in expected {
            let view = process
                .shared
                .views
                .get(name)
                .ok_or_else(|| format!("no view {name}"))?;
            let query = RowsQuery {
                limit: 10_000,
                ..RowsQuery::default()
            };
            let page = match view.rows(&query, snapshot) {
                Ok(page) => page,
                Err(ReadError::Gone { .. }) if is_past(snapshot.epoch, newest, view.spec().history) => {
                    continue;
                }
                Err(error) => return Err(format!("{name} as of {}: {error}", snapshot.epoch)),
            };
            let text = |row: &crate::view::serve::FoundRow| {
                let mut json = Vec::new();
                view.schema().write_row(&row.row, Numbers::default(), &mut json);
                let json = String::from_utf8_lossy(&json).into_owned();
                if !name.ends_with("dead_letters") {
                    return json;
                }
                let letter: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
                let text = |field: &str| letter[field].as_str().unwrap_or_default().to_owned();
                format!(
                    "{}/{} {} {}",
                    letter["partition"],
                    letter["offset"],
                    text("step"),
                    text("cause")
                )
            };
            let found: Vec<String> = page.rows.iter().map(text).collect();
            let versions: Vec<Epoch> = page.rows.iter().map(|row| row.version).collect();
            let first = self.versions.entry((snapshot.epoch, name));
            let first = first.or_insert_with(|| versions.clone());
            let later = (*first != versions).then(|| format!("{first:?} at first, and now {versions:?}"));
            if found != *rows {
                let missing: Vec<_> = rows.iter().filter(|row| !found.contains(row)).collect();
                let wrong: Vec<_> = found.iter().filter(|row| !rows.contains(row)).collect();
                return Err(format!(
                    "{}: view {name} as of {} (process {}, restored from {:?}): missing {missing:?}, wrong \
                        {wrong:?}",
                    if missing.is_empty() && wrong.is_empty() {
                        "order"
                    } else {
                        "rows"
                    },
                    snapshot.epoch,
                    process.number,
                    process
                        .shared
                        .restored
                        .get()
                        .map(|restored| restored.manifest.epoch),
                ));
            }
            if let Some(later) = later {
                return Err(format!(
                    "rows of view {name} as of {} (process {}) changed when? {later}",
                    snapshot.epoch, process.number
                ));
            }
        }
        Ok(())
    }

    /// Nothing stands in the way any more: all comes in, a stop is one, and another start shows the same.
    fn end(&mut self) -> Checked {
        self.restore_disk();
        for excuse in std::mem::take(&mut self.excuses) {
            self.repair(excuse);
        }
        stores::calm();
        (0..8).for_each(|_| self.grow());
        for again in [false, true] {
            // A start may come with power for some calls only, and a stop that is cut short leaves rows to
            // the next start.
            let mut stops = 0;
            while !self.quiesce()? {
                stops += 1;
                if stops > STOPS_MAX {
                    return Err(format!("{STOPS_MAX} stops left rows to the next start"));
                }
            }
            if !again && self.draws.chance(2, 3) {
                break;
            }
        }
        Ok(())
    }

    /// Goes on until all is in, and stops. `false`: the stop left rows to the next start.
    fn quiesce(&mut self) -> Checked<bool> {
        let mut steps = 0;
        loop {
            if self.current.is_none() {
                self.start()?;
            }
            if self.disk.is_dead() {
                self.lose_power();
                continue;
            }
            self.sales.fetch(true);
            self.names.fetch(true);
            if self.is_all_in() {
                break;
            }
            clock::sim::pass(Duration::from_millis(1));
            self.step()?;
            self.summary.steps += 1;
            steps += 1;
            if steps > END_STEPS {
                return Err(format!(
                    "not all is in after {END_STEPS} steps: {}",
                    self.stands()
                ));
            }
        }
        self.tell("all", format_args!("is in as of {}", self.oracle.last()));
        let unfinished = self.unfinished;
        self.halt_by_stop()?;
        Ok(self.unfinished == unfinished)
    }

    fn is_all_in(&self) -> bool {
        let Some(process) = &self.current else {
            return false;
        };
        let Some(closed) = process.shared.views.closed() else {
            return false;
        };
        let in_ = |source: &str, ends: Vec<i64>| {
            (0u32..).zip(ends).all(|(partition, end)| {
                let source = SourceId::of(source);
                end == 0 || closed.position(PartitionId { source, partition }) == Some(end)
            })
        };
        closed.epoch == self.oracle.last()
            && in_("sales", self.sales.ends())
            && in_("names", self.names.ends())
    }

    fn stands(&self) -> String {
        let Some(process) = &self.current else {
            return "no process".into();
        };
        let (shared, closed) = (&process.shared, process.shared.views.closed());
        let closed = closed.map(|snapshot| (snapshot.epoch, snapshot.positions.to_vec()));
        let replay_to = shared.replay_to.load(Ordering::Relaxed);
        format!(
            "{} of {} workers, which may hold {} records, closed {closed:?}; the ledger held {replay_to}, \
                topics end at {:?} and {:?}",
            process.number,
            shared.settings.workers,
            shared.settings.bounds.records_max,
            self.sales.ends(),
            self.names.ends()
        )
    }
}

/// Whether views with this history need not know an epoch any more.
fn is_past(epoch: Epoch, newest: Epoch, history: Duration) -> bool {
    epoch.0 + (history.as_micros() as u64) < newest.0
}
