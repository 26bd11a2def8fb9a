//! Bad luck with checkpoints: damaged, missing or of something else. A run goes on from an older one or from
//! the topics, and ends the same; or it refuses, and says why.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thalweg::checkpoint::store::CheckpointStore;
use thalweg::disk::Disk;
use thalweg::disk::sim::SimDisk;
use thalweg::ingest::BufferLimits;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule, OnNewProgram};
use thalweg::runtime::{self, Replay, RunSettings, Service};
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::memory::Memory;
use thalweg::view::AsOf;
use thalweg::view::serve::RowsQuery;
use thalweg::{Epoch, Flow, Kind};

pub(crate) const EPOCHS: u64 = 12;
/// Records per epoch.
pub(super) const RECORDS: u64 = 40;
const DIR: &str = "/checkpoints";

/// Numbers by their remainder: counted in windows that expire, and joined with a table whose rows change and
/// go.
pub(super) fn build(flow: Dataflow) {
    let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
    let numbers = Kafka::topic("o").json::<u64>();
    let numbers = numbers.event_time(|n| EventTime(*n as i64));
    flow.source("numbers", numbers.lateness(Duration::from_micros(2)))
        .key_by("digit", |n| n % 7)
        .window("tens", Tumbling::of(Duration::from_micros(30)))
        .keep(Duration::from_micros(60))
        .aggregate(|a| (a.count(), a.max(|n| *n)))
        .view_with("tens_view", |view| view.fields(["n", "greatest"]))
        .left_join("named", &names, |_, (n, _), name| (n, name.copied()))
        .view_with("named_view", |view| view.fields(["n", "name"]));
    names.view_with("names_view", |view| view.fields(["name"]));
}

pub(crate) fn flow() -> Flow {
    dataflow("lucky", build)
}

fn substitutes() -> HashMap<String, Substitute> {
    fn substitute<T: thalweg::Event>(records: Vec<T>) -> Substitute {
        let given = records
            .into_iter()
            .map(|value| (EventTime(0), Ok(value)))
            .collect();
        let ends = (1..=EPOCHS).map(|n| (n * RECORDS) as usize).collect();
        let memory = Memory::<T>::new(vec![given]).segment_ends(vec![ends]);
        let opened = Source::<T>::open(memory, &Environment::default()).expect("memory opens");
        Substitute {
            driver: opened.driver.clone(),
            opened: Some(Box::new(opened)),
        }
    }
    let all = 0..EPOCHS * RECORDS;
    let name = |n: u64| (n * n % 31, (!n.is_multiple_of(3)).then_some(n));
    HashMap::from([
        ("numbers".to_owned(), substitute(all.clone().collect())),
        ("names".to_owned(), substitute(all.map(name).collect())),
    ])
}

fn script(epochs: std::ops::RangeInclusive<u64>) -> VecDeque<ScriptedEpoch> {
    let epoch = |n: u64| {
        let hi = ["numbers", "names"].map(|source| {
            let source = SourceId::of(source);
            (PartitionId { source, partition: 0 }, (n * RECORDS) as i64)
        });
        ScriptedEpoch {
            epoch: Epoch(n),
            hi: hi.to_vec(),
            idle: Vec::new(),
        }
    };
    epochs.map(epoch).collect()
}

/// A service's ledger and its disk.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) disk: SimDisk,
    pub(crate) on_new_plan: Option<OnNewProgram>,
    pub(crate) on_new_build: Option<OnNewProgram>,
    /// The ledger is here, and trimmed.
    pub(crate) dir: Option<Arc<tempfile::TempDir>>,
    /// Where checkpoints are, if not in [`DIR`].
    pub(crate) prefix: Option<PathBuf>,
    /// How far back views reach, where it is not as ever.
    pub(crate) history: Option<Duration>,
    /// How many checkpoints are kept, likewise.
    pub(crate) keep: Option<usize>,
    /// How many records may wait to be released, likewise.
    pub(crate) records_max: Option<usize>,
    /// Nothing but a replay.
    pub(crate) replay: Option<Replay>,
}

impl World {
    pub(crate) fn start(
        &self,
        flow: &Flow,
        files: Arc<dyn thalweg::disk::FileStore>,
        epochs: std::ops::RangeInclusive<u64>,
        due: &[u64],
        workers: usize,
    ) -> thalweg::Result<Service> {
        let usual = RunSettings::default();
        let settings = RunSettings {
            workers,
            store: match &self.dir {
                None => runtime::LedgerLocation::Memory(self.log.clone()),
                Some(dir) => runtime::LedgerLocation::Directory(dir.path().join("ledger")),
            },
            trim_least: Some(1),
            replay: self.replay,
            cuts: Cuts::Script(script(epochs)),
            checkpoints: Some(checkpoints::CheckpointSettings {
                on_new_plan: self.on_new_plan.unwrap_or(OnNewProgram::Refuse),
                on_new_build: self.on_new_build.unwrap_or(OnNewProgram::Accept),
                keep: self.keep.unwrap_or(2),
                ..checkpoints::CheckpointSettings::new(
                    self.store(files),
                    CheckpointSchedule::At(due.iter().map(|n| Epoch(*n)).collect()),
                )
            }),
            substitutes: Some(Arc::new(substitutes)),
            history: self.history.unwrap_or(usual.history),
            bounds: BufferLimits {
                records_max: self.records_max.unwrap_or(usual.bounds.records_max),
                ..usual.bounds
            },
            ..usual
        };
        Service::start(flow, settings)
    }

    pub(crate) fn store(&self, files: Arc<dyn thalweg::disk::FileStore>) -> CheckpointStore {
        CheckpointStore::new(files, self.prefix.as_deref().unwrap_or(Path::new(DIR)))
    }

    /// Up to the eighth epoch, a start for every checkpoint, so that each of them is made.
    pub(super) fn begun() -> Self {
        Self::default().begin()
    }

    /// The same with this one.
    pub(super) fn begin(self) -> Self {
        self.begin_with(&flow())
    }

    /// The same of another dataflow.
    pub(super) fn begin_with(self, flow: &Flow) -> Self {
        let world = self;
        for (epochs, due, workers) in [(1..=3, 3, 2), (4..=5, 5, 1), (6..=8, 7, 3)] {
            let disk = Arc::new(world.disk.clone());
            let service = world.start(flow, disk, epochs, &[due], workers).unwrap();
            service.join().unwrap();
        }
        world
    }

    /// The rest of the epochs. Which checkpoint it went on from, and the rows of all views as of the last
    /// epochs.
    fn ended(&self) -> thalweg::Result<(Option<u64>, Rows)> {
        let service = self.start(&flow(), Arc::new(self.disk.clone()), 9..=EPOCHS, &[], 2)?;
        let restored = service.restored().map(|epoch| epoch.0);
        service.join().map(|views| (restored, rows(&views)))
    }

    fn files(&self) -> Vec<String> {
        self.disk.list(Path::new(DIR)).unwrap()
    }

    /// What is on the disk, to be damaged without regret.
    pub(super) fn copy(&self) -> Self {
        let copy = Self {
            log: self.log.copy(),
            ..Self::default()
        };
        for name in self.files() {
            let path = Path::new(DIR).join(name);
            copy.disk.put(&path, self.disk.bytes(&path).unwrap());
        }
        copy
    }
}

pub(crate) type Rows = BTreeMap<(String, u64), Vec<String>>;

pub(crate) fn rows(views: &thalweg::view::Views) -> Rows {
    rows_of(views, 9..=EPOCHS)
}

fn rows_of(views: &thalweg::view::Views, epochs: std::ops::RangeInclusive<u64>) -> Rows {
    let mut all = Rows::new();
    for name in views.names() {
        let view = views.get(&name).unwrap();
        for epoch in epochs.clone() {
            let snapshot = views.snapshot(AsOf::Epoch(Epoch(epoch))).unwrap();
            let query = RowsQuery {
                limit: 1000,
                ..RowsQuery::default()
            };
            let page = view.rows(&query, &snapshot).unwrap();
            assert!(page.next.is_none());
            let rows = page
                .rows
                .iter()
                .map(|row| format!("{:?} {:?}", row.version, row.row));
            all.insert((name.clone(), epoch), rows.collect());
        }
    }
    all
}

pub(crate) fn expected() -> Rows {
    let world = World::default();
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&flow(), disk, 1..=EPOCHS, &[], 1).unwrap();
    rows(&service.join().unwrap())
}

#[test]
fn a_damaged_or_missing_file_is_passed_over() {
    let (world, expected) = (World::begun(), expected());
    assert_eq!(world.copy().ended().unwrap(), (Some(7), expected.clone()));
    let newest = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR))
        .manifest(Epoch(7))
        .unwrap();
    let mut counts: BTreeSet<String> = newest.segments().map(|segment| segment.file.clone()).collect();
    counts.insert("checkpoint-00000000000000000007.json".into());
    assert!(counts.len() > 4, "{counts:?}");
    let mut from = BTreeSet::new();
    for name in world.files() {
        let path = Path::new(DIR).join(&name);
        let bytes = world.disk.bytes(&path).unwrap();
        let missing = world.copy();
        missing.disk.remove(&path).unwrap();
        let mut worlds = vec![("missing", missing)];
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let flipped = world.copy();
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            flipped.disk.put(&path, bytes);
            worlds.push(("with a flipped bit", flipped));
        }
        let short = world.copy();
        short.disk.put(&path, bytes[..bytes.len() - 1].to_vec());
        worlds.push(("cut short", short));
        for (how, damaged) in worlds {
            let (restored, rows) = damaged.ended().unwrap();
            // Other files are of an older one, or merged for the next.
            assert_eq!(
                restored == Some(7),
                !counts.contains(&name),
                "{name} {how}: {restored:?}"
            );
            assert_eq!(rows, expected, "{name} {how}");
            from.insert(restored);
        }
    }
    // What both have in common leaves none of them.
    assert_eq!(
        from,
        BTreeSet::from([None, Some(5), Some(7)]),
        "{:?}",
        world.files()
    );
}

#[test]
fn a_loss_of_power_leaves_what_was_published() {
    let (world, expected) = (World::begun(), expected());
    for seed in 0..20 {
        let world = world.copy();
        // Whatever is on its way when the power goes is not.
        let left_over = Path::new(DIR).join("00000000000000000009-000.segment");
        world.disk.create(&left_over).unwrap().append(b"thalweg").unwrap();
        world.disk.crash(seed);
        assert_eq!(world.ended().unwrap(), (Some(7), expected.clone()));
        assert!(
            world.disk.bytes(&left_over).is_none(),
            "it is nobody's, and is removed"
        );
    }
}

/// What a checkpoint that failed should have held is in the next one, which is made without a restart between
/// them.
#[test]
fn what_one_could_not_save_the_next_one_does() {
    let expected = expected();
    let mut made = 0;
    for turn in 0..8 {
        let world = World::default();
        world.disk.set_creates_fail(1 + turn % 3);
        let disk = Arc::new(world.disk.clone());
        // How many of them come to be depends on how quickly each is written: the last of those that do
        // counts.
        let service = world
            .start(&flow(), disk, 1..=8, &[1, 2, 3, 4, 5, 6, 7, 8], 1 + turn % 2)
            .unwrap();
        service.join().unwrap();
        let (restored, rows) = world.ended().unwrap();
        assert_eq!(rows, expected, "from {restored:?}");
        made += usize::from(restored.is_some());
    }
    assert!(made > 0, "none came to be");
}

/// A row may be removed, forgotten as nobody can ask for it any more, and come back, all between two
/// checkpoints.
#[test]
fn a_restored_view_shows_of_the_past_what_it_showed() {
    let whole = expected_upto(10);
    for (first, second) in [(2, 8), (3, 9), (4, 9), (5, 9), (2, 9)] {
        let world = World {
            history: Some(Duration::from_micros(2)),
            ..World::default()
        };
        for (epochs, due) in [(1..=first, first), (first + 1..=9, second)] {
            let disk = Arc::new(world.disk.clone());
            let service = world.start(&flow(), disk, epochs, &[due], 2).unwrap();
            service.join().unwrap();
        }
        let disk = Arc::new(world.disk.clone());
        let service = world.start(&flow(), disk, 10..=10, &[], 1).unwrap();
        assert_eq!(service.restored(), Some(Epoch(second)));
        let asked = rows_of(&service.join().unwrap(), 8..=10);
        let of_asked = |at: &(String, u64)| at.1 >= 8;
        let whole: Rows = whole.clone().into_iter().filter(|(at, _)| of_asked(at)).collect();
        assert_eq!(asked, whole, "checkpoints as of {first} and {second}");
    }
}

fn expected_upto(last: u64) -> Rows {
    let world = World::default();
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&flow(), disk, 1..=last, &[], 1).unwrap();
    rows_of(&service.join().unwrap(), 1..=last)
}

/// Readers hold so much ahead of what is released; an epoch may have more, as it was bound when more could be
/// held.
#[test]
fn a_replay_of_epochs_that_are_larger_than_what_readers_hold_comes_to_its_end() {
    let world = World::default();
    let nowhere = || Arc::new(SimDisk::new());
    let service = world.start(&flow(), nowhere(), 1..=8, &[], 3).unwrap();
    service.join().unwrap();
    let small = World {
        records_max: Some(RECORDS as usize / 4),
        ..world
    };
    // The run has no epochs of its own, so it ends with the replay.
    #[allow(clippy::reversed_empty_ranges)]
    let service = small.start(&flow(), nowhere(), 9..=8, &[], 1).unwrap();
    for _ in 0..600 {
        if service.is_finished() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(service.is_finished(), "it waits for room");
    let mut whole = expected_upto(8);
    whole.retain(|at, _| at.1 == 8);
    assert_eq!(rows_of(&service.join().unwrap(), 8..=8), whole);
}

#[test]
fn no_space_at_all_costs_the_checkpoints_and_nothing_else() {
    let mut begun = 0;
    for space in [100, 1000, 3000, 5000] {
        let world = World::default();
        world.disk.set_space_left(Some(space));
        let leaky = Leaky::new(&world.disk);
        let service = world
            .start(&flow(), Arc::new(leaky.clone()), 1..=8, &[3], 2)
            .unwrap();
        service.join().unwrap();
        // What there was may be what the ledger needs.
        let segments = world
            .files()
            .into_iter()
            .filter(|name| name.ends_with(".segment"));
        assert_eq!(segments.count(), 0, "with {space} bytes");
        begun += leaky.created.load(Ordering::Relaxed);
        world.disk.set_space_left(None);
        assert_eq!(world.ended().unwrap(), (None, expected()));
    }
    assert!(begun > 0, "no file was ever begun");
}

/// What is there is gone on from, and nothing is made until it can be written to again.
#[test]
fn a_read_only_place_costs_the_checkpoints_and_nothing_else() {
    let world = World::begun();
    let before = world.files();
    let sealed = Leaky {
        read_only: true,
        ..Leaky::new(&world.disk)
    };
    let refused = sealed.refused.clone();
    let service = world
        .start(&flow(), Arc::new(sealed), 9..=EPOCHS, &[10], 2)
        .unwrap();
    assert_eq!(service.restored(), Some(Epoch(7)));
    assert_eq!(rows(&service.join().unwrap()), expected());
    assert!(refused.load(Ordering::Relaxed) > 0, "nobody tried to write");
    assert_eq!(world.files(), before);
    assert_eq!(world.ended().unwrap(), (Some(7), expected()));
}

/// A disk from which files go as the next one is made. Counts those. It may be read-only.
#[derive(Clone)]
struct Leaky {
    disk: SimDisk,
    read_only: bool,
    /// How often it was to be written to nevertheless.
    refused: Arc<AtomicUsize>,
    goes: Arc<std::sync::Mutex<Vec<PathBuf>>>,
    created: Arc<AtomicUsize>,
}

impl Leaky {
    fn new(disk: &SimDisk) -> Self {
        Self {
            disk: disk.clone(),
            read_only: false,
            refused: Arc::default(),
            goes: Arc::default(),
            created: Arc::default(),
        }
    }

    fn to_write(&self) -> std::io::Result<&dyn thalweg::disk::FileStore> {
        if self.read_only {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(&self.disk)
    }
}

impl thalweg::disk::FileStore for Leaky {
    fn make_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.to_write()?.make_dir(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<String>> {
        thalweg::disk::FileStore::list(&self.disk, dir)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        thalweg::disk::FileStore::read(&self.disk, path)
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn thalweg::disk::FileReader>> {
        thalweg::disk::FileStore::open(&self.disk, path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn thalweg::disk::FileWriter>> {
        for file in self.goes.lock().unwrap().drain(..) {
            thalweg::disk::FileStore::remove(&self.disk, &file)?;
        }
        let file = self.to_write()?.create(path)?;
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(file)
    }
    fn publish(&self, path: &Path, contents: &[u8]) -> std::io::Result<bool> {
        self.to_write()?.publish(path, contents)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.to_write()?.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.to_write()?.sync_dir(dir)
    }
}

/// The files of a checkpoint that are no other's of those that are kept, and those that others share with it.
fn files_of(world: &World, epoch: u64) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    let of = |epoch: Epoch| -> BTreeSet<PathBuf> {
        let manifest = store.manifest(epoch).unwrap();
        manifest
            .segments()
            .map(|segment| Path::new(DIR).join(&segment.file))
            .collect()
    };
    let others = store
        .epochs()
        .unwrap()
        .into_iter()
        .filter(|other| other.0 != epoch);
    let others: BTreeSet<PathBuf> = others.flat_map(of).collect();
    of(Epoch(epoch))
        .into_iter()
        .partition(|file| !others.contains(file))
}

/// A file that checkpoints share goes while the service runs: none that rests on it counts, older ones stay,
/// and all is well once it is back.
#[test]
fn what_rests_on_a_file_that_went_is_no_checkpoint() {
    let world = World::begun();
    let (own, _) = files_of(&world, 7);
    let victim = own[0].clone();
    let bytes = world.disk.bytes(&victim).unwrap();
    let leaky = Leaky::new(&world.disk);
    leaky.goes.lock().unwrap().push(victim.clone());
    let service = world.start(&flow(), Arc::new(leaky), 9..=10, &[9], 2).unwrap();
    assert_eq!(service.restored(), Some(Epoch(7)));
    service.join().unwrap();
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    assert_eq!(
        store.epochs().unwrap(),
        [Epoch(5), Epoch(7)],
        "that of 9 would not be whole"
    );
    world.disk.put(&victim, bytes);
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&flow(), disk, 11..=EPOCHS, &[], 1).unwrap();
    assert_eq!(service.restored(), Some(Epoch(7)));
    assert_eq!(rows(&service.join().unwrap()), expected());
}

/// However few are to be kept: one that is damaged is none of them.
#[test]
fn a_damaged_checkpoint_takes_nobodys_place() {
    let mut world = World::begun();
    let (own, _) = files_of(&world, 7);
    world.disk.flip(&own[0], 300, None).unwrap();
    world.keep = Some(1);
    for workers in [2, 1] {
        let disk = Arc::new(world.disk.clone());
        #[allow(clippy::reversed_empty_ranges)]
        let service = world.start(&flow(), disk, 9..=8, &[], workers).unwrap();
        assert_eq!(service.restored(), Some(Epoch(5)));
        service.join().unwrap();
    }
    // A new one that is whole takes it.
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&flow(), disk, 9..=EPOCHS, &[10], 3).unwrap();
    assert_eq!(rows(&service.join().unwrap()), expected());
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    assert_eq!(store.epochs().unwrap(), [Epoch(10)]);
    // So it is where nothing was started meanwhile.
    let world = World::begun();
    let (own, _) = files_of(&world, 7);
    world.disk.flip(&own[0], 300, None).unwrap();
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    assert_eq!(
        store
            .examine()
            .unwrap()
            .iter()
            .filter(|(_, whole)| whole.is_ok())
            .count(),
        1
    );
    store.prune(1, &BTreeSet::new()).unwrap();
    assert!(store.epochs().unwrap().contains(&Epoch(5)));
    assert_eq!(world.ended().unwrap(), (Some(5), expected()));
}

/// What is refused changes nothing for whoever makes checkpoints there.
#[test]
fn a_start_that_is_refused_leaves_the_place_to_its_owner() {
    let world = World::begun();
    let before = world.files();
    let other = World {
        disk: world.disk.clone(),
        ..World::default()
    };
    for _ in 0..5 {
        other.ended().unwrap_err();
    }
    assert_eq!(world.files(), before);
}

/// A value that serde writes in a way that only names in the data could undo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Gappy {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: u64,
}

#[test]
fn a_type_that_could_not_be_loaded_again_is_refused_at_the_start() {
    let world = World::default();
    let gappy = dataflow("lucky", |flow: Dataflow| {
        let _names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let numbers = Kafka::topic("o")
            .json::<u64>()
            .event_time(|n| EventTime(*n as i64));
        let gappy = flow
            .source("numbers", numbers)
            .map(|second| Gappy { first: None, second });
        gappy
            .changes()
            .group_by("second", |row| row.second)
            .aggregate("counted", |a| a.count())
            .view("names_view");
    });
    let disk = Arc::new(world.disk.clone());
    let refused = world
        .start(&gappy, disk, 1..=4, &[3], 1)
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("changes map(numbers)") && refused.contains("field `first` of `Gappy`"),
        "{refused}"
    );
    assert!(!world.files().iter().any(|name| name.starts_with("checkpoint-")));
}

/// Checkpoints that are gone but for parts are not taken for none: a start says so, and what it says to do is
/// the way on.
#[test]
fn parts_of_checkpoints_are_refused() {
    let world = World::begun();
    for name in world.files().iter().filter(|name| name.ends_with(".json")) {
        world.disk.remove(&Path::new(DIR).join(name)).unwrap();
    }
    let refused = world.ended().unwrap_err();
    assert!(refused.to_string().contains("but no catalogue"), "{refused}");
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    store.prune(0, &BTreeSet::new()).unwrap();
    assert_eq!(world.ended().unwrap(), (None, expected()));
}

/// The power goes in the midst of the very first checkpoint: there are files of it, and nothing was ever
/// published.
#[test]
fn a_crash_in_the_first_checkpoint_leaves_a_place_to_start_from() {
    let world = World::begun();
    for name in world
        .files()
        .iter()
        .filter(|name| name.starts_with("checkpoint-"))
    {
        world.disk.remove(&Path::new(DIR).join(name)).unwrap();
    }
    assert!(world.files().iter().any(|name| name.ends_with(".segment")));
    for seed in 0..10 {
        let world = world.copy();
        world.disk.crash(seed);
        assert_eq!(world.ended().unwrap(), (None, expected()));
    }
}

#[test]
fn a_ledger_that_lost_what_a_checkpoint_holds_is_refused() {
    let world = World::begun();
    let other = World {
        disk: world.disk.clone(),
        ..World::default()
    };
    let refused = other.ended().unwrap_err();
    assert_eq!(refused.kind(), Kind::Integrity);
    assert!(
        refused.to_string().contains("epoch that is not in the ledger"),
        "{refused}"
    );
    // One that has the epoch, and another history before it.
    let other = World {
        disk: world.copy().disk,
        ..World::default()
    };
    let nowhere = Arc::new(SimDisk::new());
    let service = other.start(&flow(), nowhere, 2..=8, &[], 1).unwrap();
    service.join().unwrap();
    let refused = other.ended().unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("does not belong to this ledger's history"),
        "{refused}"
    );
}

#[test]
fn another_plan_is_refused_with_what_differs() {
    let world = World::begun();
    let other = dataflow("lucky", |flow: Dataflow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let numbers = Kafka::topic("o").json::<u64>();
        let numbers = numbers.event_time(|n| EventTime(*n as i64));
        flow.source("numbers", numbers)
            .key_by("digit", |n| n % 7)
            .window("tens", Tumbling::of(Duration::from_micros(20)))
            .aggregate(|a| (a.count(), a.max(|n| *n)))
            .view_with("tens_view", |view| view.fields(["n", "greatest"]));
        names
            .map(|_, name| (name, name))
            .view_with("names_view", |view| view.fields(["a", "b"]));
    });
    let disk = Arc::new(world.disk.clone());
    let refused = world.start(&other, disk, 9..=EPOCHS, &[], 1).err().unwrap();
    assert_eq!(refused.kind(), Kind::Definition);
    let refused = refused.to_string();
    for said in [
        "window tens, tumbling 20us is new",
        "window tens, tumbling 30us is gone",
        "view named_view is gone",
        "view names_view: the state was option<u64>, is option<tuple<u64, u64>>",
        "checkpoint.on_new_plan=rebuild",
    ] {
        assert!(refused.contains(said), "no `{said}` in {refused}");
    }
    // Made anew from the topics it is what it would have been.
    let mut world = world.copy();
    world.on_new_plan = Some(OnNewProgram::Rebuild);
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&other, disk, 9..=EPOCHS, &[], 2).unwrap();
    assert_eq!(service.restored(), None);
    let rebuilt = service.join().unwrap();
    let fresh = World::default();
    let disk = Arc::new(fresh.disk.clone());
    let service = fresh.start(&other, disk, 1..=EPOCHS, &[], 1).unwrap();
    assert_eq!(rows(&rebuilt), rows(&service.join().unwrap()));
}

#[test]
fn another_build_goes_on_is_refused_or_makes_all_anew_as_one_says() {
    let (world, expected) = (World::begun(), expected());
    let store = CheckpointStore::new(Arc::new(world.disk.clone()), Path::new(DIR));
    let mut manifest = store.manifest(Epoch(7)).unwrap();
    manifest.build = "thalweg 0.0.1 (of last week)".into();
    let path = Path::new(DIR).join("checkpoint-00000000000000000007.json");
    world.disk.put(&path, manifest.to_bytes().unwrap());
    let ended = |what| {
        let world = World {
            on_new_build: Some(what),
            ..world.copy()
        };
        world.ended()
    };
    assert_eq!(ended(OnNewProgram::Accept).unwrap(), (Some(7), expected.clone()));
    assert_eq!(ended(OnNewProgram::Rebuild).unwrap(), (None, expected));
    let refused = ended(OnNewProgram::Refuse).unwrap_err();
    assert_eq!(refused.kind(), Kind::Definition);
    for said in ["of last week", "checkpoint.on_new_build=accept", "=rebuild"] {
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[test]
fn checkpoints_of_another_dataflow_are_refused() {
    let world = World::begun();
    let disk = Arc::new(world.disk.clone());
    let other = World::default();
    let refused = other
        .start(&dataflow("other", build), disk, 1..=EPOCHS, &[], 1)
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("belong to another dataflow"),
        "{refused}"
    );
}
