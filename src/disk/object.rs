//! Files in a bucket of an object store: each is an object, published atomically.
//!
//! ```text
//!   create, append ─▶ scratch file ─┬─ 8 MiB, 8 MiB, … ─▶ parts of an upload ─┐
//!                                   │                                         ▼
//!   finish ─────────────────────────┴─ no more than 8 MiB: one conditional put, else the upload is completed
//!   open   ─▶ scratch file, filled by ranges of 8 MiB, four at a time ─▶ read_at
//!   publish ─▶ conditional put: one of several writers wins
//! ```
//!
//! Scratch files have no name, so they disappear with the process. A file that was written or read stays in
//! scratch until its object is removed: merging what was written before, or loading what was verified,
//! requests nothing from the store. So every byte crosses the network once in each direction, whatever the
//! order of reads.
//!
//! Paths are full URLs: `s3://bucket/prefix/name`. Calls block, and may come from any thread; a small runtime
//! does the waiting. Failed requests are retried for [`RETRY_MAX`]; what fails after that is reported as a
//! [`StoreFault`](super::StoreFault).
//!
//! A crash during an upload leaves its parts in the bucket, invisible but billed. Stores remove them by a
//! lifecycle rule (`AbortIncompleteMultipartUpload`); from outside it is impossible to tell whose they are.

mod diagnosis;
mod scratch;
mod upload;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::scratch::Scratch;
use self::upload::Upload;
use super::{FileReader, FileStore, FileWriter};

/// Size of an upload's parts, and of ranges to fetch. S3 requires at least 5 MiB.
const PART: usize = 8 << 20;
/// Maximum number of parts or ranges in flight.
const PARTS_MAX: usize = 4;
/// How long a failed request is retried.
pub const RETRY_MAX: Duration = Duration::from_secs(10);
/// Maximum time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Maximum time of a request. A part of 8 MiB gets through at 3 Mbit/s.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How often a conditional put is retried while the store reports a concurrent one.
const PUTS_MAX: usize = 5;

/// Files in a bucket. Clones share it.
#[derive(Clone)]
pub struct ObjectFiles(Arc<ObjectClient>);

struct ObjectClient {
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket`: the prefix of every key.
    root: String,
    scratch: PathBuf,
    keeps: bool,
    /// Size of an upload's parts, and of ranges.
    part: usize,
    copies: Mutex<HashMap<PathBuf, ObjectInfo>>,
    requests: AtomicU64,
    parts: Arc<Semaphore>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What this process knows of an object. Objects never change.
#[derive(Clone)]
enum ObjectInfo {
    Small(Bytes),
    Whole(Arc<Scratch>),
}

/// The location of a bucket, as far as the environment does not define it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketAccess {
    /// The endpoint of a store other than Amazon's: `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
}

impl ObjectFiles {
    /// A bucket accessed by S3's protocol. Credentials come from the environment: `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, the role of the machine, and whatever other `AWS_…` variables the crate
    /// `object_store` knows. Sends no request yet.
    ///
    /// # Errors
    /// If the environment is inconsistent: a key without its secret, for example.
    pub fn s3(bucket: &str, access: &BucketAccess, scratch: &Path, keeps: bool) -> io::Result<Self> {
        let builder = AmazonS3Builder::from_env();
        Self::s3_by(builder, bucket, access, RETRY_MAX, scratch, keeps)
    }

    fn s3_by(
        builder: AmazonS3Builder,
        bucket: &str,
        access: &BucketAccess,
        retry_max: Duration,
        scratch: &Path,
        keeps: bool,
    ) -> io::Result<Self> {
        let mut builder = builder.with_bucket_name(bucket).with_disable_bulk_delete(true);
        let mut options = ClientOptions::new()
            .with_connect_timeout(CONNECT_MAX)
            .with_timeout(REQUEST_MAX);
        if let Some(region) = &access.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let known = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
        let endpoint = known.iter().find_map(|key| builder.get_config_value(key));
        // Who writes http:// means it; without an endpoint it is Amazon's, by https.
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            options = options.with_allow_http(true);
        }
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 20,
            retry_timeout: retry_max,
        };
        let root = format!("s3://{bucket}");
        let store = builder.with_client_options(options).with_retry(retry).build();
        let store = store.map_err(|error| diagnosis::tell(&error, &root))?;
        Self::new(Arc::new(store), &root, scratch, keeps)
    }

    /// Objects of any store. `root` is the prefix of paths; scratch files are created in the directory
    /// `scratch`, and with `keeps` they stay as long as their objects exist.
    pub fn new(store: Arc<dyn ObjectStore>, root: &str, scratch: &Path, keeps: bool) -> io::Result<Self> {
        Self::with_parts_of(PART, store, root, scratch, keeps)
    }

    fn with_parts_of(
        part: usize,
        store: Arc<dyn ObjectStore>,
        root: &str,
        scratch: &Path,
        keeps: bool,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("objects")
            .enable_all()
            .build()?;
        Ok(Self(Arc::new(ObjectClient {
            store,
            root: root.to_owned(),
            scratch: scratch.to_owned(),
            keeps,
            part,
            copies: Mutex::default(),
            requests: AtomicU64::new(0),
            parts: Arc::new(Semaphore::new(PARTS_MAX)),
            runtime: Some(runtime),
        })))
    }

    /// Number of requests, without the client's own retries.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Downloads an object to a scratch file.
    fn fetch(&self, path: &Path) -> io::Result<Scratch> {
        let (key, part) = (self.0.key(path)?, self.0.part);
        let scratch = Scratch::new(&self.0.scratch)?;
        let ask = |from| range(self.0.store.clone(), key.clone(), from, part as u64);
        let (len, first) = self.0.wait(ask(0))?;
        scratch.write_at(0, &first)?;
        let mut rest = (first.len() as u64..len).step_by(part);
        let mut asked = std::collections::VecDeque::new();
        loop {
            while asked.len() < PARTS_MAX
                && let Some(from) = rest.next()
            {
                asked.push_back((from, self.0.ask(ask(from))));
            }
            let Some((from, told)) = asked.pop_front() else {
                break;
            };
            let (_, bytes) = self.0.told(told)?;
            if bytes.len() as u64 != (len - from).min(part as u64) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the store gave less than was asked for",
                ));
            }
            scratch.write_at(from, &bytes)?;
        }
        Ok(scratch)
    }
}

type Reply<T> = std::sync::mpsc::Receiver<Result<T, Error>>;

impl ObjectClient {
    /// The key of a path, which begins with the root.
    fn key(&self, path: &Path) -> io::Result<Key> {
        let text = path.to_str().and_then(|text| text.strip_prefix(&self.root));
        let text = text.filter(|key| key.is_empty() || key.starts_with('/'));
        let foreign = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it is not in `{}`", self.root),
            )
        };
        Key::parse(text.ok_or_else(foreign)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
    }

    /// Sends a request; [`told`](Self::told) waits for its end.
    fn ask<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Reply<T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.begin(request)
    }

    fn begin<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Reply<T> {
        let (tell, told) = sync_channel(1);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                let _nobody_waits = tell.send(act.await);
            });
        }
        told
    }

    fn told<T>(&self, told: Reply<T>) -> io::Result<T> {
        let ended = |_| io::Error::other("the thread of the object store has ended");
        told.recv()
            .map_err(ended)?
            .map_err(|error| diagnosis::tell(&error, &self.root))
    }

    fn wait<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> io::Result<T> {
        self.told(self.ask(act))
    }

    fn keep(&self, path: &Path, copy: ObjectInfo) {
        if self.keeps {
            self.copies.lock().insert(path.to_owned(), copy);
        }
    }

    fn kept(&self, path: &Path) -> Option<ObjectInfo> {
        self.copies.lock().get(path).cloned()
    }
}

impl Drop for ObjectClient {
    fn drop(&mut self) {
        // Whatever is still asked is for nobody; and a runtime that waits can't be dropped from within
        // another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Returns the length of an object and up to `most` of its bytes from `from` on.
async fn range(store: Arc<dyn ObjectStore>, key: Key, from: u64, most: u64) -> Result<(u64, Bytes), Error> {
    let options = GetOptions::new().with_range(Some(from..from + most));
    match store.get_opts(&key, options).await {
        Ok(found) => Ok((found.meta.size, found.bytes().await?)),
        // No range fits an object without bytes.
        Err(error) if from == 0 && !matches!(error, Error::NotFound { .. }) => match store.head(&key).await {
            Ok(meta) if meta.size == 0 => Ok((0, Bytes::new())),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Creates an object; returns false if one exists.
async fn put_new(store: Arc<dyn ObjectStore>, key: Key, bytes: Bytes) -> Result<bool, Error> {
    let mut puts = 0;
    loop {
        let options = PutOptions::from(PutMode::Create);
        let there = match store.put_opts(&key, bytes.clone().into(), options).await {
            Ok(_) => return Ok(true),
            Err(error @ Error::AlreadyExists { .. }) => error,
            Err(error) => return Err(error),
        };
        // It may be this very one: the answer to an earlier try was lost.
        match store.get(&key).await {
            Ok(found) => return Ok(found.bytes().await? == bytes),
            // A conflict with another put that came to nothing.
            Err(Error::NotFound { .. }) if puts < PUTS_MAX => puts += 1,
            Err(Error::NotFound { .. }) => return Err(there),
            Err(error) => return Err(error),
        }
    }
}

impl FileStore for ObjectFiles {
    /// There are no directories: a prefix exists with its first object.
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (key, store) = (self.0.key(dir)?, self.0.store.clone());
        let listed = self
            .0
            .wait(async move { store.list_with_delimiter(Some(&key)).await });
        let listed = listed.map_err(|error| match error.kind() {
            // An empty prefix is an empty list: what is missing is the bucket.
            io::ErrorKind::NotFound => diagnosis::no_bucket(&self.0.root),
            _ => error,
        })?;
        let names = listed
            .objects
            .iter()
            .filter_map(|object| object.location.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Some(ObjectInfo::Small(bytes)) = self.0.kept(path) {
            return Ok(bytes.to_vec());
        }
        let (key, store) = (self.0.key(path)?, self.0.store.clone());
        let bytes = self.0.wait(async move { store.get(&key).await?.bytes().await })?;
        self.0.keep(path, ObjectInfo::Small(bytes.clone()));
        Ok(bytes.to_vec())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileReader>> {
        if let Some(ObjectInfo::Whole(scratch)) = self.0.kept(path) {
            return Ok(scratch);
        }
        let scratch = Arc::new(self.fetch(path)?);
        self.0.keep(path, ObjectInfo::Whole(scratch.clone()));
        Ok(scratch)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        let key = self.0.key(path)?;
        Ok(Box::new(Upload::new(self.0.clone(), path, key)?))
    }

    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        let (key, bytes) = (self.0.key(path)?, Bytes::copy_from_slice(contents));
        let new = self.0.wait(put_new(self.0.store.clone(), key, bytes.clone()))?;
        if new {
            self.0.keep(path, ObjectInfo::Small(bytes));
        }
        Ok(new)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (key, store) = (self.0.key(path)?, self.0.store.clone());
        self.0.copies.lock().remove(path);
        match self.0.wait(async move { store.delete(&key).await }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// An object that exists is durable.
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}
