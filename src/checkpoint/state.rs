//! What a stateful step does for checkpoints: one small trait, and the bookkeeping that most of them share.
//!
//! ```text
//!   operator ── Kept::at(epoch) ─▶ state          a checkpoint at s was begun, and this is the first epoch after s?
//!                                    │            then the step freezes before anything of the epoch is applied
//!   worker, between other work ── Steps::save ─▶ Stateful::save, some entries at a time ─▶ Out ─▶ the writer's thread
//!                                    │
//!   operator changes an entry that is not saved yet ─▶ its value as of s goes out first
//! ```
//!
//! Nothing is copied when a step freezes, so no epoch waits for a checkpoint: only keys are remembered, from an entry's first
//! change after the freeze before.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::{BUCKETS, Entry, bucket_of, decode, encode};
use super::job::{Job, Piece};
use super::segment::Chunk;
use crate::error::{Error, Result};
use crate::time::{Epoch, EventTime};

/// State that checkpoints hold.
///
/// A step keeps its state in a [`Kept`], asks it for every epoch that it applies, and tells a [`Changed`] of every entry
/// that it changes. A counter by key:
///
/// ```
/// use std::collections::HashMap;
/// use thalweg::Epoch;
/// use thalweg::checkpoint::state::{Changed, Out, Stateful};
///
/// #[derive(Default)]
/// struct Counts {
///     counts: HashMap<String, (Epoch, u64)>,
///     changed: Changed<String>,
/// }
///
/// impl Counts {
///     fn add(&mut self, epoch: Epoch, key: &str) {
///         let entry = self.counts.get(key);
///         self.changed.touch(entry.map(|(epoch, _)| *epoch), || key.to_owned(), |out, key| {
///             if let Some((epoch, count)) = entry { out.put(key, *epoch, None, count) }
///         });
///         let count = entry.map_or(0, |(_, count)| *count);
///         self.counts.insert(key.to_owned(), (epoch, count + 1));
///     }
/// }
///
/// impl Stateful for Counts {
///     fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
///         self.changed.freeze(at, again, out);
///     }
///     fn save(&mut self, entries_max: usize) -> bool {
///         let counts = &self.counts;
///         self.changed.save(entries_max, |out, key, upto| {
///             if let Some((epoch, count)) = counts.get(key).filter(|(epoch, _)| *epoch <= upto) {
///                 out.put(key, *epoch, None, count);
///             }
///         })
///     }
/// }
/// ```
pub trait Stateful {
    /// Everything up to `at` is applied and nothing after it: what changed since the freeze before is to be saved as it is
    /// now. `again`: what was frozen then was not saved after all, and is to be saved with it.
    fn freeze(&mut self, at: Epoch, again: bool, out: Out);

    /// Saves about so many entries as of the freeze; whether there are more.
    fn save(&mut self, entries_max: usize) -> bool;

    /// Entries whose `until` is at or before this are gone without a word, and versions before this epoch. Asked right after
    /// the freeze.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
}

/// What of a step's files no longer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// See [`StepFiles::cut`](super::manifest::StepFiles::cut).
    pub cut: EventTime,
    /// See [`StepFiles::floor`](super::manifest::StepFiles::floor).
    pub floor: Epoch,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            cut: EventTime::MIN,
            floor: Epoch::ZERO,
        }
    }
}

/// Takes entries to be saved.
pub struct Out {
    step: usize,
    job: Arc<Job>,
    /// By bucket, and by whether they are removals.
    open: Vec<Pending>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// How many more entries are read back as a trial.
    trials: usize,
}

/// So many entries of each step and checkpoint are read back: a type that doesn't read what it writes is told of now, and
/// not at the restart that needs it.
const TRIALS: usize = 64;

#[derive(Clone, Default)]
struct Pending {
    bytes: Vec<u8>,
    entries: u64,
}

/// A chunk goes to the writer when it is as large as this.
const CHUNK: usize = 32 << 10;

impl Out {
    pub(crate) fn new(step: usize, job: Arc<Job>) -> Self {
        Self {
            step,
            job,
            open: vec![Pending::default(); 2 * BUCKETS],
            key: Vec::new(),
            value: Vec::new(),
            trials: TRIALS,
        }
    }

    /// An entry: its value since `epoch`; it goes by itself when the step's cut reaches `until`.
    pub fn put<K: Serialize + DeserializeOwned, V: Serialize + DeserializeOwned>(
        &mut self,
        key: &K,
        epoch: Epoch,
        until: Option<EventTime>,
        value: &V,
    ) {
        self.value.clear();
        match encode(value, &mut self.value) {
            Ok(()) => self.entry(key, epoch, until, true),
            Err(error) => self.job.fail(error),
        }
        if let Some(left) = self.trials.checked_sub(1) {
            self.trials = left;
            let tried = read_back::<K>(&self.key).and_then(|()| read_back::<V>(&self.value));
            if let Err(error) = tried {
                self.job.fail(error);
            }
        }
    }

    /// A key that has no value since `epoch`.
    pub fn remove<K: Serialize>(&mut self, key: &K, epoch: Epoch) {
        self.entry(key, epoch, None, false);
    }

    /// Like [`Out::put`], for what is encoded already.
    pub(crate) fn put_encoded(&mut self, key: &[u8], epoch: Epoch, until: Option<EventTime>, value: &[u8]) {
        self.add(Entry {
            key,
            epoch,
            until,
            value: Some(value),
        });
    }

    /// Like [`Out::remove`], for what is encoded already.
    pub(crate) fn remove_encoded(&mut self, key: &[u8], epoch: Epoch) {
        self.add(Entry {
            key,
            epoch,
            until: None,
            value: None,
        });
    }

    fn entry<K: Serialize>(&mut self, key: &K, epoch: Epoch, until: Option<EventTime>, has_value: bool) {
        self.key.clear();
        if let Err(error) = encode(key, &mut self.key) {
            self.job.fail(error);
            return;
        }
        let (key, value) = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        self.add(Entry {
            key: &key,
            epoch,
            until,
            value: has_value.then_some(value.as_slice()),
        });
        (self.key, self.value) = (key, value);
    }

    fn add(&mut self, entry: Entry<'_>) {
        let at = 2 * bucket_of(entry.key) + usize::from(entry.value.is_some());
        let pending = &mut self.open[at];
        entry.write(&mut pending.bytes);
        pending.entries += 1;
        if pending.bytes.len() >= CHUNK {
            self.send(at);
        }
    }

    fn send(&mut self, at: usize) {
        let Pending { bytes, entries } = std::mem::take(&mut self.open[at]);
        if entries > 0 {
            let chunk = Chunk {
                bucket: at / 2,
                removals: at.is_multiple_of(2),
                bytes,
            };
            let step = self.step;
            self.job.send(Piece { step, chunk, entries });
        }
    }

    /// Lets another thread drop what is not needed any more.
    pub fn discard<T: Send + 'static>(&self, old: Vec<T>) {
        if old.capacity() > 0 {
            self.job.discard(Box::new(old));
        }
    }

    /// Gives an error that makes the checkpoint fail.
    pub fn fail(&self, error: Error) {
        self.job.fail(error);
    }
}

fn read_back<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<()> {
    let mut again = Vec::new();
    encode(&decode::<T>(bytes)?, &mut again)?;
    if again == bytes {
        return Ok(());
    }
    Err(Error::definition(format!(
        "`{}` can't be kept in a checkpoint: read back it is another value",
        std::any::type_name::<T>()
    )))
}

impl Drop for Out {
    fn drop(&mut self) {
        (0..self.open.len()).for_each(|at| self.send(at));
    }
}

/// Which keys of a step changed since the last freeze, and which of those before it are still to be saved.
pub struct Changed<K> {
    /// Nothing is remembered where nobody saves.
    on: bool,
    /// The last freeze, and the one before whose entries are saved.
    since: Epoch,
    before: Epoch,
    changed: Vec<K>,
    removed: Vec<K>,
    /// Kept until the next freeze: they may have to be saved again.
    frozen: Vec<K>,
    frozen_removed: Vec<K>,
    at: usize,
    at_removed: usize,
    out: Option<Out>,
}

impl<K> Default for Changed<K> {
    fn default() -> Self {
        Self {
            on: true,
            since: Epoch::ZERO,
            before: Epoch::ZERO,
            changed: Vec::new(),
            removed: Vec::new(),
            frozen: Vec::new(),
            frozen_removed: Vec::new(),
            at: 0,
            at_removed: 0,
            out: None,
        }
    }
}

impl<K: Ord + Send + 'static> Changed<K> {
    /// Nobody saves.
    pub fn off() -> Self {
        Self {
            on: false,
            ..Self::default()
        }
    }

    /// Everything up to `restored` is saved.
    pub fn since(restored: Epoch) -> Self {
        Self {
            since: restored,
            before: restored,
            ..Self::default()
        }
    }

    /// Whether an entry that last changed at `epoch` has yet to be saved as of the last freeze.
    #[inline]
    fn waits(&self, epoch: Epoch) -> bool {
        self.out.is_some() && epoch <= self.since && epoch > self.before
    }

    /// An entry, last changed at `epoch` if there is one, is about to change. `save` gets it if it has yet to be saved as it
    /// was.
    #[inline]
    pub fn touch(&mut self, epoch: Option<Epoch>, key: impl FnOnce() -> K, save: impl FnOnce(&mut Out, &K)) {
        if !self.on || epoch.is_some_and(|epoch| epoch > self.since) {
            return;
        }
        let key = key();
        if epoch.is_some_and(|epoch| self.waits(epoch))
            && let Some(out) = &mut self.out
        {
            save(out, &key);
        }
        self.changed.push(key);
    }

    /// An entry, last changed at `epoch`, is about to be removed.
    #[inline]
    pub fn remove(&mut self, epoch: Epoch, key: impl FnOnce() -> K, save: impl FnOnce(&mut Out, &K)) {
        if !self.on {
            return;
        }
        let key = key();
        if self.waits(epoch)
            && let Some(out) = &mut self.out
        {
            save(out, &key);
        }
        self.removed.push(key);
    }

    /// An entry, last changed at `epoch`, is about to go by itself: its `until` has passed.
    #[inline]
    pub fn expire(&mut self, epoch: Epoch, save: impl FnOnce(&mut Out)) {
        if self.waits(epoch)
            && let Some(out) = &mut self.out
        {
            save(out);
        }
    }

    /// Whether anything is being saved.
    pub fn is_saving(&self) -> bool {
        self.out.is_some()
    }

    /// The epoch after which changes are saved by the next freeze, or one that is repeated.
    pub fn unsaved_since(&self) -> Epoch {
        self.before
    }

    /// Whether entries that changed at `epoch` have been saved, or will never be.
    pub fn is_saved(&self, epoch: Epoch) -> bool {
        !self.on || epoch <= self.before || (epoch <= self.since && self.out.is_none())
    }

    /// See [`Stateful::freeze`].
    pub fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
        if again {
            self.frozen.append(&mut self.changed);
            self.frozen_removed.append(&mut self.removed);
            // However often it has to be tried again, no key is held twice.
            for keys in [&mut self.frozen, &mut self.frozen_removed] {
                keys.sort_unstable();
                keys.dedup();
            }
        } else {
            // Millions of keys take long to be dropped.
            out.discard(std::mem::replace(
                &mut self.frozen,
                std::mem::take(&mut self.changed),
            ));
            out.discard(std::mem::replace(
                &mut self.frozen_removed,
                std::mem::take(&mut self.removed),
            ));
            self.before = self.since;
        }
        (self.since, self.at, self.at_removed) = (at, 0, 0);
        self.out = Some(out);
    }

    /// See [`Stateful::save`]. `save` gets each key and the epoch of the freeze, and puts the entry out if it is there and did
    /// not change since.
    pub fn save(&mut self, entries_max: usize, save: impl FnMut(&mut Out, &K, Epoch)) -> bool
    where
        K: Serialize,
    {
        self.save_with(entries_max, |out, key, epoch| out.remove(key, epoch), save)
    }

    /// Like [`Changed::save`]; `remove` gets the keys that were removed.
    pub(crate) fn save_with(
        &mut self,
        entries_max: usize,
        mut remove: impl FnMut(&mut Out, &K, Epoch),
        mut save: impl FnMut(&mut Out, &K, Epoch),
    ) -> bool {
        let Some(out) = &mut self.out else {
            return false;
        };
        let mut left = entries_max;
        while left > 0 && self.at_removed < self.frozen_removed.len() {
            remove(out, &self.frozen_removed[self.at_removed], self.since);
            self.at_removed += 1;
            left -= 1;
        }
        while left > 0 && self.at < self.frozen.len() {
            save(out, &self.frozen[self.at], self.since);
            self.at += 1;
            left -= 1;
        }
        if left == 0 {
            return true;
        }
        self.out = None;
        false
    }
}

/// A step's state, shared by its operator and by whoever saves it.
pub struct Kept<S>(Rc<Inner<S>>);

struct Inner<S> {
    step: usize,
    steps: Rc<Steps>,
    frozen: Cell<Epoch>,
    /// As of the freeze.
    bounds: Cell<Bounds>,
    state: RefCell<S>,
}

impl<S: Stateful + 'static> Kept<S> {
    fn new(step: usize, steps: Rc<Steps>, state: S) -> Self {
        Self(Rc::new(Inner {
            step,
            steps,
            frozen: Cell::new(Epoch::ZERO),
            bounds: Cell::default(),
            state: RefCell::new(state),
        }))
    }

    /// State that no checkpoint holds.
    pub fn unsaved(state: S) -> Self {
        Self::new(usize::MAX, Rc::default(), state)
    }

    /// For a second hand.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// The state, to apply what belongs to `epoch`. Epochs never go back.
    pub fn at(&self, epoch: Epoch) -> RefMut<'_, S> {
        if let Some(begun) = &*self.0.steps.begun.borrow()
            && begun.epoch < epoch
        {
            self.0.freeze(begun);
        }
        self.0.state.borrow_mut()
    }
}

impl<S: Stateful> Inner<S> {
    fn freeze(&self, begun: &Begun) {
        if self.frozen.replace(begun.epoch) < begun.epoch {
            let out = Out::new(self.step, begun.job.clone());
            let mut state = self.state.borrow_mut();
            state.freeze(begun.epoch, begun.again, out);
            self.bounds.set(state.bounds());
        }
    }
}

trait Savable {
    fn freeze(&self, begun: &Begun);
    fn save(&self, entries_max: usize) -> bool;
    fn bounds(&self) -> Bounds;
}

impl<S: Stateful> Savable for Inner<S> {
    fn freeze(&self, begun: &Begun) {
        Inner::freeze(self, begun);
    }
    fn save(&self, entries_max: usize) -> bool {
        self.state.borrow_mut().save(entries_max)
    }
    fn bounds(&self) -> Bounds {
        self.bounds.get()
    }
}

#[derive(Clone)]
struct Begun {
    epoch: Epoch,
    again: bool,
    job: Arc<Job>,
}

type Load = Box<dyn FnOnce() + Send>;
type Put = Box<dyn FnOnce()>;

/// The stateful steps of one worker, in the order in which the dataflow is built.
#[derive(Default)]
pub struct Steps {
    all: RefCell<Vec<Rc<dyn Savable>>>,
    begun: RefCell<Option<Begun>>,
    /// The step that is being saved, once the epoch is closed.
    at: Cell<Option<usize>>,
    /// What is to be loaded before the first step.
    loads: RefCell<Vec<(Load, Put)>>,
}

/// Entries between two looks at the clock; few in unit tests, where there are few in all.
const SLICE: usize = if cfg!(test) { 4 } else { 256 };

impl Steps {
    /// Takes in the next step's state.
    pub fn keep<S: Stateful + 'static>(self: &Rc<Self>, state: S) -> Kept<S> {
        let mut all = self.all.borrow_mut();
        let kept = Kept::new(all.len(), self.clone(), state);
        all.push(kept.0.clone());
        kept
    }

    /// Has something loaded by [`load_all`](Self::load_all), and put where it belongs.
    pub(crate) fn load<T: Send + 'static>(
        &self,
        load: impl FnOnce() -> T + Send + 'static,
        put: impl FnOnce(T) + 'static,
    ) {
        let loaded = Arc::new(Mutex::new(None));
        let place = loaded.clone();
        let load = move || {
            let what = load();
            *place.lock() = Some(what);
        };
        let put = move || {
            if let Some(what) = loaded.lock().take() {
                put(what);
            }
        };
        self.loads.borrow_mut().push((Box::new(load), Box::new(put)));
    }

    /// Loads all state, on so many threads with this one. A panic on one of them becomes this one's.
    pub(crate) fn load_all(&self, threads: usize) {
        let (loads, puts): (Vec<_>, Vec<_>) = self.loads.take().into_iter().unzip();
        let others = threads.min(loads.len()).saturating_sub(1);
        let loads = Mutex::new(loads.into_iter());
        let next = || loads.lock().next();
        let work = || std::iter::from_fn(next).for_each(|load| load());
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            work();
            for other in others {
                if let Err(panic) = other.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        puts.into_iter().for_each(|put| put());
    }

    /// Lets go of all state: steps and what they belong to hold each other.
    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.all.borrow_mut().clear();
    }

    /// A checkpoint as of `epoch`, which has not been applied yet.
    pub(crate) fn begin(&self, epoch: Epoch, job: Arc<Job>) {
        let again = job.again;
        *self.begun.borrow_mut() = Some(Begun { epoch, again, job });
    }

    /// The worker is done with `epoch`: freezes what has not frozen by itself.
    pub(crate) fn closed(&self, epoch: Epoch) {
        let begun = self.begun.borrow().clone();
        if let Some(begun) = begun.filter(|begun| begun.epoch == epoch) {
            self.all.borrow().iter().for_each(|step| step.freeze(&begun));
            self.at.set(Some(0));
        }
    }

    /// Whether something is to be saved.
    pub(crate) fn is_saving(&self) -> bool {
        self.at.get().is_some()
    }

    /// Whether so much waits to be written that saving had better wait.
    pub(crate) fn is_crowded(&self) -> bool {
        let begun = self.begun.borrow();
        begun.as_ref().is_some_and(|begun| begun.job.is_crowded())
    }

    /// Saves on while `go_on`.
    pub(crate) fn save(&self, mut go_on: impl FnMut() -> bool) {
        let Some(mut at) = self.at.get() else {
            return;
        };
        let all = self.all.borrow();
        while let Some(step) = all.get(at) {
            if !go_on() {
                self.at.set(Some(at));
                return;
            }
            at += usize::from(!step.save(SLICE));
        }
        self.at.set(None);
        if let Some(begun) = self.begun.borrow_mut().take() {
            begun.job.done(all.iter().map(|step| step.bounds()).collect());
        }
    }
}
