//! An operator's handle to its state: loads it from a checkpoint, and registers it for the next one.

use std::rc::Rc;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::entry::{Entry, decode, decode_key};
use super::manifest::{EntryRule, StepFiles};
use super::state::{DirtyKeys, Stateful};
use super::steps::{StateCell, StatefulSteps};
use super::store::RestoredCheckpoint;
use crate::bridge::Halt;
use crate::error::Result;
use crate::fault;
use crate::record::{Record, owner, route};
use crate::time::{Epoch, EventTime};

/// The handle of a stateful step to its checkpoints, on one worker.
pub(crate) struct StateHandle {
    steps: Rc<StatefulSteps>,
    saves: bool,
    loader: StateLoader,
}

/// The part of a [`StateHandle`] that loads, usable on any thread.
#[derive(Clone)]
pub(crate) struct StateLoader {
    step: usize,
    restored: Option<Arc<RestoredCheckpoint>>,
    worker: usize,
    peers: usize,
    halt: Halt,
}

/// An entry with its types.
pub(crate) struct LoadedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The epoch of its last change.
    pub epoch: Epoch,
    /// The value; `None` if the key was removed.
    pub value: Option<V>,
}

impl StateHandle {
    /// A handle for steps without checkpoints.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self::new(Rc::default(), false, usize::MAX, None, (0, 1), Halt::default())
    }

    /// The handle of the step with this index, on worker `worker.0` of `worker.1`.
    pub(crate) fn new(
        steps: Rc<StatefulSteps>,
        saves: bool,
        step: usize,
        restored: Option<Arc<RestoredCheckpoint>>,
        (worker, peers): (usize, usize),
        halt: Halt,
    ) -> Self {
        Self {
            steps,
            saves,
            loader: StateLoader {
                step,
                restored,
                worker,
                peers,
                halt,
            },
        }
    }

    /// The epoch that the run was restored as of, if it was, whether or not this step has state in the
    /// checkpoint.
    pub(crate) fn restored(&self) -> Option<Epoch> {
        let restored = self.loader.restored.as_ref();
        restored.map(|restored| restored.manifest.epoch)
    }

    /// The epoch that this step's state was restored as of, if it was.
    pub(crate) fn held(&self) -> Option<Epoch> {
        self.loader.files().and(self.restored())
    }

    /// Whether checkpoints are written.
    pub(crate) fn saves(&self) -> bool {
        self.saves
    }

    /// The first epoch of which versions were kept.
    pub(crate) fn floor(&self) -> Epoch {
        self.loader.files().map_or(Epoch::ZERO, |files| files.floor)
    }

    /// Entries whose `until` is at or before this have expired.
    pub(crate) fn cut(&self) -> EventTime {
        self.loader.files().map_or(EventTime::MIN, |files| files.cut)
    }

    /// Tracks which entries change.
    pub(crate) fn changed<K: Ord + Send + 'static>(&self) -> DirtyKeys<K> {
        match (self.saves, self.held()) {
            (false, _) => DirtyKeys::off(),
            (true, None) => DirtyKeys::default(),
            (true, Some(epoch)) => DirtyKeys::since(epoch),
        }
    }

    /// Registers the step's state.
    pub(crate) fn keep<S: Stateful + 'static>(&self, state: S) -> StateCell<S> {
        if self.saves {
            self.steps.keep(state)
        } else {
            StateCell::unsaved(state)
        }
    }

    /// Registers the step's state, part of which may be in a checkpoint. Once the dataflow is built, `load`
    /// loads that part, on any thread, and `put` adds it to the state before the worker's first step.
    pub(crate) fn keep_restored<S: Stateful + 'static, T: Send + 'static>(
        &self,
        state: S,
        load: impl FnOnce(&StateLoader) -> T + Send + 'static,
        put: impl FnOnce(&mut S, T) + 'static,
    ) -> StateCell<S> {
        let kept = self.keep(state);
        if self.held().is_some() {
            let (loader, state) = (self.loader.clone(), kept.share());
            self.steps.load(
                move || load(&loader),
                move |loaded| put(&mut state.at(Epoch::ZERO), loaded),
            );
        }
        kept
    }
}

impl StateLoader {
    fn files(&self) -> Option<&StepFiles> {
        self.restored.as_ref()?.files(self.step)
    }

    /// The approximate number of entries that this worker will load.
    pub(crate) fn entries(&self) -> usize {
        let segments = self.files().into_iter().flat_map(|files| &files.segments);
        let largest = segments.map(|segment| segment.entries).max().unwrap_or(0);
        largest as usize / self.peers
    }

    /// Loads the entries that this worker owns according to `routed`, a part of the key. The entries of a key
    /// arrive in order, oldest first. An error halts the service.
    pub(crate) fn load<K: Record, V: DeserializeOwned, R: Record>(
        &self,
        routed: impl Fn(&K) -> &R,
        mut take: impl FnMut(LoadedEntry<K, V>),
    ) {
        // Two encodings of one row add up; but of a key with two encodings, changes and removals would reach
        // only one.
        let adds = self
            .files()
            .is_some_and(|files| files.shape.rule == EntryRule::Sum);
        let key_of = if adds { decode::<K> } else { decode_key::<K> };
        self.each(&mut |entry| {
            let key = key_of(entry.key)?;
            let owned = self.owns(route(routed(&key)));
            if owned {
                take(LoadedEntry {
                    key,
                    epoch: entry.epoch,
                    value: entry.value.map(decode).transpose()?,
                });
            }
            Ok(owned)
        });
    }

    /// Loads the encoded entries that this worker owns according to `route_of`. Otherwise like
    /// [`StateLoader::load`].
    pub(crate) fn load_encoded(
        &self,
        route_of: impl Fn(&[u8]) -> Result<u64>,
        mut take: impl FnMut(Entry<'_>),
    ) {
        self.each(&mut |entry| {
            let owned = self.owns(route_of(entry.key)?);
            if owned {
                take(entry);
            }
            Ok(owned)
        });
    }

    fn owns(&self, route: u64) -> bool {
        owner(route, self.peers) == self.worker
    }

    /// Passes every entry to `take`, which returns whether it took it.
    fn each(&self, take: &mut dyn FnMut(Entry<'_>) -> Result<bool>) {
        let Some(restored) = &self.restored else {
            return;
        };
        let loaded = restored.each(self.step, &mut |entry| {
            if take(entry)? {
                fault::point("restore.entry");
            }
            Ok(())
        });
        fault::point("restore.step");
        if let Err(error) = loaded {
            self.halt.halt(error);
        }
    }
}
