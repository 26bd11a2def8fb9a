//! Keyed state against a model that keeps everything: changes, freezes, slices, checkpoints that fail and are
//! tried again, expiry and restores on another number of workers, in random order.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::bridge::Halt;
use crate::checkpoint::Checkpoints;
use crate::checkpoint::manifest::{EntryRule, Lineage};
use crate::checkpoint::owner::Owner;
use crate::checkpoint::pending::{PendingCheckpoint, WriterIdentity};
use crate::checkpoint::steps::StatefulSteps;
use crate::checkpoint::store::{CheckpointStore as Files, RestoredCheckpoint};
use crate::checkpoint::tests::shape;
use crate::checkpoint::writer::CheckpointWriter;
use crate::disk::sim::SimDisk;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::position::EpochBinding;
use crate::record::{owner, route};

const DIR: &str = "/c";
const NAMES: (&str, &str) = ("shop", "spend");

type Key = (EventTime, u8);

#[derive(Clone, Debug)]
enum Change {
    Put(Key, i64),
    Add(Key, i64),
    Remove(Key),
    Expire(EventTime),
}

#[derive(Clone, Debug)]
enum Op {
    /// Changes of an epoch.
    Epoch(Vec<Change>),
    /// A checkpoint is to be made as of the next epoch.
    Begin,
    /// So many slices of the checkpoint that is on its way, if its epoch is over.
    Save(usize),
    /// All that is left of it. It may fail.
    End { fails: bool },
    /// Everything stops, and goes on from the newest checkpoint.
    Restart { workers: usize },
}

/// What there is, and until when entries are gone.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    entries: BTreeMap<Key, i64>,
    cut: EventTime,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            cut: EventTime::MIN,
        }
    }
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(key, _) | Change::Add(key, _) if key.0 <= self.cut => {}
            Change::Put(key, value) => _ = self.entries.insert(*key, *value),
            Change::Add(key, value) => *self.entries.entry(*key).or_default() += value,
            Change::Remove(key) => _ = self.entries.remove(key),
            Change::Expire(time) => {
                self.cut = self.cut.max(*time);
                self.entries.retain(|key, _| key.0 > self.cut);
            }
        }
    }
}

struct Worker {
    steps: Rc<StatefulSteps>,
    state: StateCell<KeyedState<TimeStore<u8, i64>>>,
}

/// A process: its workers, the thread that writes, and what they do to the model.
struct Process {
    workers: Vec<Worker>,
    checkpoints: Checkpoints,
    writer: CheckpointWriter,
    /// On its way, as of an epoch, and what it is to hold once the epoch is over.
    begun: Option<(Arc<PendingCheckpoint>, Option<Model>)>,
}

impl Process {
    fn start(files: &Files, restored: Option<Arc<RestoredCheckpoint>>, peers: usize) -> Self {
        let owner = Owner::default();
        let (app, dataflow) = (NAMES.0.to_owned(), NAMES.1.to_owned());
        let identity = WriterIdentity {
            app,
            dataflow,
            build: String::new(),
            lineage: Lineage::default(),
            owner,
        };
        let (checkpoints, writer) = Checkpoints::new(
            files.clone(),
            identity,
            vec![shape(EntryRule::Last)],
            (peers, 2),
            restored.as_deref(),
            Metrics::new().checkpoints.clone(),
            Arc::new(|_| {}),
        );
        let worker = |worker: usize| {
            let (steps, halt) = (Rc::<StatefulSteps>::default(), Halt::default());
            let handle = StateHandle::new(steps.clone(), true, 0, restored.clone(), (worker, peers), halt);
            let state = KeyedState::keep(&handle);
            steps.load_all(1);
            Worker { steps, state }
        };
        Self {
            workers: (0..peers).map(worker).collect(),
            checkpoints,
            writer,
            begun: None,
        }
    }

    /// Everything, and the time of it.
    fn held(&self) -> Model {
        let mut held = Model::default();
        for worker in &self.workers {
            let state = worker.state.at(Epoch::ZERO);
            let entries = state.entries().iter().map(|(key, value)| (*key, *value));
            held.entries.extend(entries);
            held.cut = state.cut;
        }
        held
    }

    fn apply(&self, epoch: Epoch, changes: &[Change]) {
        for (at, worker) in self.workers.iter().enumerate() {
            let mut state = worker.state.at(epoch);
            state.begin(epoch);
            let owns = |key: &Key| owner(route(&key.1), self.workers.len()) == at;
            for change in changes {
                match change {
                    Change::Put(key, value) if owns(key) => _ = state.put(*key, *value),
                    Change::Add(key, value) if owns(key) => state.update(*key, || 0, |held| *held += value),
                    Change::Remove(key) if owns(key) => _ = state.remove(key),
                    Change::Expire(time) => state.expire(*time, |_, _| {}),
                    _ => {}
                }
            }
        }
    }

    fn begin(&mut self, epoch: Epoch) {
        let nothing = EpochBinding {
            epoch,
            now: EventTime(0),
            ranges: vec![],
            watermarks: vec![],
            idle: vec![],
            topics: vec![],
            schemas: vec![],
            results: None,
        };
        self.checkpoints.begin(nothing);
        let job = self.checkpoints.job(epoch, false).unwrap();
        for worker in &self.workers {
            worker.steps.begin(epoch, job.clone());
        }
        self.begun = Some((job, None));
    }

    /// Saves on, once the epoch is over.
    fn save(&mut self, mut slices: usize) {
        let Some((job, Some(_))) = &self.begun else {
            return;
        };
        for worker in &self.workers {
            worker.steps.closed(job.epoch);
            worker.steps.save(|| {
                slices = slices.saturating_sub(1);
                slices > 0
            });
        }
        while self.writer.step() {}
    }

    /// Brings it to its end. Returns what it was to hold.
    fn end(&mut self, fails: bool) -> Option<(Epoch, Model)> {
        let (job, model) = self.begun.take_if(|(_, model)| model.is_some())?;
        if fails {
            job.fail(Error::external("the disk is away"));
        }
        for worker in &self.workers {
            worker.steps.closed(job.epoch);
            worker.steps.save(|| true);
        }
        self.checkpoints.chain(String::new());
        self.checkpoints.closed(vec![], Epoch::ZERO);
        while self.writer.step() {}
        Some((job.epoch, model?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| worker.steps.clear());
    }
}

fn newest(files: &Files) -> Option<Arc<RestoredCheckpoint>> {
    let (manifest, notes) = files.newest(NAMES.0, NAMES.1, None).unwrap();
    assert_eq!(notes, [""; 0]);
    manifest.map(|manifest| RestoredCheckpoint::new(files.clone(), manifest, vec![Some(0)]))
}

fn run(ops: Vec<Op>) {
    let files = Files::new(Arc::new(SimDisk::new()), Path::new(DIR));
    let mut process = Process::start(&files, None, 1);
    let (mut model, mut saved) = (Model::default(), Model::default());
    let mut epoch = Epoch(1);
    for op in ops.into_iter().chain([Op::Restart { workers: 3 }]) {
        match op {
            Op::Epoch(changes) => {
                process.apply(epoch, &changes);
                changes.iter().for_each(|change| model.apply(change));
                if let Some((job, held)) = &mut process.begun
                    && job.epoch == epoch
                {
                    *held = Some(model.clone());
                }
                epoch.0 += 1;
            }
            Op::Begin if process.begun.is_none() => process.begin(epoch),
            Op::Begin => {}
            Op::Save(slices) => process.save(slices),
            Op::End { fails } => {
                let Some((at, held)) = process.end(fails) else {
                    continue;
                };
                if !fails {
                    assert_eq!(process.checkpoints.newest(), Some(at));
                    let other = Process::start(&files, newest(&files), 2);
                    assert_eq!(other.held(), held, "as of {at}");
                    saved = held;
                }
            }
            Op::Restart { workers } => {
                process = Process::start(&files, newest(&files), workers);
                model = saved.clone();
            }
        }
        assert_eq!(process.held(), model);
    }
}

fn key() -> impl Strategy<Value = Key> {
    (2i64..10, 0u8..4).prop_map(|(until, key)| (EventTime(until), key))
}

fn op() -> impl Strategy<Value = Op> {
    let change = prop_oneof![
        4 => (key(), 0i64..3).prop_map(|(key, value)| Change::Put(key, value)),
        4 => (key(), 1i64..3).prop_map(|(key, value)| Change::Add(key, value)),
        3 => key().prop_map(Change::Remove),
        1 => (0i64..9).prop_map(|time| Change::Expire(EventTime(time))),
    ];
    prop_oneof![
        8 => prop::collection::vec(change, 0..6).prop_map(Op::Epoch),
        4 => Just(Op::Begin),
        3 => (1usize..4).prop_map(Op::Save),
        3 => any::<bool>().prop_map(|fails| Op::End { fails }),
        1 => (1usize..4).prop_map(|workers| Op::Restart { workers }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn what_is_restored_is_what_there_was_at_the_freeze(ops in prop::collection::vec(op(), 1..60)) {
        run(ops);
    }
}

#[test]
fn memory_follows_the_entries_that_there_are() {
    let mut state = KeyedState::<HashStore<u32, u32>>::new(&StateHandle::off());
    state.begin(Epoch(1));
    (0..20_000).for_each(|key| _ = state.put(key, key));
    let full = state.store.entries.capacity();
    (0..19_990).for_each(|key| _ = state.remove(&key));
    state.give_back_room();
    assert!(state.store.entries.capacity() < full / 100);
    assert_eq!(state.get(&19_999), Some(&19_999));
}
