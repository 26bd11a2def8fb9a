//! Views: the results of a dataflow, kept by version, so that any thread reads them as of one closed epoch.
//!
//! ```text
//!  worker 0 ─ ViewWriter::apply(epoch, changes) ─▶ shard 0 ┐            64 buckets a shard, each an ordered map
//!  worker 1 ─ ViewWriter::apply(epoch, changes) ─▶ shard 1 ┤ View       key → newest version, older versions
//!                                                           │
//!  frontier passed an epoch ─ Views::close(moment) ─────────┼──▶ closed  the one step that makes it visible, in all views
//!                                                           │
//!  HTTP threads ─ Views::closed() ─▶ Arc<Moment> ─ dyn Serve::row(query, &moment) ─▶ a snapshot at moment.epoch
//! ```
//!
//! Versions above the moment's epoch are not looked at, so changes may be applied as they arrive. A version
//! goes when a newer one is at or below the view's **floor**, and no read may be below the floor. The floor
//! rises at `close` only: to the newest epoch less the view's history, or further when the view keeps too
//! many superseded versions. It stops at a moment that somebody still holds, unless twice that bound is kept:
//! then the holder's next read answers [`serve::ReadError::Gone`]. Reads look at the floor before and after,
//! so none sees a row half pruned.

pub(crate) mod batch;
pub(crate) mod hash;
mod rows;
pub mod serve;
pub(crate) mod shard;
pub(crate) mod writer;

mod moments;
pub(crate) mod parse;
mod plan;
mod read;
mod row;
mod scan;

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
use crate::view::moments::{Moments, Rise};
use crate::view::serve::{ReadError, Serve};
use crate::view::shard::Shard;
use crate::view::writer::ViewWriter;
use crate::watermark::Watermarks;

/// What a view is: its name, what its fields are called, how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSpec {
    /// Name, unique in the dataflow.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// Names of the key's fields (those of the window left out); empty: as [`schema`](crate::schema) says.
    pub key: Vec<String>,
    /// Names of the value's fields where its type has none (tuples, scalars); empty: as
    /// [`schema`](crate::schema) says.
    pub value: Vec<String>,
    /// The sources whose watermarks make the view's.
    pub sources: Vec<SourceId>,
    /// The sources of the step that cut the windows in the key; empty: those of the view. They may be fewer,
    /// where a join added others, and their watermark the lower one, while they are idle and the others are
    /// not. No row is `closed` before that step has closed its window.
    pub window_sources: Vec<SourceId>,
    /// How far the view's watermark lies behind that of its sources (`correct(for)`, a step that holds
    /// records back).
    pub held_back: Duration,
    /// The windows, of a view whose key is `Windowed<_>`; `None` otherwise.
    pub windows: Option<WindowLayout>,
    /// How long rows are kept, for people to read: the dataflow retracts them.
    pub keep: Option<Duration>,
    /// How far back `as_of` may reach. Default 1 minute.
    pub history: Duration,
    /// How many superseded versions may be kept, before history is given up early. Default 1 M.
    pub superseded_max: usize,
    /// Whether to keep a hash of each epoch's changes ([`serve::Serve::hash`]). Default no.
    pub hashed: bool,
}

impl ViewSpec {
    /// A view of this name and otherwise defaults.
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

/// A closed epoch, and where the sources stood then. Holding its `Arc` keeps the epoch readable (see the
/// module's head).
#[derive(Clone, Debug)]
pub struct Moment {
    /// The epoch.
    pub epoch: Epoch,
    /// How far event time has come.
    pub watermarks: Arc<Watermarks>,
    /// The next offset after the epoch, of every partition bound so far.
    pub positions: Arc<[(PartitionId, Offset)]>,
    /// What the epoch contains.
    pub binding: Arc<EpochBinding>,
}

impl Moment {
    /// The watermark of what comes from `sources`: the very one by which steps over them close their windows.
    pub fn watermark(&self, sources: &[SourceId]) -> EventTime {
        self.watermarks.of(sources)
    }

    /// The next offset of a partition; `None`: nothing of it is bound yet.
    pub fn position(&self, partition: PartitionId) -> Option<Offset> {
        self.positions
            .iter()
            .find(|(id, _)| *id == partition)
            .map(|(_, offset)| *offset)
    }

    /// Whether the records at all these offsets are in (offsets as a producer is acknowledged them:
    /// inclusive).
    pub fn reached(&self, acknowledged: &[(PartitionId, Offset)]) -> bool {
        acknowledged
            .iter()
            .all(|(id, offset)| self.position(*id).is_some_and(|next| next > *offset))
    }
}

/// Which moment a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// The newest closed epoch up to this one.
    Epoch(Epoch),
    /// The newest closed epoch opened up to this time.
    Time(EventTime),
}

/// Everything that a process serves. Written by the workers, read by any thread.
///
/// ```
/// use std::sync::Arc;
/// use thalweg::position::EpochBinding;
/// use thalweg::record::Change;
/// use thalweg::view::serve::{RowQuery, Serve};
/// use thalweg::view::{Moment, ViewSpec, Views};
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
/// views.close(Moment { epoch, watermarks, positions, binding: Arc::new(binding) });
///
/// let (view, moment) = (views.get("spend").unwrap(), views.closed().unwrap());
/// let query = RowQuery { key: vec![("merchant".into(), "42".into())], window: None };
/// let found = view.row(&query, &moment)?.unwrap();
/// let mut json = Vec::new();
/// view.schema().write_row(&found.row, Default::default(), &mut json);
/// assert_eq!(json, br#"{"merchant":42,"total":91250}"#);
/// assert_eq!(found.version, epoch);
/// # Ok::<(), thalweg::Error>(())
/// ```
pub struct Views {
    peers: usize,
    moments: RwLock<Moments>,
    closed: watch::Sender<Option<Arc<Moment>>>,
    /// No floor rises above this.
    held: AtomicU64,
    views: RwLock<BTreeMap<String, Arc<View>>>,
}

/// So many moments are kept at most, whatever the views' histories.
const MOMENTS_MAX: usize = 1 << 17;

impl Views {
    /// No views yet, in a cluster of `peers` workers.
    pub fn new(peers: usize) -> Arc<Self> {
        Arc::new(Self {
            peers,
            moments: RwLock::default(),
            closed: watch::Sender::new(None),
            held: AtomicU64::new(u64::MAX),
            views: RwLock::default(),
        })
    }

    /// The view of this spec. Every worker calls it while it builds the dataflow; the first call makes the
    /// view.
    ///
    /// # Errors
    /// When names of fields clash or don't fit the types, and when another view has the name.
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
        let view = Arc::new(View::new(spec, schema, types, self.peers));
        views.insert(view.spec.name.clone(), view.clone());
        Ok(view)
    }

    /// Makes an epoch visible in all views at once. To be called by one thread, when the frontier has passed
    /// the epoch and all shards have applied it. An epoch at or below the newest one closed changes nothing.
    pub fn close(&self, moment: Moment) {
        let mut moments = self.moments.write();
        if moments
            .newest()
            .is_some_and(|newest| newest.epoch >= moment.epoch)
        {
            return;
        }
        let moment = Arc::new(moment);
        let closed = moment.epoch;
        moments.push(moment.clone());
        self.closed.send_replace(Some(moment));

        let views = self.views.read();
        let mut lowest = closed;
        let held = Epoch(self.held.load(Ordering::Acquire));
        for view in views.values() {
            let rise = view.rise(closed);
            let rise = Rise {
                wanted: rise.wanted.min(held),
                forced: rise.forced.min(held),
            };
            view.set_floor(moments.floor(view.floor(), rise));
            lowest = lowest.min(view.floor());
        }
        moments.trim(lowest, MOMENTS_MAX);
    }

    /// Keeps `epoch` and whatever is after it readable, whatever that takes: until another is held, or the
    /// greatest.
    pub(crate) fn hold(&self, epoch: Epoch) {
        self.held.store(epoch.0, Ordering::Release);
    }

    /// The least epoch that can still be asked for, of whichever view.
    pub(crate) fn floor(&self) -> Epoch {
        let lowest = {
            let views = self.views.read();
            let floors = views.values().map(|view| view.floor());
            floors.min().unwrap_or_default()
        };
        let oldest = self.moments.read().oldest(lowest);
        oldest.unwrap_or(lowest)
    }

    /// The newest closed moment. Holding it pins its epoch.
    pub fn closed(&self) -> Option<Arc<Moment>> {
        self.closed.borrow().clone()
    }

    /// The newest closed moment up to an epoch or a time.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when it is no longer kept for any view (a view may answer so later, by its own
    /// history); [`ReadError::NotYet`] before the first epoch is closed.
    pub fn moment(&self, at: AsOf) -> Result<Arc<Moment>, ReadError> {
        self.moments.read().find(at)
    }

    /// The first epoch that `view` can be read at; `None` before the first is closed.
    pub fn oldest(&self, view: &dyn Serve) -> Option<Epoch> {
        self.moments.read().oldest(view.oldest())
    }

    /// Waits until a closed moment is enough. Never gives up: bound it with a time-out.
    pub async fn wait(&self, mut enough: impl FnMut(&Moment) -> bool) -> Arc<Moment> {
        let mut closed = self.closed.subscribe();
        loop {
            let newest = closed.borrow_and_update().clone();
            if let Some(moment) = newest.filter(|moment| enough(moment)) {
                return moment;
            }
            // The sender is a part of `self`, so it outlives this borrow.
            if closed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Follows the closed moments; a slow follower sees the newest only.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Moment>>> {
        self.closed.subscribe()
    }

    /// The view of this name.
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

    /// Workers in the whole cluster.
    pub fn peers(&self) -> usize {
        self.peers
    }
}

/// A worker's shard, once the worker has taken it.
type Slot = OnceLock<Arc<Shard>>;

/// A view: one shard for each of this process's workers. Read through [`Serve`].
pub struct View {
    spec: ViewSpec,
    schema: Arc<RowSchema>,
    /// Of key and value.
    types: [TypeId; 2],
    /// One place for every worker of the cluster; those of other processes stay empty.
    shards: Box<[Slot]>,
    /// No read may be below this epoch.
    floor: AtomicU64,
}

impl View {
    fn new(spec: ViewSpec, schema: RowSchema, types: [TypeId; 2], peers: usize) -> Self {
        let shards = std::iter::repeat_with(OnceLock::new).take(peers.max(1)).collect();
        Self {
            spec,
            schema: Arc::new(schema),
            types,
            shards,
            floor: AtomicU64::new(0),
        }
    }

    /// What writes a worker's rows: one for each worker of this process, with the types that the view was
    /// defined with.
    ///
    /// # Panics
    /// When the types are others, when the worker has a writer already, or is none of the cluster's.
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

    /// Rows stored, and superseded versions.
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
    /// How far the floor would rise once `closed` is.
    fn rise(&self, closed: Epoch) -> Rise {
        let history = u64::try_from(time::micros(self.spec.history)).unwrap_or(u64::MAX);
        let local: Vec<_> = self.shards.iter().filter_map(OnceLock::get).collect();
        let each = self.spec.superseded_max / local.len().max(1);
        let mut rise = Rise {
            wanted: Epoch(closed.0.saturating_sub(history)),
            forced: Epoch::ZERO,
        };
        for shard in local {
            let crowding = shard.crowding(closed, each);
            rise.wanted = rise.wanted.max(crowding.wanted);
            rise.forced = rise.forced.max(crowding.forced);
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
