//! Segments, merges, and the bookkeeping of what changed, against models that keep everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::entry::{Entry, bucket_of, decode, encode};
use super::identity::{Expression, StateIdentity, StateKind};
use super::manifest::RetentionBounds;
use super::manifest::{
    Base, Catalogue, EntryRule, FORMAT, Lineage, Manifest, SegmentFile, StepFiles, StepSignature,
};
use super::merge::SegmentMerge;
use super::owner::Owner;
use super::segment::{Chunk, SegmentReader, SegmentWriter, verify};
use super::store::{CheckpointStore, RestoredCheckpoint};
use crate::disk::sim::SimDisk;
use crate::position::EpochBinding;
use crate::time::{Epoch, EventTime};

const DIR: &str = "/c";

fn store() -> CheckpointStore {
    CheckpointStore::new(Arc::new(SimDisk::new()), Path::new(DIR))
}

/// What one segment says of a key: at an epoch, until when, and the value.
type Said = (u8, u64, Option<i64>, Option<i64>);

fn bytes<T: crate::Event>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    out
}

fn write(
    store: &CheckpointStore,
    name: &str,
    epoch: u64,
    said: &[Said],
    removals_apart: bool,
) -> SegmentFile {
    let mut writer = SegmentWriter::create(&*store.files, &Path::new(DIR).join(name)).unwrap();
    for (key, at, until, value) in said {
        let key = bytes(key);
        let value = value.as_ref().map(bytes);
        let mut chunk = Chunk {
            bucket: bucket_of(&key),
            removals: removals_apart && value.is_none(),
            bytes: Vec::new(),
        };
        let entry = Entry {
            key: &key,
            epoch: Epoch(*at),
            until: until.map(EventTime),
            value: value.as_deref(),
        };
        entry.write(&mut chunk.bytes);
        writer.chunk(&chunk, 1).unwrap();
    }
    writer.finish(Epoch(epoch)).unwrap()
}

pub(super) fn shape(rule: EntryRule) -> StepSignature {
    StepSignature {
        identity: StateIdentity::new(StateKind::Table, "step"),
        step: "step".into(),
        from: vec!["step".into()],
        input: Expression::Step("step".into()),
        definitions: BTreeMap::new(),
        version: 1,
        key: "u8".into(),
        value: "i64".into(),
        rule,
    }
}

fn manifest(rule: EntryRule, segments: Vec<SegmentFile>, bounds: RetentionBounds) -> Manifest {
    let nothing = EpochBinding {
        epoch: Epoch(9),
        now: EventTime(9),
        ranges: vec![],
        watermarks: vec![],
        idle: vec![],
        topics: vec![],
        schemas: vec![],
        results: None,
    };
    Manifest {
        format: FORMAT,
        app: "shop".into(),
        dataflow: "spend".into(),
        epoch: Epoch(9),
        generation: 1,
        chain: String::new(),
        build: String::new(),
        lineage: Lineage::default(),
        made_us: 0,
        buckets: ("xxh3".into(), super::BUCKETS),
        from: None,
        at: Base {
            binding: nothing,
            sets: vec![],
        },
        steps: vec![StepFiles {
            shape: shape(rule),
            cut: bounds.cut,
            floor: bounds.floor,
            segments,
        }],
    }
}

/// What a step would load: of each key all that is said, in order.
fn loaded(store: &CheckpointStore, manifest: Manifest) -> BTreeMap<u8, Vec<(u64, Option<i64>)>> {
    let mut all: BTreeMap<u8, Vec<_>> = BTreeMap::new();
    let restored = RestoredCheckpoint::new(store.clone(), manifest, vec![Some(0)]);
    let mut see = |entry: Entry<'_>| {
        let value = entry.value.map(decode::<i64>).transpose()?;
        all.entry(decode(entry.key)?)
            .or_default()
            .push((entry.epoch.0, value));
        Ok(())
    };
    restored.each(0, &mut see).unwrap();
    all
}

/// What of that a state or a view is made of.
fn meant(
    rule: EntryRule,
    floor: u64,
    all: BTreeMap<u8, Vec<(u64, Option<i64>)>>,
) -> BTreeMap<u8, BTreeMap<u64, Option<i64>>> {
    let mean = |said: Vec<(u64, Option<i64>)>| match rule {
        EntryRule::Last => said
            .last()
            .filter(|(_, value)| value.is_some())
            .map(|(_, value)| (0, *value))
            .into_iter()
            .collect(),
        EntryRule::Sum => {
            let sum = said.iter().filter_map(|(_, value)| *value).sum();
            BTreeMap::from_iter((sum != 0).then_some((0, Some(sum))))
        }
        EntryRule::Versions => {
            let all: BTreeMap<u64, Option<i64>> = said.into_iter().collect();
            let at = all.range(..=floor).next_back().map(|(at, _)| *at).unwrap_or(0);
            let kept: BTreeMap<_, _> = all.range(at..).map(|(at, value)| (*at, *value)).collect();
            // Nothing at the floor is the same as nothing said.
            match kept.first_key_value() {
                Some((first, None)) if *first <= floor => kept.into_iter().skip(1).collect(),
                _ => kept,
            }
        }
    };
    let all = all.into_iter().map(|(key, said)| (key, mean(said)));
    all.filter(|(_, meant)| !meant.is_empty()).collect()
}

fn said(epochs: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Said>> {
    let value = prop_oneof![2 => (-3i64..4).prop_map(Some), 1 => Just(None)];
    prop::collection::btree_map((0u8..6, epochs), value, 0..12).prop_map(|all| {
        all.into_iter()
            .map(|((key, at), value)| (key, at, None, value))
            .collect()
    })
}

proptest! {
    #[test]
    fn a_merge_changes_nothing_that_is_meant(
        first in said(1..4), second in said(4..7), third in said(7..10),
        rule in prop_oneof![Just(EntryRule::Last), Just(EntryRule::Versions), Just(EntryRule::Sum)],
        floor in 0u64..10, later in any::<bool>(),
    ) {
        let store = store();
        // Of a key that stands once in a segment, as state has one value; versions are several.
        let once = |mut said: Vec<Said>| {
            if rule != EntryRule::Versions {
                said.dedup_by_key(|(key, ..)| *key);
            }
            if rule == EntryRule::Sum {
                said.retain(|(.., value)| value.is_some());
            }
            said
        };
        let apart = rule == EntryRule::Last;
        let segments: Vec<SegmentFile> = (0u64..).zip([first, second, third])
            .map(|(n, said)| write(&store, &format!("{n}.segment"), 3 * n + 3, &once(said), apart))
            .collect();
        let bounds = RetentionBounds { floor: Epoch(floor), ..RetentionBounds::default() };
        let at = usize::from(later);
        let merge = SegmentMerge {
            store: &store, older: &segments[at], newer: &segments[at + 1], is_first: at == 0, rule, bounds,
        };
        let merged = merge.run("merged.segment", &|| true).unwrap().unwrap();
        verify(&*store.files, Path::new(DIR), &merged).unwrap();
        let mut shorter = segments.clone();
        shorter.splice(at..at + 2, [merged]);
        let mean = |segments| meant(rule, floor, loaded(&store, manifest(rule, segments, bounds)));
        prop_assert_eq!(mean(shorter), mean(segments));
    }
}

#[test]
fn what_has_passed_is_not_loaded_and_does_not_survive_a_merge() {
    let store = store();
    let said = |key, until| (key, 1, Some(until), Some(7));
    let older = write(&store, "0.segment", 3, &[said(1, 10), said(2, 20)], true);
    let newer = write(&store, "1.segment", 6, &[said(3, 20), said(4, 30)], true);
    let bounds = RetentionBounds {
        cut: EventTime(20),
        ..RetentionBounds::default()
    };
    let both = vec![older.clone(), newer.clone()];
    let left = BTreeMap::from([(4, vec![(1, Some(7))])]);
    assert_eq!(loaded(&store, manifest(EntryRule::Last, both, bounds)), left);
    let merge = SegmentMerge {
        store: &store,
        older: &older,
        newer: &newer,
        is_first: true,
        rule: EntryRule::Last,
        bounds,
    };
    let merged = merge.run("2.segment", &|| true).unwrap().unwrap();
    assert_eq!(merged.entries, 1);
}

#[test]
fn a_removal_comes_before_what_its_segment_says_besides() {
    let store = store();
    let segment = write(
        &store,
        "0.segment",
        3,
        &[(1, 2, None, Some(5)), (1, 3, None, None)],
        true,
    );
    let all = loaded(
        &store,
        manifest(EntryRule::Last, vec![segment], RetentionBounds::default()),
    );
    assert_eq!(all[&1], [(3, None), (2, Some(5))]);
}

#[test]
fn manifests_come_back_and_damage_to_them_shows() {
    let manifest = manifest(EntryRule::Versions, Vec::new(), RetentionBounds::default());
    let bytes = manifest.to_bytes().unwrap();
    assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
    assert!(
        Manifest::from_bytes(&bytes[..bytes.len() - 1]).is_err(),
        "cut short"
    );
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Manifest::from_bytes(&damaged).is_err(), "byte {at}");
    }
    let of = |format| Manifest {
        format,
        ..manifest.clone()
    };
    let error = Manifest::from_bytes(&of(FORMAT + 1).to_bytes().unwrap()).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Definition);
}

/// Sealed as a build of the format before wrote it: names of steps were text there.
fn of_format_3(line: &str) -> Vec<u8> {
    let hash = blake3::hash(line.as_bytes());
    format!("{line}\n{}\n", hash.to_hex()).into_bytes()
}

#[test]
fn a_checkpoint_of_the_format_before_is_refused_and_told_what_to_do_about() {
    let store = store();
    let catalogue = of_format_3(r#"{"format":3,"app":"shop","dataflow":"spend"}"#);
    let manifest = of_format_3(
        r#"{"format":3,"app":"shop","dataflow":"spend","epoch":7,"generation":1,"chain":"","build":"1","lineage":{"program":0,"state":0},"made_us":0,"buckets":["xxh3",256],"from":null,"at":{"binding":{},"sets":[]},"steps":[{"shape":{"name":"window spend, tumbling 1m","step":"spend","from":["payments","spend"],"input":"spend","definitions":{"spend":"window(payments)"},"version":1,"key":"u32","value":"i64","rule":"Last"},"cut":0,"floor":0,"segments":[]}]}"#,
    );
    for (name, bytes) in [
        (Catalogue::FILE_NAME, &catalogue),
        (&Manifest::file_name(Epoch(7)), &manifest),
    ] {
        let path = Path::new(DIR).join(name);
        store.files.publish(&path, bytes).unwrap();
    }
    let error = store.newest("shop", "spend", None).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Definition);
    let error = error.to_string();
    for said in [
        "checkpoint has format version 3",
        "this build reads version 4",
        "checkpoint-00000000000000000007.json",
        "run the build that wrote it",
        "checkpoint prune DIR --keep 0 --yes",
    ] {
        assert!(error.contains(said), "no `{said}` in {error}");
    }
    // The place is still known to be somebody's, and free once they have let go.
    let other = store.newest("bank", "spend", None).unwrap_err().to_string();
    assert!(other.contains("belong to another dataflow"), "{other}");
    store.prune(0, &BTreeSet::new()).unwrap();
    assert_eq!(store.newest("shop", "spend", None).unwrap(), (None, vec![]));
    store.claim("shop", "spend").unwrap();
}

#[test]
fn only_whole_checkpoints_of_this_dataflow_are_found_and_old_ones_go() {
    let store = store();
    let at = |epoch: u64| {
        let segment = write(
            &store,
            &CheckpointStore::segment_name(Epoch(epoch), 0, 0),
            epoch,
            &[(1, epoch, None, Some(1))],
            true,
        );
        Manifest {
            epoch: Epoch(epoch),
            ..manifest(EntryRule::Last, vec![segment], RetentionBounds::default())
        }
    };
    for epoch in [3, 5, 7] {
        store.publish(&at(epoch)).unwrap();
    }
    assert!(store.publish(&at(8)).is_ok() && store.publish(&manifest_of(&store, 8)).is_err());
    let newest = |app: &str| {
        store
            .newest(app, "spend", None)
            .map(|(found, _)| found.map(|m| m.epoch.0))
    };
    assert_eq!(newest("shop").unwrap(), Some(8));
    assert_eq!(newest("bank").unwrap_err().kind(), crate::Kind::Definition);
    let gone = store.prune(2, &Default::default()).unwrap();
    assert_eq!(gone.len(), 4, "{gone:?}");
    // A prune that is cut short leaves no manifest without its files.
    let is_manifest = |name: &String| Manifest::epoch_of(name).is_some();
    assert!(
        gone.is_sorted_by_key(|name| !is_manifest(name)) && is_manifest(&gone[1]),
        "{gone:?}"
    );
    assert_eq!(store.epochs().unwrap(), [Epoch(7), Epoch(8)]);
    store
        .files
        .remove(&Path::new(DIR).join(CheckpointStore::segment_name(Epoch(8), 0, 0)))
        .unwrap();
    let (found, notes) = store.newest("shop", "spend", None).unwrap();
    assert_eq!(found.map(|m| m.epoch.0), Some(7));
    assert!(notes.len() == 1 && notes[0].contains("missing"), "{notes:?}");
}

/// Bit by bit: a reader that does not know the file's hash takes no other file for it.
#[test]
fn a_bit_anywhere_in_a_segment_is_told_by_reading_it() {
    let disk = SimDisk::new();
    let store = CheckpointStore::new(Arc::new(disk.clone()), Path::new(DIR));
    let said = [
        (1, 3, None, Some(10)),
        (2, 3, Some(9), Some(20)),
        (3, 2, None, None),
    ];
    let segment = write(&store, "a.segment", 3, &said, true);
    let path = Path::new(DIR).join("a.segment");
    let read = || {
        let reader = SegmentReader::open(&*store.files, Path::new(DIR), &segment)?;
        reader.chunks(None, |_| Ok(()))
    };
    read().unwrap();
    for bit in 0..8 * disk.bytes(&path).unwrap().len() {
        let file = disk.flip(&path, bit, None).unwrap();
        assert_eq!(read().unwrap_err().kind(), crate::Kind::Integrity, "bit {bit}");
        disk.flip(&path, bit, Some(file));
    }
}

/// Who comes later has the place; but one that was stopped, and goes on, does not take it from its successor.
#[test]
fn a_place_has_one_owner() {
    let owner = |ledger, generation, nonce| Owner {
        ledger,
        generation,
        nonce,
    };
    let (first, second) = (owner(1, 1, 7), owner(1, 2, 8));
    let (copied, another) = (owner(1, 2, 9), owner(2, 1, 7));
    let store = store();
    let holds = |owner: &Owner| store.is_held_by(owner).is_ok();
    let take = |owner: &Owner| store.take_over("shop", "spend", owner);
    take(&first).unwrap();
    assert!(holds(&first) && holds(&second), "it may take over");
    take(&second).unwrap();
    assert!(!holds(&first) && holds(&second));
    let refused = take(&first).unwrap_err().to_string();
    assert!(refused.contains("another process has taken over"), "{refused}");
    // A copy of the ledger was started, and then another ledger: after a reset, say.
    for (before, next) in [(second, copied), (copied, another), (another, first)] {
        assert!(!holds(&next));
        take(&next).unwrap();
        assert!(holds(&next) && !holds(&before));
    }
    let names = store.names().unwrap();
    assert_eq!(names, [first.file_name()]);
}

/// A place that is not empty, and of which nothing says what it is.
#[test]
fn files_without_a_catalogue_are_refused() {
    let store = store();
    assert!(store.newest("shop", "spend", None).unwrap().0.is_none(), "empty");
    let segment = |epoch| {
        let name = CheckpointStore::segment_name(Epoch(epoch), 0, 0);
        write(&store, &name, epoch, &[(1, epoch, None, Some(1))], true)
    };
    let path = Path::new(DIR).join("catalogue.json");
    let lost = segment(3);
    let refused = store.newest("shop", "spend", None).unwrap_err();
    assert_eq!(refused.kind(), crate::Kind::Integrity);
    for part in [
        "but no catalogue",
        "1 file, such as `00000000000000000003-000.segment`",
        "prune DIR --keep 0 --yes",
    ] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    // What the hint says is the way on.
    assert_eq!(store.prune(0, &Default::default()).unwrap(), [lost.file]);
    assert!(store.newest("shop", "spend", None).is_ok());

    // A crash before the first manifest leaves as much, and a catalogue.
    store.claim("shop", "spend").unwrap();
    segment(5);
    assert!(store.newest("shop", "spend", None).unwrap().0.is_none());
    let refused = store.newest("bank", "spend", None).unwrap_err();
    assert!(
        refused.to_string().contains("belong to another dataflow"),
        "{refused}"
    );
    assert_eq!(
        store.claim("bank", "spend").unwrap_err().kind(),
        crate::Kind::Definition
    );
    store.claim("shop", "spend").unwrap();

    // Damaged it says nothing, and holds nobody up; it is made again.
    let files = &store.files;
    let mut bytes = files.read(&path).unwrap();
    bytes[3] ^= 1;
    files.remove(&path).unwrap();
    files.publish(&path, &bytes).unwrap();
    let (found, notes) = store.newest("shop", "spend", None).unwrap();
    assert!(
        found.is_none() && notes.len() == 1 && notes[0].contains("catalogue"),
        "{notes:?}"
    );
    let published = Manifest {
        epoch: Epoch(7),
        ..manifest(EntryRule::Last, vec![segment(7)], RetentionBounds::default())
    };
    store.publish(&published).unwrap();
    let (found, notes) = store.newest("shop", "spend", None).unwrap();
    assert!(
        found.is_some() && notes.len() == 1 && notes[0].contains("catalogue"),
        "{notes:?}"
    );
    store.claim("shop", "spend").unwrap();
    assert_eq!(store.newest("shop", "spend", None).unwrap().1, [""; 0]);
}

fn manifest_of(store: &CheckpointStore, epoch: u64) -> Manifest {
    store.manifest(Epoch(epoch)).unwrap()
}
