//! Files in a store in memory, held against a model, as those of disks are; and what a real client makes of a
//! server's answers.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use proptest::prelude::*;

use super::{BucketAccess, ObjectFiles};
use crate::disk::sim::SimDisk;
use crate::disk::{FileStore, HostDisk, StoreFault};

const ROOT: &str = "s3://bucket";
const DIR: &str = "s3://bucket/a/b";
/// Nobody comes back in these tests.
const RETRY: Duration = Duration::from_millis(300);
/// So that files of some bytes are uploaded in parts.
const PART: usize = 7;

fn scratch() -> PathBuf {
    std::env::temp_dir()
}

fn objects(store: &Arc<InMemory>, keeps: bool) -> ObjectFiles {
    ObjectFiles::with_parts_of(PART, store.clone(), ROOT, &scratch(), keeps).unwrap()
}

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

#[derive(Clone, Debug)]
enum Act {
    /// Pieces, and whether it is finished.
    Write(u8, Vec<Vec<u8>>, bool),
    Publish(u8, Vec<u8>),
    Remove(u8),
    Read(u8),
    ReadAt(u8, u64, usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let name = || 0u8..4;
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let act = prop_oneof![
        4 => (name(), prop::collection::vec(bytes(20), 0..5), any::<bool>()).prop_map(|(n, p, f)| Act::Write(n, p, f)),
        2 => (name(), bytes(12)).prop_map(|(n, b)| Act::Publish(n, b)),
        1 => name().prop_map(Act::Remove),
        1 => name().prop_map(Act::Read),
        3 => (name(), 0u64..60, 0usize..40).prop_map(|(n, at, len)| Act::ReadAt(n, at, len)),
    ];
    prop::collection::vec(act, 0..30)
}

/// Does it all, and holds what comes of it against a map. `halves`: files that were not finished may be there
/// in part, as on disks; else they are not to be seen.
fn agrees(files: &dyn FileStore, dir: &Path, acts: &[Act], halves: bool) {
    let mut model: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for act in acts {
        let name = match act {
            Act::Write(n, ..) | Act::Publish(n, _) | Act::Remove(n) | Act::Read(n) | Act::ReadAt(n, ..) => {
                format!("file-{n}")
            }
        };
        let path = dir.join(&name);
        let there = model.get(&name).cloned();
        match act {
            Act::Write(_, pieces, finished) => {
                let bytes = pieces.concat();
                let written = files.create(&path).and_then(|mut file| {
                    pieces.iter().try_for_each(|piece| file.append(piece))?;
                    if *finished { file.finish() } else { Ok(()) }
                });
                match there {
                    None if *finished => {
                        written.unwrap();
                        model.insert(name, Some(bytes));
                    }
                    None if halves => _ = model.insert(name, None),
                    None => written.unwrap(),
                    // An object may find it out at the end; the very same may be its own, whose answer was
                    // lost.
                    Some(was) if *finished => match written {
                        Ok(()) => assert_eq!(was, Some(bytes)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
                    },
                    Some(_) => {}
                }
            }
            Act::Publish(_, bytes) => {
                let new = files.publish(&path, bytes).unwrap();
                match there {
                    None => {
                        assert!(new);
                        model.insert(name, Some(bytes.clone()));
                    }
                    // What is there with the same bytes may be one's own.
                    Some(was) => assert!(!new || was.as_ref() == Some(bytes)),
                }
            }
            Act::Remove(_) => {
                files.remove(&path).unwrap();
                model.remove(&name);
            }
            Act::Read(_) => match there {
                Some(Some(bytes)) => assert_eq!(files.read(&path).unwrap(), bytes),
                Some(None) => {}
                None => assert_eq!(files.read(&path).unwrap_err().kind(), ErrorKind::NotFound),
            },
            Act::ReadAt(_, at, len) => match there {
                Some(Some(bytes)) => {
                    let mut buffer = vec![0; *len];
                    let n = files.open(&path).unwrap().read_at(*at, &mut buffer).unwrap();
                    let rest = bytes.get(*at as usize..).unwrap_or(&[]);
                    assert_eq!(&buffer[..n], &rest[..rest.len().min(*len)]);
                }
                Some(None) => {}
                None => assert_eq!(files.open(&path).err().unwrap().kind(), ErrorKind::NotFound),
            },
        }
        assert_eq!(
            files.list(dir).unwrap(),
            model.keys().cloned().collect::<Vec<_>>()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn objects_are_what_files_are(acts in acts(), keeps in any::<bool>()) {
        let store = Arc::new(InMemory::new());
        agrees(&objects(&store, keeps), Path::new(DIR), &acts, false);
    }

    #[test]
    fn files_of_disks_are_what_checkpoints_want(acts in acts()) {
        let dir = tempfile::tempdir().unwrap();
        agrees(&HostDisk, dir.path(), &acts, true);
        agrees(&SimDisk::new(), Path::new("/a"), &acts, true);
    }
}

fn write(files: &ObjectFiles, name: &str, bytes: &[u8]) {
    let mut file = files.create(&at(name)).unwrap();
    bytes.chunks(5).for_each(|piece| file.append(piece).unwrap());
    file.finish().unwrap();
}

#[test]
fn nothing_is_seen_of_a_file_before_it_is_finished() {
    let store = Arc::new(InMemory::new());
    let (writer, reader) = (objects(&store, true), objects(&store, false));
    for bytes in [0, 1, PART - 1, PART, PART + 1, 10 * PART, 10 * PART + 3] {
        let bytes: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
        let path = at(&format!("{}", bytes.len()));
        let mut file = writer.create(&path).unwrap();
        for piece in bytes.chunks(3) {
            file.append(piece).unwrap();
            assert_eq!(reader.read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        }
        file.finish().unwrap();
        assert_eq!(reader.read(&path).unwrap(), bytes);
        let mut all = vec![0; bytes.len() + 1];
        assert_eq!(
            reader.open(&path).unwrap().read_at(0, &mut all).unwrap(),
            bytes.len()
        );
        assert_eq!(all[..bytes.len()], bytes);
    }
}

/// By the counter: what is written is not fetched to be read again, and what is fetched is fetched once,
/// however it is read.
#[test]
fn every_byte_goes_over_the_network_once_each_way() {
    let store = Arc::new(InMemory::new());
    let files = objects(&store, true);
    let bytes: Vec<u8> = (0..10 * PART).map(|n| n as u8).collect();
    let count = |files: &ObjectFiles, act: &dyn Fn()| {
        let before = files.requests();
        act();
        files.requests() - before
    };
    assert_eq!(
        count(&files, &|| write(&files, "small", &bytes[..PART])),
        1,
        "a put"
    );
    // A look whether it is there with the begin of the upload, ten parts, the end.
    assert_eq!(count(&files, &|| write(&files, "large", &bytes)), 12);
    let jumps = |files: &ObjectFiles| {
        for _ in 0..2 {
            let file = files.open(&at("large")).unwrap();
            for from in (0..bytes.len()).rev() {
                let mut buffer = [0; 3];
                let n = file.read_at(from as u64, &mut buffer).unwrap();
                assert_eq!(buffer[..n], bytes[from..(from + 3).min(bytes.len())]);
            }
        }
    };
    assert_eq!(count(&files, &|| jumps(&files)), 0);
    let other = objects(&store, true);
    assert_eq!(count(&other, &|| jumps(&other)), 10, "ranges");
    files.remove(&at("large")).unwrap();
    assert_eq!(
        files.open(&at("large")).err().unwrap().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn one_of_many_writers_publishes() {
    let store = Arc::new(InMemory::new());
    let wins: usize = std::thread::scope(|scope| {
        let race = |n: u8| {
            let files = objects(&store, false);
            scope.spawn(move || usize::from(files.publish(&at("manifest"), &[n]).unwrap()))
        };
        let threads: Vec<_> = (0..8).map(race).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn what_is_not_in_the_bucket_is_no_key_of_it() {
    let files = objects(&Arc::new(InMemory::new()), false);
    for path in ["s3://bucket2/a", "/a", "s3://other/a"] {
        assert_eq!(
            files.read(Path::new(path)).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path}"
        );
    }
}

/// An object that another process damaged is read as it is: it is for whoever knows its hash to see that.
#[test]
fn what_another_changed_is_seen_by_whoever_has_not_read_it() {
    let store = Arc::new(InMemory::new());
    write(&objects(&store, true), "x", b"0123456789");
    let put = |bytes: &'static [u8]| {
        let (store, key) = (store.clone(), Key::from("a/b/x"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move { store.put(&key, bytes.into()).await.unwrap() });
    };
    put(b"012");
    assert_eq!(objects(&store, true).read(&at("x")).unwrap(), b"012");
    put(b"");
    let mut buffer = [0; 4];
    assert_eq!(
        objects(&store, true)
            .open(&at("x"))
            .unwrap()
            .read_at(0, &mut buffer)
            .unwrap(),
        0
    );
}

/// A server that gives every request the same answer.
fn answering(status: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: \
            close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 8192];
            let _read = stream.read(&mut head);
            let _written = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

/// The trouble that a listing ends in.
fn trouble(endpoint: String) -> StoreFault {
    let access = BucketAccess {
        endpoint: Some(endpoint),
        region: None,
    };
    let files = with_login(&access);
    let error = files.list(Path::new(DIR)).unwrap_err();
    assert_ne!(
        error.kind(),
        ErrorKind::NotFound,
        "it is not to be taken for an empty directory"
    );
    StoreFault::of(&error)
        .unwrap_or_else(|| panic!("{error}"))
        .clone()
}

/// Credentials come from the environment, which threads of a test share: so they are in the address of
/// nobody, and given here.
fn with_login(access: &BucketAccess) -> ObjectFiles {
    let builder = object_store::aws::AmazonS3Builder::new()
        .with_access_key_id("nobody")
        .with_secret_access_key("a secret");
    ObjectFiles::s3_by(builder, "bucket", access, RETRY, &scratch(), false).unwrap()
}

#[test]
fn what_a_store_says_is_told_with_what_to_do() {
    let error = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message></Error>")
    };
    for (status, code, what, hint) in [
        (
            "403 Forbidden",
            "InvalidAccessKeyId",
            "does not accept the credentials (InvalidAccessKeyId: so it is)",
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            "does not accept the credentials",
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            "400 Bad Request",
            "ExpiredToken",
            "does not accept the credentials",
            "AWS_SESSION_TOKEN",
        ),
        (
            "403 Forbidden",
            "AccessDenied",
            "access to `s3://bucket` is denied",
            "s3:PutObject",
        ),
        (
            "404 Not Found",
            "NoSuchBucket",
            "there is no bucket `s3://bucket`",
            "checkpoint.store",
        ),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "is in another region",
            "checkpoint.region",
        ),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            "is in another region",
            "AWS_REGION",
        ),
        ("403 Forbidden", "RequestTimeTooSkewed", "the clocks of", "clock"),
        (
            "405 Method Not Allowed",
            "MethodNotAllowed",
            "refused the request (MethodNotAllowed: so it is)",
            "retried",
        ),
    ] {
        let trouble = trouble(answering(status, &error(code)));
        assert!(
            trouble.what.contains(what) && trouble.hint.contains(hint),
            "{code}: {trouble:?}"
        );
        assert!(!trouble.what.contains("a secret"), "{trouble:?}");
    }
    // A 404 that says no more than that.
    assert!(
        trouble(answering("404 Not Found", ""))
            .what
            .contains("there is no bucket")
    );
}

#[test]
fn a_store_that_is_not_there_is_told_of() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in [format!("http://{free}"), "http://no-such-host.invalid".to_owned()] {
        let trouble = trouble(endpoint);
        assert!(
            trouble.what.contains("does not answer") && trouble.hint.contains("checkpoint.endpoint"),
            "{trouble:?}"
        );
    }
}
