//! Views: the results of a dataflow, kept by version, so that any thread can read them as of one closed
//! epoch.
//!
//! ```text
//!  worker 0 ─ ViewWriter::apply(epoch, changes) ─▶ shard 0 ┐            64 buckets a shard, each an ordered map
//!  worker 1 ─ ViewWriter::apply(epoch, changes) ─▶ shard 1 ┤ View       key → newest version, older versions
//!                                                           │
//!  frontier passed an epoch ─ Views::close(snapshot) ───────┼──▶ closed  the one step that makes it visible, in all views
//!                                                           │
//!  HTTP threads ─ Views::closed() ─▶ Arc<Snapshot> ─ dyn Serve::row(query, &snapshot) ─▶ a snapshot at snapshot.epoch
//! ```
//!
//! Versions above the snapshot's epoch are ignored, so changes may be applied as they arrive. A version is
//! pruned when a newer one is at or below the view's **floor**, and no read may be below the floor. The floor
//! rises at `close` only: to the newest epoch minus the view's history, or further if the view keeps too many
//! superseded versions. It stops at a snapshot that is still held, unless twice that bound is kept: then the
//! holder's next read returns [`serve::ReadError::Gone`]. Reads check the floor before and after, so none
//! sees a partly pruned row.

pub(crate) mod batch;
pub(crate) mod hash;
mod rows;
pub mod serve;
pub(crate) mod shard;
pub(crate) mod writer;

pub(crate) mod parse;
mod plan;
mod read;
pub(crate) mod remote;
mod row;
mod scan;
mod snapshots;

#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::position::{EpochBinding, Offset, PartitionId, SourceId};
use crate::record::Record;
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::{Traced, trace};
use crate::time::{self, Epoch, EventTime, WindowLayout};
use crate::view::remote::RemoteShards;
use crate::view::serve::{ReadError, Serve};
use crate::view::shard::Shard;
use crate::view::snapshots::{FloorRise, Snapshots};
use crate::view::writer::ViewWriter;
use crate::watermark::Watermarks;

/// The definition of a view: its name, its field names, and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSpec {
    /// The name, unique in the dataflow.
    pub name: String,
    /// A description for people; may be empty.
    pub description: String,
    /// Names of the key's fields, without those of the window; if empty, see [`schema`](crate::schema).
    pub key: Vec<String>,
    /// Names of the value's fields if its type has none (tuples, scalars); if empty, see
    /// [`schema`](crate::schema).
    pub value: Vec<String>,
    /// The sources that determine the view's watermark.
    pub sources: Vec<SourceId>,
    /// The sources of the step that assigned the windows in the key; if empty, those of the view. A join may
    /// have added further sources, so these may be fewer, and their watermark lower while they are idle and
    /// the others are not. No row is `closed` before that step has closed its window.
    pub window_sources: Vec<SourceId>,
    /// How far the view's watermark lags behind that of its sources (`correct(for)`, or a step that holds
    /// records back).
    pub held_back: Duration,
    /// The window layout of a view whose key is `Windowed<_>`; otherwise `None`.
    pub windows: Option<WindowLayout>,
    /// How long rows are kept, for people: the dataflow retracts them.
    pub keep: Option<Duration>,
    /// How far back `as_of` may reach. Default 1 minute.
    pub history: Duration,
    /// Maximum number of superseded versions, beyond which history is shortened. Default 1 M.
    pub superseded_max: usize,
    /// Whether to hash each epoch's changes ([`serve::Serve::hash`]). Default no.
    pub hashed: bool,
}

impl ViewSpec {
    /// A view with this name and defaults otherwise.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            key: Vec::new(),
            value: Vec::new(),
            sources: Vec::new(),
            window_sources: Vec::new(),
            held_back: Duration::ZERO,
            windows: None,
            keep: None,
            history: Duration::from_secs(60),
            superseded_max: 1_000_000,
            hashed: false,
        }
    }
}

/// A closed epoch, and the positions of the sources as of it. Holding its `Arc` keeps the epoch readable (see
/// the module's documentation).
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The epoch.
    pub epoch: Epoch,
    /// The watermarks.
    pub watermarks: Arc<Watermarks>,
    /// The next offset after the epoch, of every partition bound so far.
    pub positions: Arc<[(PartitionId, Offset)]>,
    /// The epoch's binding.
    pub binding: Arc<EpochBinding>,
}

impl Snapshot {
    /// The watermark of a stream from `sources`: the same by which steps over them close windows.
    pub fn watermark(&self, sources: &[SourceId]) -> EventTime {
        self.watermarks.of(sources)
    }

    /// The next offset of a partition; `None` if nothing of it is bound yet.
    pub fn position(&self, partition: PartitionId) -> Option<Offset> {
        self.positions
            .iter()
            .find(|(id, _)| *id == partition)
            .map(|(_, offset)| *offset)
    }

    /// Whether the records at all these offsets are included (offsets as acknowledged to a producer:
    /// inclusive).
    pub fn reached(&self, acknowledged: &[(PartitionId, Offset)]) -> bool {
        acknowledged
            .iter()
            .all(|(id, offset)| self.position(*id).is_some_and(|next| next > *offset))
    }
}

/// Which snapshot to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// The newest closed epoch up to this one.
    Epoch(Epoch),
    /// The newest closed epoch that opened at or before this time.
    Time(EventTime),
}

/// All views of a process. Written by the workers, readable from any thread.
///
/// ```
/// use std::sync::Arc;
/// use thalweg::position::EpochBinding;
/// use thalweg::record::Change;
/// use thalweg::view::serve::{RowQuery, Serve};
/// use thalweg::view::{Snapshot, ViewSpec, Views};
/// use thalweg::{Epoch, EventTime};
///
/// let views = Views::new(1);
/// let spec = ViewSpec { key: vec!["merchant".into()], value: vec!["total".into()], ..ViewSpec::new("spend") };
/// let mut writer = views.define::<u32, i64>(spec)?.writer::<u32, i64>(0);
///
/// let epoch = Epoch(1_795_402_800_123_000);
/// writer.apply(epoch, &mut vec![Change { key: 42, old: None, new: Some(91_250) }]);
/// assert!(views.closed().is_none());                          // applied, not yet visible
///
/// let (now, none) = (EventTime(0), Vec::new);
/// let binding = EpochBinding { epoch, now, ranges: vec![], watermarks: none(), idle: vec![], topics: vec![], schemas: vec![], results: None };
/// let (watermarks, positions) = (Arc::default(), Arc::new([]));
/// views.close(Snapshot { epoch, watermarks, positions, binding: Arc::new(binding) });
///
/// let (view, snapshot) = (views.get("spend").unwrap(), views.closed().unwrap());
/// let query = RowQuery { key: vec![("merchant".into(), "42".into())], window: None };
/// let found = view.row(&query, &snapshot)?.unwrap();
/// let mut json = Vec::new();
/// view.schema().write_row(&found.row, Default::default(), &mut json);
/// assert_eq!(json, br#"{"merchant":42,"total":91250}"#);
/// assert_eq!(found.version, epoch);
/// # Ok::<(), thalweg::Error>(())
/// ```
pub struct Views {
    peers: usize,
    snapshots: RwLock<Snapshots>,
    closed: watch::Sender<Option<Arc<Snapshot>>>,
    /// No floor rises above this epoch.
    held: AtomicU64,
    views: RwLock<BTreeMap<String, Arc<View>>>,
    remote: RemoteSlot,
}

/// The shards of other processes, once they are connected.
type RemoteSlot = Arc<OnceLock<Arc<dyn RemoteShards>>>;

/// Maximum number of snapshots, whatever the views' histories.
const SNAPSHOTS_MAX: usize = 1 << 17;

impl Views {
    /// An empty set of views, in a cluster of `peers` workers.
    pub fn new(peers: usize) -> Arc<Self> {
        Arc::new(Self {
            peers,
            snapshots: RwLock::default(),
            closed: watch::Sender::new(None),
            held: AtomicU64::new(u64::MAX),
            views: RwLock::default(),
            remote: Arc::default(),
        })
    }

    /// Whether other processes have shards of the views.
    pub(crate) fn is_spread(&self) -> bool {
        self.remote.get().is_some()
    }

    /// Reads of all views include the rows of other processes from now on.
    pub(crate) fn set_remote(&self, shards: Arc<dyn RemoteShards>) {
        let _once = self.remote.set(shards);
    }

    /// The view with this name, with its shards.
    pub(crate) fn shards(&self, name: &str) -> Option<Arc<View>> {
        self.views.read().get(name).cloned()
    }

    /// The view with this definition. Every worker calls this while it builds the dataflow; the first call
    /// creates the view.
    ///
    /// # Errors
    /// If names of fields collide or do not match the types, or if another view has the name.
    pub fn define<K: Record, V: Record>(&self, spec: ViewSpec) -> Result<Arc<View>> {
        let types = [TypeId::of::<K>(), TypeId::of::<V>()];
        self.define_types(spec, types, [trace::<K>, trace::<V>])
    }

    fn define_types(
        &self,
        spec: ViewSpec,
        types: [TypeId; 2],
        [key, value]: [fn() -> Traced; 2],
    ) -> Result<Arc<View>> {
        let mut views = self.views.write();
        if let Some(view) = views.get(&spec.name) {
            if view.types == types && view.spec == spec {
                return Ok(view.clone());
            }
            return Err(Error::definition(format!("two views are named `{}`", spec.name))
                .detail("they differ in their settings or types")
                .hint("give each view a name of its own"));
        }
        let names = FieldNames {
            key: &spec.key,
            value: &spec.value,
        };
        let owner = format!("view `{}`", spec.name);
        let schema = RowSchema::new(&owner, key(), value(), names)?;
        let remote = self.remote.clone();
        let view = Arc::new(View::new(spec, schema, types, (self.peers, remote)));
        views.insert(view.spec.name.clone(), view.clone());
        Ok(view)
    }

    /// Makes an epoch visible in all views at once. Must be called by a single thread, when the frontier has
    /// passed the epoch and all shards have applied it. An epoch at or below the newest closed one has no
    /// effect.
    pub fn close(&self, snapshot: Snapshot) {
        let mut snapshots = self.snapshots.write();
        if snapshots
            .newest()
            .is_some_and(|newest| newest.epoch >= snapshot.epoch)
        {
            return;
        }
        let snapshot = Arc::new(snapshot);
        let closed = snapshot.epoch;
        snapshots.push(snapshot.clone());
        self.closed.send_replace(Some(snapshot));

        let views = self.views.read();
        let mut lowest = closed;
        let held = Epoch(self.held.load(Ordering::Acquire));
        for view in views.values() {
            let rise = view.rise(closed);
            let rise = FloorRise {
                wanted: rise.wanted.min(held),
                forced: rise.forced.min(held),
            };
            view.set_floor(snapshots.floor(view.floor(), rise));
            lowest = lowest.min(view.floor());
        }
        snapshots.trim(lowest, SNAPSHOTS_MAX);
    }

    /// Keeps `epoch` and later ones readable whatever that takes, until another epoch is held, or the
    /// greatest.
    pub(crate) fn hold(&self, epoch: Epoch) {
        self.held.store(epoch.0, Ordering::Release);
    }

    /// The earliest epoch that any view can still be read at.
    pub(crate) fn floor(&self) -> Epoch {
        let lowest = {
            let views = self.views.read();
            let floors = views.values().map(|view| view.floor());
            floors.min().unwrap_or_default()
        };
        let oldest = self.snapshots.read().oldest(lowest);
        oldest.unwrap_or(lowest)
    }

    /// The newest closed snapshot. Holding it pins its epoch.
    pub fn closed(&self) -> Option<Arc<Snapshot>> {
        self.closed.borrow().clone()
    }

    /// The newest closed snapshot up to an epoch or a time.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if no view keeps it any more (a single view may return it earlier, by its own
    /// history); [`ReadError::NotYet`] before the first epoch is closed.
    pub fn snapshot(&self, at: AsOf) -> Result<Arc<Snapshot>, ReadError> {
        self.snapshots.read().find(at)
    }

    /// The first epoch at which `view` can be read; `None` before the first is closed.
    pub fn oldest(&self, view: &dyn Serve) -> Option<Epoch> {
        self.snapshots.read().oldest(view.oldest())
    }

    /// Waits until a closed snapshot satisfies `enough`. Never gives up: use it with a timeout.
    pub async fn wait(&self, mut enough: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut closed = self.closed.subscribe();
        loop {
            let newest = closed.borrow_and_update().clone();
            if let Some(snapshot) = newest.filter(|snapshot| enough(snapshot)) {
                return snapshot;
            }
            // The sender is a part of `self`, so it outlives this borrow.
            if closed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Subscribes to the closed snapshots; a slow subscriber sees only the newest.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.closed.subscribe()
    }

    /// The view with this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Serve>> {
        let view = self.views.read().get(name)?.clone();
        Some(view)
    }

    /// All views, by name.
    pub fn all(&self) -> Vec<Arc<dyn Serve>> {
        let views = self.views.read();
        views
            .values()
            .map(|view| view.clone() as Arc<dyn Serve>)
            .collect()
    }

    /// The names of all views, in order.
    pub fn names(&self) -> Vec<String> {
        self.views.read().keys().cloned().collect()
    }

    /// Number of workers in the whole cluster.
    pub fn peers(&self) -> usize {
        self.peers
    }
}

/// A worker's shard, once the worker has taken it.
type ShardSlot = OnceLock<Arc<Shard>>;

/// A view: one shard per worker of this process. Read through [`Serve`].
pub struct View {
    spec: ViewSpec,
    schema: Arc<RowSchema>,
    /// The types of key and value.
    types: [TypeId; 2],
    /// One slot per worker of the cluster; those of other processes stay empty.
    shards: Box<[ShardSlot]>,
    /// The lowest epoch that may be read.
    floor: AtomicU64,
    remote: RemoteSlot,
}

impl View {
    fn new(
        spec: ViewSpec,
        schema: RowSchema,
        types: [TypeId; 2],
        (peers, remote): (usize, RemoteSlot),
    ) -> Self {
        let shards = std::iter::repeat_with(OnceLock::new).take(peers.max(1)).collect();
        Self {
            spec,
            schema: Arc::new(schema),
            types,
            shards,
            floor: AtomicU64::new(0),
            remote,
        }
    }

    /// The writer of a worker's rows: one per worker of this process, with the types that the view was
    /// defined with.
    ///
    /// # Panics
    /// If the types differ, if the worker already has a writer, or if it is not in the cluster.
    pub fn writer<K: Record, V: Record>(self: &Arc<Self>, worker: usize) -> ViewWriter<K, V> {
        let shard = self.take_shard(worker, [TypeId::of::<K>(), TypeId::of::<V>()]);
        ViewWriter::new(self.clone(), shard)
    }

    fn take_shard(&self, worker: usize, types: [TypeId; 2]) -> Arc<Shard> {
        let name = &self.spec.name;
        assert!(types == self.types, "view `{name}` was defined with other types");
        let shard = Arc::new(Shard::new(self.schema.clone()));
        let taken = self.shards[worker].set(shard.clone()).is_err();
        assert!(!taken, "view `{name}`: worker {worker} has a writer already");
        shard
    }

    pub(crate) fn row_schema(&self) -> &RowSchema {
        &self.schema
    }

    /// The number of rows and of superseded versions.
    #[cfg(test)]
    fn stored(&self) -> (usize, usize) {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        let stored = shards.map(|shard| shard.stored());
        stored.fold((0, 0), |(rows, older), (r, o)| (rows + r, older + o))
    }

    pub(crate) fn floor(&self) -> Epoch {
        Epoch(self.floor.load(Ordering::SeqCst))
    }
}

impl View {
    /// How far the floor would rise once `closed` is closed.
    fn rise(&self, closed: Epoch) -> FloorRise {
        let history = u64::try_from(time::micros(self.spec.history)).unwrap_or(u64::MAX);
        let local: Vec<_> = self.shards.iter().filter_map(OnceLock::get).collect();
        let each = self.spec.superseded_max / local.len().max(1);
        let mut rise = FloorRise {
            wanted: Epoch(closed.0.saturating_sub(history)),
            forced: Epoch::ZERO,
        };
        for shard in local {
            let floor_rise = shard.floor_rise(closed, each);
            rise.wanted = rise.wanted.max(floor_rise.wanted);
            rise.forced = rise.forced.max(floor_rise.forced);
        }
        rise
    }

    fn set_floor(&self, floor: Epoch) {
        self.floor.store(floor.0, Ordering::SeqCst);
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            shard.forget(floor);
        }
    }
}
