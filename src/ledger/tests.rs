//! The ledger as a whole: what was acknowledged comes back, what was damaged is noticed, and one process owns
//! it.

use std::io;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::Kind;
use crate::disk::sim::SimDisk;
use crate::position::{PartitionId, PartitionRange, SchemaSeen, SourceId, TopicId};
use crate::time::EventTime;

const SOURCE: SourceId = SourceId(0x5eed);

fn dir() -> &'static Path {
    Path::new("/ledger")
}

fn file() -> PathBuf {
    dir().join(FILE_NAME)
}

fn claim() -> Claim {
    let (app, dataflow, build) = ("shop".into(), "spend".into(), "1.4.0".into());
    Claim {
        app,
        dataflow,
        build,
        sources: vec![(SOURCE, "payments".into())],
    }
}

mod progress;
mod trimmed;

/// Up to where a ledger is trimmed, and the bindings that count in what is left.
pub(crate) fn counted(disk: &dyn Disk, dir: &Path) -> Result<(Option<Epoch>, Vec<EpochBinding>)> {
    let (_, _, mut reader) = open_file(disk, dir, false)?;
    let (mut trimmed, mut bindings) = (None, Vec::new());
    while let Some(frame) = reader.next_frame()? {
        match frame {
            Frame::Base(base) => trimmed = base.state.last(),
            Frame::Group(counted) => {
                bindings.extend(counted.bindings.into_iter().map(|(binding, _)| binding))
            }
            _ => {}
        }
    }
    Ok((trimmed, bindings))
}

fn open<D: Disk + Clone + 'static>(disk: &D) -> Result<(Ledger, Recovered)> {
    Ledger::open_on(disk, dir(), claim())
}

fn contents(recovered: Recovered) -> Result<Vec<EpochBinding>> {
    recovered.bindings.collect()
}

/// Bindings that link, `steps` says how far the partitions of each move; none: an epoch without ranges.
fn linked(steps: &[Vec<u16>]) -> Vec<EpochBinding> {
    let mut hi = [0i64; 8];
    let epochs = steps.iter().enumerate().map(|(n, moves)| {
        let now = EventTime(1_000_000 + 5_000 * n as i64);
        let ranges = moves.iter().take(8).enumerate().map(|(partition, records)| {
            let lo = hi[partition];
            hi[partition] += i64::from(*records);
            let id = PartitionId {
                source: SOURCE,
                partition: partition as u32,
            };
            let records = u64::from(*records);
            let hash = records.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let idle = records == 0;
            PartitionRange {
                id,
                lo,
                hi: hi[partition],
                records,
                hash,
                compacted: false,
                event_time_max: now,
                limit: now,
                idle,
            }
        });
        EpochBinding {
            epoch: Epoch(now.0 as u64),
            now,
            ranges: ranges.collect(),
            watermarks: vec![(SOURCE, now)],
            idle: if n % 3 == 0 {
                vec![(SOURCE, n % 2 == 0)]
            } else {
                vec![]
            },
            results: None,
            topics: if n == 0 {
                vec![(SOURCE, TopicId([7; 16]))]
            } else {
                vec![]
            },
            schemas: vec![SchemaSeen {
                source: SOURCE,
                id: n as u32,
                fingerprint: Some(n as u64),
                since: None,
            }],
        }
    });
    epochs.collect()
}

fn simple(n: usize) -> Vec<EpochBinding> {
    linked(&vec![vec![3, 4]; n])
}

/// Epochs that name nothing: every one of them links on, so only the chain ties them together.
fn bare(epochs: impl IntoIterator<Item = u64>) -> Vec<EpochBinding> {
    let bare = |epoch| EpochBinding {
        epoch: Epoch(epoch),
        now: EventTime(epoch as i64),
        ranges: vec![],
        watermarks: vec![],
        idle: vec![],
        topics: vec![],
        schemas: vec![],
        results: None,
    };
    epochs.into_iter().map(bare).collect()
}

fn steps() -> impl Strategy<Value = Vec<Vec<u16>>> {
    prop::collection::vec(prop::collection::vec(0u16..500, 0..6), 1..40)
}

/// A disk with one file.
fn disk_with(bytes: Vec<u8>) -> SimDisk {
    let disk = SimDisk::new();
    disk.put(&file(), bytes);
    disk
}

/// A ledger with a claim and one group of each binding; the bytes and where each group ends.
fn written(groups: &[EpochBinding]) -> (Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk).unwrap();
    let mut ends = vec![ledger.len_bytes() as usize];
    for binding in groups {
        ledger.append(std::slice::from_ref(binding)).unwrap();
        ends.push(ledger.len_bytes() as usize);
    }
    (disk.bytes(&file()).unwrap(), ends)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_appended_comes_back(steps in steps(), group in 1usize..9, reopen in 1usize..5) {
        let host = tempfile::tempdir().unwrap();
        let all = linked(&steps);
        let mut expected = LedgerState::default();
        all.iter().for_each(|binding| expected.apply(binding).unwrap());
        let memory = MemoryLog::default();
        let (mut ledger, _) = Ledger::open(host.path(), claim()).unwrap();
        let (mut other, _) = MemoryLedger::open(&memory, claim()).unwrap();
        let mut opened = 1;
        for (n, group) in all.chunks(group).enumerate() {
            ledger.append(group).unwrap();
            other.append(group).unwrap();
            if n % reopen == 0 {
                drop(ledger);
                let (next, recovered) = Ledger::open(host.path(), claim()).unwrap();
                opened += 1;
                prop_assert_eq!(recovered.generation, opened);
                prop_assert_eq!(recovered.last, group.last().map(|b| b.epoch));
                ledger = next;
            }
        }
        drop(ledger);
        let (ledger, recovered) = Ledger::open(host.path(), claim()).unwrap();
        prop_assert!(recovered.notes.is_empty());
        prop_assert_eq!(&recovered.state, &expected);
        prop_assert_eq!(contents(recovered).unwrap(), all.clone());
        prop_assert_eq!(memory.bindings(), all.clone());
        let report = verify(host.path()).unwrap();
        prop_assert_eq!((report.bindings, report.claims), (all.len() as u64, opened + 1));
        prop_assert_eq!(report.chain, ledger.chain_hash());
    }

    /// Loss of power at any moment keeps every group that was acknowledged and may keep the one that was not.
    #[test]
    fn loss_of_power_loses_nothing_acknowledged(steps in steps(), group in 1usize..9, seed in any::<u64>()) {
        let disk = SimDisk::new();
        let all = linked(&steps);
        let mut acknowledged = 0;
        for (n, group) in all.chunks(group).enumerate() {
            let (mut ledger, recovered) = open(&disk).unwrap();
            let found = contents(recovered).unwrap();
            prop_assert!(found.len() >= acknowledged && found[..] == all[..found.len()]);
            acknowledged = found.len();
            let group = &all[acknowledged..all.len().min(acknowledged + group.len())];
            // The flush never returns: the group is written, and acknowledged to nobody.
            disk.set_sync_fails(n % 3 == 0);
            match ledger.append(group) {
                Ok(()) => acknowledged += group.len(),
                Err(error) => prop_assert_eq!(error.kind(), Kind::External),
            }
            disk.set_sync_fails(false);
            disk.crash(seed.wrapping_add(n as u64));
        }
        let (_, recovered) = open(&disk).unwrap();
        let found = contents(recovered).unwrap();
        prop_assert!(found.len() >= acknowledged && found[..] == all[..found.len()]);
        prop_assert_eq!(verify_on(&disk, dir()).unwrap().bindings, found.len() as u64);
    }

    /// A disk that fills up at any byte: what was acknowledged is there once there is room again, and it goes
    /// on.
    #[test]
    fn a_full_disk_reopens_cleanly(steps in steps(), space in 0usize..4000) {
        let disk = SimDisk::new();
        let all = linked(&steps);
        disk.set_space_left(Some(space));
        let mut acknowledged = 0;
        let failed = match open(&disk) {
            Err(error) => error,
            Ok((mut ledger, _)) => loop {
                let Some(binding) = all.get(acknowledged) else { return Ok(()) };
                match ledger.append(std::slice::from_ref(binding)) {
                    Ok(()) => acknowledged += 1,
                    Err(error) => {
                        prop_assert!(ledger.append(&[]).is_err(), "a ledger that failed stays stopped");
                        break error;
                    }
                }
            },
        };
        prop_assert_eq!(failed.kind(), Kind::External);
        let failed = failed.to_string();
        prop_assert!(failed.contains("/ledger/ledger.log") && failed.contains("free space"));
        // A supervisor starts it again and again while now and then a few bytes are free.
        for scrap in [0, 7, 40, 90] {
            disk.set_space_left(Some(scrap));
            prop_assert_eq!(open(&disk).unwrap_err().kind(), Kind::External);
        }
        disk.set_space_left(None);
        let (mut ledger, recovered) = open(&disk).unwrap();
        prop_assert_eq!(contents(recovered).unwrap(), all[..acknowledged].to_vec());
        ledger.append(&all[acknowledged..]).unwrap();
        drop(ledger);
        prop_assert_eq!(contents(open(&disk).unwrap().1).unwrap(), all);
    }
}

#[test]
fn no_generation_is_given_twice_even_over_a_loss_of_power() {
    let disk = SimDisk::new();
    for generation in 1..20 {
        assert_eq!(open(&disk).unwrap().1.generation, generation);
        disk.crash(generation);
    }
}

#[test]
fn cut_short_at_every_byte_a_prefix_is_left() {
    let all = simple(6);
    let (bytes, ends) = written(&all);
    for len in ends[0]..bytes.len() {
        let whole = ends.iter().filter(|end| **end <= len).count() - 1;
        let disk = disk_with(bytes[..len].to_vec());
        let torn = !ends.contains(&len);
        assert_eq!(verify_on(&disk, dir()).unwrap().bytes_torn > 0, torn, "{len}");
        let (mut ledger, recovered) = open(&disk).unwrap_or_else(|error| panic!("cut at {len}: {error}"));
        assert_eq!(
            !recovered.notes.is_empty(),
            torn,
            "cut at {len}: {:?}",
            recovered.notes
        );
        assert_eq!(contents(recovered).unwrap(), all[..whole], "cut at {len}");
        ledger.append(&all[whole..]).unwrap();
        drop(ledger);
        let (_, recovered) = open(&disk).unwrap();
        assert!(
            recovered.notes.is_empty(),
            "a cut is said once: {:?}",
            recovered.notes
        );
        assert_eq!(contents(recovered).unwrap(), all);
        assert_eq!(verify_on(&disk, dir()).unwrap().cuts, u64::from(torn));
    }
}

#[test]
fn no_flipped_bit_ever_changes_a_binding() {
    let all = simple(4);
    // A ledger with everything in it: a torn piece that a claim has cut, a void claim, late bindings.
    let (bytes, ends) = written(&all[..2]);
    let disk = disk_with(bytes[..ends[2] - 20].to_vec());
    let torn = ends[1]..ends[2] - 20;
    let (mut late, _) = open(&disk).unwrap();
    let (mut ledger, _) = open(&disk).unwrap();
    assert!(late.append(&all[1..2]).is_err());
    ledger.append(&all[1..3]).unwrap();
    let (mut second, _) = open(&disk).unwrap();
    second.append(&all[3..]).unwrap();
    let report = verify_on(&disk, dir()).unwrap();
    assert_eq!((report.bindings, report.bindings_late, report.cuts), (4, 1, 1));
    let bytes = disk.bytes(&file()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let disk = disk_with(flipped);
        match open(&disk) {
            Ok((_, recovered)) => {
                assert!(
                    torn.contains(&(bit / 8)),
                    "bit {bit} of {} went unnoticed",
                    bytes.len() * 8
                );
                assert_eq!(contents(recovered).unwrap(), all);
            }
            Err(error) => {
                let start = bit / 8 < 12;
                assert!(error.kind() == Kind::Integrity || start, "bit {bit}: {error}");
                assert!(
                    error.to_string().contains("ledger.log") && error.to_string().contains("hint: "),
                    "{error}"
                );
                assert_eq!(verify_on(&disk, dir()).unwrap_err().what(), error.what());
            }
        }
    }
}

/// A claim behind a damaged group, whole or torn, does not pass the group off as torn, wherever the sectors
/// fall.
#[test]
fn damage_in_the_last_group_shows_behind_a_claim_too() {
    for groups in 1..9 {
        let (bytes, ends) = written(&simple(groups));
        let disk = disk_with(bytes.clone());
        drop(open(&disk).unwrap());
        let claim = disk.bytes(&file()).unwrap().split_off(bytes.len());
        for bit in ends[groups - 1] * 8..ends[groups] * 8 {
            for scraps in [&[0u8; 700][..], &[0xd7, b'L', b'E'], &claim, &claim[..20]] {
                let mut damaged = [&bytes, scraps].concat();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let error = open(&disk_with(damaged)).expect_err("an acknowledged group was cut");
                assert_eq!(error.kind(), Kind::Integrity);
            }
        }
        let disk = disk_with([&bytes, &[0; 700][..]].concat());
        assert_eq!(contents(open(&disk).unwrap().1).unwrap(), simple(groups));
    }
}

/// Whoever flips bits with care can make checksums right again; the chain still shows it, even at one
/// record's end.
#[test]
fn a_removed_moved_or_foreign_record_breaks_the_chain() {
    let (bytes, ends) = written(&bare([10, 20, 30]));
    let group = |n: usize| &bytes[ends[n]..ends[n + 1]];
    let broken = |parts: &[&[u8]], what: &str| {
        let disk = disk_with([&bytes[..ends[0]], &parts.concat()].concat());
        let error = open(&disk).expect_err(what).to_string();
        assert!(error.contains("hash chain"), "{what}: {error}");
        assert!(verify_on(&disk, dir()).is_err(), "{what}");
    };
    broken(&[group(1), group(2)], "the first removed");
    broken(&[group(0), group(2)], "the second removed");
    broken(&[group(1), group(0), group(2)], "two exchanged");
    broken(&[group(0), group(0)], "one doubled");
    let (other, other_ends) = written(&bare([10, 20, 31]));
    broken(
        &[group(0), group(1), &other[other_ends[2]..]],
        "from another ledger",
    );
    // The last group before a claim: the claim says what it has seen.
    let disk = disk_with(bytes.clone());
    drop(open(&disk).unwrap());
    let with_claim = disk.bytes(&file()).unwrap();
    let claim = &with_claim[bytes.len()..];
    let error = open(&disk_with([&bytes[..ends[2]], claim].concat())).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "the last removed before a claim");
}

#[test]
fn damage_names_place_and_way_on() {
    let (mut bytes, ends) = written(&simple(3));
    bytes[ends[1] + 40] ^= 4;
    let text = open(&disk_with(bytes)).unwrap_err().to_string();
    let epoch = format!("after epoch {}", simple(1)[0].epoch);
    for part in [
        "/ledger/ledger.log",
        &format!("at byte {}", ends[1]),
        "binding 2",
        &epoch,
        "hint: nothing was changed",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// A disk that does something just before a file's first append: when an opener has read, and not yet
/// claimed.
#[derive(Clone)]
struct Hooked(SimDisk, Arc<dyn Fn() + Send + Sync>);

struct HookedFile(Arc<dyn DiskFile>, Arc<dyn Fn() + Send + Sync>, std::sync::Once);

impl Disk for Hooked {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.make_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        self.0.publish(path, contents)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HookedFile(
            self.0.open(path, writable)?,
            self.1.clone(),
            std::sync::Once::new(),
        )))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.0.lock(path)
    }
}

impl DiskFile for HookedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        self.2.call_once(|| (self.1)());
        self.0.append(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn of_several_starters_exactly_one_wins() {
    for torn in [false, true] {
        let disk = SimDisk::new();
        if torn {
            let (bytes, ends) = written(&simple(2));
            disk.put(&file(), bytes[..ends[2] - 9].to_vec());
        }
        let barrier = Barrier::new(4);
        let together = Hooked(
            disk.clone(),
            Arc::new(move || {
                barrier.wait();
            }),
        );
        let start = || {
            std::thread::spawn({
                let disk = together.clone();
                move || open(&disk)
            })
        };
        let starters: Vec<_> = (0..4).map(|_| start()).collect();
        let (won, lost): (Vec<_>, Vec<_>) = starters
            .into_iter()
            .map(|starter| starter.join().unwrap())
            .partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 3));
        for error in lost.into_iter().filter_map(Result::err) {
            assert!(
                error.to_string().contains("another process holds the ledger"),
                "{error}"
            );
        }
        let (mut ledger, recovered) = won.into_iter().next().unwrap().unwrap();
        assert_eq!(recovered.generation, if torn { 2 } else { 1 });
        let found = contents(recovered).unwrap();
        ledger.append(&simple(5)[found.len()..]).unwrap();
        assert_eq!(contents(open(&disk).unwrap().1).unwrap(), simple(5));
        assert_eq!(verify_on(&disk, dir()).unwrap().claims_void, 3);
    }
}

#[test]
fn a_replaced_owner_stops_and_its_late_bindings_do_not_count() {
    let disk = SimDisk::new();
    let all = simple(6);
    let (mut old, _) = open(&disk).unwrap();
    old.append(&all[..2]).unwrap();
    let (mut new, recovered) = open(&disk).unwrap();
    assert_eq!(contents(recovered).unwrap(), all[..2]);
    let error = old.append(&all[2..3]).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(
        error.to_string().contains("taken over") && error.to_string().contains("generation 2"),
        "{error}"
    );
    assert!(old.append(&all[3..4]).is_err(), "it stays stopped");
    new.append(&all[2..4]).unwrap();
    new.append(&all[4..]).unwrap();
    drop(new);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(contents(recovered).unwrap(), all);
    assert_eq!(verify_on(&disk, dir()).unwrap().bindings_late, 1);
}

#[test]
fn a_starter_counts_what_was_appended_after_it_read() {
    for torn in [false, true] {
        let disk = SimDisk::new();
        let all = simple(5);
        let (mut old, _) = open(&disk).unwrap();
        old.append(&all[..1]).unwrap();
        let (old, groups, room) = (parking_lot::Mutex::new(old), all[1..3].to_vec(), disk.clone());
        let appends = move || {
            old.lock().append(&groups[..1]).unwrap();
            if torn {
                room.set_space_left(Some(30));
                assert!(old.lock().append(&groups[1..]).is_err());
                room.set_space_left(None);
            }
        };
        let (mut new, recovered) = open(&Hooked(disk.clone(), Arc::new(appends))).unwrap();
        assert_eq!(recovered.notes.len(), usize::from(torn));
        assert_eq!(
            contents(recovered).unwrap(),
            all[..2],
            "the group was acknowledged before the claim"
        );
        new.append(&all[2..]).unwrap();
        drop(new);
        assert_eq!(contents(open(&disk).unwrap().1).unwrap(), all);
    }
}

#[test]
fn a_binding_that_does_not_link_is_not_written() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk).unwrap();
    let before = disk.bytes(&file()).unwrap();
    let mut all = simple(2);
    all[1].ranges[0].lo += 1;
    assert_eq!(ledger.append(&all).unwrap_err().kind(), Kind::Integrity);
    assert_eq!(disk.bytes(&file()).unwrap(), before);
}

#[test]
fn directories_that_are_not_ours_are_refused() {
    let host = tempfile::tempdir().unwrap();
    let refused = |path: &Path, claim: Claim| Ledger::open(path, claim).unwrap_err();
    std::fs::write(host.path().join("photo.jpg"), b"x").unwrap();
    let error = refused(host.path(), claim());
    assert_eq!(error.kind(), Kind::Definition);
    assert!(error.to_string().contains("photo.jpg"), "{error}");

    let path = host.path().join("a/b");
    let (held, _) = Ledger::open(&path, claim()).unwrap();
    let error = refused(&path, claim());
    assert!(
        error
            .to_string()
            .contains(&format!("process id is {}", std::process::id())),
        "{error}"
    );
    drop(held);
    let error = refused(
        &path,
        Claim {
            dataflow: "fraud".into(),
            ..claim()
        },
    );
    assert!(
        error.to_string().contains("`spend`") && error.to_string().contains("`fraud`"),
        "{error}"
    );

    std::fs::write(path.join(FILE_NAME), b"something else altogether").unwrap();
    assert_eq!(refused(&path, claim()).kind(), Kind::Definition);
    std::fs::write(path.join(FILE_NAME), b"").unwrap();
    assert_eq!(refused(&path, claim()).kind(), Kind::Integrity);
}

#[test]
fn a_ledger_that_is_removed_under_its_owner_stops_it() {
    let host = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(host.path(), claim()).unwrap();
    std::fs::remove_file(host.path().join(FILE_NAME)).unwrap();
    assert!(
        ledger
            .append(&simple(1))
            .unwrap_err()
            .to_string()
            .contains("removed while it was in use")
    );
}

#[test]
fn records_of_later_builds_are_named() {
    let disk = SimDisk::new();
    let (ledger, _) = open(&disk).unwrap();
    let mut bytes = disk.bytes(&file()).unwrap();
    let mut reserved = claim_frame(ledger.cursor.claim.as_ref().unwrap());
    reserved[16] = 9;
    let crc = crc32c::crc32c(&reserved[16..]);
    reserved[8..12].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&reserved[..12]);
    reserved[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.extend(reserved);
    let text = open(&disk_with(bytes)).unwrap_err().to_string();
    assert!(
        text.contains("kind 9 (unknown), written by generation 1 (build 1.4.0"),
        "{text}"
    );
}

#[test]
fn show_speaks_of_sources_by_name() {
    let host = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(host.path(), claim()).unwrap();
    let all = simple(3);
    ledger.append(&all).unwrap();
    let lines: Vec<_> = show(host.path(), all[1].epoch..all[2].epoch)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(lines[0], "ledger of app `shop`, dataflow `spend`");
    assert!(
        lines[1].starts_with("claim  generation 1 (build 1.4.0, claimed 20"),
        "{}",
        lines[1]
    );
    let expected = [
        "epoch  1005000  1970-01-01T00:00:01.005Z  7 records",
        "         payments/0  [3, 6)  3 records  event time up to 1970-01-01T00:00:01.005Z",
        "         payments/1  [4, 8)  4 records  event time up to 1970-01-01T00:00:01.005Z",
        "         payments  watermark 1970-01-01T00:00:01.005Z",
        "         payments  schema 1: 0000000000000001",
    ];
    assert_eq!(lines[2..], expected);
    let report = verify(host.path()).unwrap().to_string();
    assert!(report.contains("generation  1, 1 claim, 0 void"), "{report}");
    assert!(report.contains("epochs      3, 21 records, 0 late"), "{report}");
}

#[test]
fn memory_ledger_is_taken_over_too() {
    let log = MemoryLog::default();
    let (mut old, _) = MemoryLedger::open(&log, claim()).unwrap();
    old.append(&simple(2)).unwrap();
    let (mut new, mut recovered) = MemoryLedger::open(&log, claim()).unwrap();
    assert_eq!(
        (recovered.generation, recovered.last),
        (2, Some(simple(2)[1].epoch))
    );
    assert_eq!(recovered.bindings.by_ref().count(), 2);
    assert_eq!(recovered.bindings.chain_hash(), Some(new.chain_hash()));
    assert!(old.append(&simple(3)[2..]).is_err());
    new.append(&simple(3)[2..]).unwrap();
    assert_eq!(log.bindings(), simple(3));
}

/// What was written and never flushed reads as intact until the power goes: in the midst of the start that
/// read it.
#[test]
fn a_claim_does_not_outlive_what_it_builds_on() {
    let all = simple(3);
    for (seed, calls) in (0..200).flat_map(|seed| (1..=4).map(move |calls| (seed, calls))) {
        let disk = SimDisk::new();
        let (mut ledger, _) = open(&disk).unwrap();
        ledger.append(&all[..2]).unwrap();
        disk.set_sync_fails(true);
        assert!(ledger.append(&all[2..]).is_err());
        disk.set_sync_fails(false);
        disk.set_calls_left(calls);
        let _cut_short = open(&disk);
        disk.crash(seed);
        let (_, recovered) =
            open(&disk).unwrap_or_else(|error| panic!("seed {seed}, {calls} calls: {error}"));
        let left = contents(recovered).unwrap();
        assert!(
            left == all || left == all[..2],
            "seed {seed}, {calls} calls: {left:?}"
        );
    }
}
