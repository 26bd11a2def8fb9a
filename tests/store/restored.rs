//! From a bucket as from a directory: on any number of workers, past what is damaged, and with one winner of
//! every race.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use thalweg::Epoch;
use thalweg::checkpoint::owner::Owner;

use crate::model::checkpoints::{EPOCHS, Rows, World, expected, flow};
use crate::support::s3::Bucket;

/// A world whose checkpoints are under a prefix of its own.
fn world(prefix: &str) -> World {
    World {
        prefix: Some(PathBuf::from(format!("s3://thalweg/restored/{prefix}"))),
        ..World::default()
    }
}

/// Up to the eighth epoch, each time by a process that knows nothing of what is in the bucket.
fn begin(world: &World, bucket: &Bucket, scratch: &Path) {
    for (epochs, due, workers) in [(1..=3, 3, 2), (4..=5, 5, 1), (6..=8, 7, 3)] {
        let service = world.start(&flow(), bucket.files(scratch), epochs, &[due], workers);
        service.unwrap().join().unwrap();
    }
}

/// The rest, from which epoch on, and what came of it. The ledger is left as it was.
fn end(
    world: &World,
    bucket: &Bucket,
    scratch: &Path,
    workers: usize,
) -> thalweg::Result<(Option<u64>, Rows)> {
    let copy = World {
        log: world.log.copy(),
        prefix: world.prefix.clone(),
        ..World::default()
    };
    let service = copy.start(&flow(), bucket.files(scratch), 9..=EPOCHS, &[], workers)?;
    let restored = service.restored().map(|epoch| epoch.0);
    service
        .join()
        .map(|views| (restored, crate::model::checkpoints::rows(&views)))
}

#[test]
fn a_bucket_is_gone_on_from_on_any_number_of_workers() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let world = world("workers");
    begin(&world, bucket, scratch.path());
    for workers in 1..=3 {
        let ended = end(&world, bucket, scratch.path(), workers).unwrap();
        assert_eq!(ended, (Some(7), expected()), "on {workers} workers");
    }
    assert_eq!(
        fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "scratch files have no names"
    );
}

#[test]
fn damaged_and_missing_objects_are_passed_over() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let (world, expected) = (world("damaged"), expected());
    begin(&world, bucket, scratch.path());
    let store = world.store(bucket.files(scratch.path()));
    let newest = store.manifest(Epoch(7)).unwrap();
    let first = newest.segments().next().unwrap().file.clone();
    let folder = bucket.folder(&store.dir);
    for name in [
        first.as_str(),
        "checkpoint-00000000000000000007.json",
        "catalogue.json",
    ] {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        let counts = name != "catalogue.json";
        let damages: [(&str, &dyn Fn()); 4] = [
            ("with a flipped bit", &|| {
                let mut bytes = bytes.clone();
                let at = bytes.len() / 2;
                bytes[at] ^= 4;
                fs::write(&path, bytes).unwrap();
            }),
            ("cut short", &|| {
                fs::write(&path, &bytes[..bytes.len() - 1]).unwrap()
            }),
            ("emptied", &|| fs::write(&path, b"").unwrap()),
            ("missing", &|| fs::remove_file(&path).unwrap()),
        ];
        for (how, damage) in damages {
            damage();
            // Keeps of the bucket what it was: the run removes what no manifest names.
            let before = copy_of(&folder);
            let (restored, rows) = end(&world, bucket, scratch.path(), 2).unwrap();
            assert_eq!(restored == Some(7), !counts, "{name} {how}: {restored:?}");
            assert_eq!(rows, expected, "{name} {how}");
            put_back(&folder, &before);
            fs::write(&path, &bytes).unwrap();
        }
    }
}

/// Files by their names.
type Copy = Vec<(PathBuf, Vec<u8>)>;

fn copy_of(folder: &Path) -> Copy {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn put_back(folder: &Path, copy: &Copy) {
    for (path, _) in copy_of(folder) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn parts_of_checkpoints_in_a_bucket_are_refused() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let world = world("parts");
    begin(&world, bucket, scratch.path());
    let store = world.store(bucket.files(scratch.path()));
    for name in store.files.list(&store.dir).unwrap() {
        if name.ends_with(".json") {
            store.files.remove(&store.dir.join(name)).unwrap();
        }
    }
    let refused = end(&world, bucket, scratch.path(), 1).unwrap_err();
    assert!(refused.to_string().contains("but no catalogue"), "{refused}");
    store.prune(0, &BTreeSet::new()).unwrap();
    assert_eq!(
        end(&world, bucket, scratch.path(), 1).unwrap(),
        (None, expected())
    );
}

#[test]
fn another_dataflow_is_refused_the_prefix() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let world = world("mine");
    begin(&world, bucket, scratch.path());
    let store = world.store(bucket.files(scratch.path()));
    let refused = store.newest("", "other", None).unwrap_err();
    assert!(
        refused.to_string().contains("belong to another dataflow"),
        "{refused}"
    );
    assert!(store.claim("", "other").is_err());
    let before = store.files.list(&store.dir).unwrap();
    assert!(store.take_over("", "other", &Owner::default()).is_err());
    assert_eq!(store.files.list(&store.dir).unwrap(), before);
}

/// Two processes that both believe to be the one: of each epoch one of them publishes, and the other one is
/// told.
#[test]
fn one_of_two_writers_publishes_an_epoch() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    for round in 0..30 {
        let path = PathBuf::from(format!("s3://thalweg/race/checkpoint-{round}.json"));
        let publish = |n: u8| {
            let (files, path): (_, &Path) = (bucket.files(scratch.path()), &path);
            move || files.publish(path, &[n; 1000]).unwrap()
        };
        let wins = std::thread::scope(|scope| {
            let threads = [1, 2].map(|n| scope.spawn(publish(n)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(wins[0] != wins[1], "round {round}: {wins:?}");
        let there = bucket.files(scratch.path()).read(&path).unwrap();
        assert_eq!(there, [if wins[0] { 1 } else { 2 }; 1000]);
    }
}

#[test]
fn what_is_no_longer_kept_leaves_the_bucket() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let world = world("pruned");
    begin(&world, bucket, scratch.path());
    let store = world.store(bucket.files(scratch.path()));
    assert_eq!(store.epochs().unwrap(), [Epoch(5), Epoch(7)], "two are kept");
    let objects = || -> BTreeSet<String> {
        store
            .files
            .list(&store.dir)
            .unwrap()
            .into_iter()
            .filter(|name| !name.starts_with("owner-"))
            .collect()
    };
    store.prune(1, &BTreeSet::new()).unwrap();
    let manifest = store.manifest(Epoch(7)).unwrap();
    let mut named: BTreeSet<String> = manifest.segments().map(|segment| segment.file.clone()).collect();
    named.extend([
        "checkpoint-00000000000000000007.json".into(),
        "catalogue.json".into(),
    ]);
    assert_eq!(objects(), named);
    store.verify(&manifest).unwrap();
    store.prune(0, &BTreeSet::new()).unwrap();
    assert_eq!(objects(), ["catalogue.json".into()].into());
}

/// Larger than one part: put together from several, and nothing of it is seen before.
#[test]
fn large_objects_come_back_as_they_were() {
    let (bucket, scratch) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let (files, other) = (bucket.files(scratch.path()), bucket.files(scratch.path()));
    let path = Path::new("s3://thalweg/large/file");
    let piece: Vec<u8> = (0..1 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut file = files.create(path).unwrap();
    for _ in 0..21 {
        file.append(&piece).unwrap();
    }
    assert_eq!(other.list(Path::new("s3://thalweg/large")).unwrap(), [""; 0]);
    file.finish().unwrap();
    let reader = other.open(path).unwrap();
    let mut found = vec![0; 22 << 20];
    assert_eq!(reader.read_at(0, &mut found).unwrap(), 21 << 20);
    assert!(found.chunks(1 << 20).take(21).all(|chunk| *chunk == *piece));
    let again = files.create(path).and_then(|mut file| {
        (0..9).try_for_each(|_| file.append(&piece))?;
        file.finish()
    });
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
}
