//! A Kafka topic whose partitions are read at speeds of the test's choosing.
//!
//! ```text
//!   partition 0   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓┃
//!   partition 1                           ┃▓▓▓▓▓▓▓▓▓▓▓▓▓▓   paused until the others were read to their ends
//!   partition 2   ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓ ▓   slow: a few records a read
//! ```

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thalweg::bridge::Waker;
use thalweg::codec::registry::Verdict;
use thalweg::position::Offset;
use thalweg::source::{Environment, Intake, OpenedSource, ReadProgress, Reader, Source};
use thalweg::{Event, Result};

/// Which partitions are held up, and how. None by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pace {
    /// Partitions of which one read brings at most so many records.
    pub slow: BTreeMap<u32, usize>,
    /// A partition that is not read before these were, each up to its offset.
    pub paused: Option<(u32, Vec<(u32, Offset)>)>,
    /// Partitions that are not read beyond an offset, though there is more.
    pub held: BTreeMap<u32, Offset>,
}

/// A source, read at a pace.
pub struct Paced<S> {
    pub source: S,
    pub pace: Pace,
    pub readers: Readers,
}

/// What the readers of all workers know of each other.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Up to where each partition was read.
    read: BTreeMap<u32, Offset>,
    /// Of readers that may hold a partition up.
    wakers: Vec<Waker>,
}

impl Readers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Event, S: Source<T>> Source<T> for Paced<S> {
    fn open(self, env: &Environment) -> Result<OpenedSource<T>> {
        let opened = self.source.open(env)?;
        let (inner, pace, readers) = (opened.reader, self.pace, self.readers);
        Ok(OpenedSource {
            reader: Box::new(move |waker| {
                readers.state().wakers.push(waker.clone());
                Ok(Box::new(PacedReader {
                    inner: inner(waker)?,
                    pace,
                    readers,
                    at: BTreeMap::new(),
                    of: PhantomData,
                }))
            }),
            ..opened
        })
    }
}

struct PacedReader<T> {
    inner: Box<dyn Reader<T>>,
    pace: Pace,
    readers: Readers,
    at: BTreeMap<u32, Offset>,
    of: PhantomData<T>,
}

impl<T> PacedReader<T> {
    fn is_paused(&self, partition: u32) -> bool {
        let Some((paused, until)) = &self.pace.paused else {
            return false;
        };
        let state = self.readers.state();
        let is_read = |(of, end): &(u32, Offset)| state.read.get(of).is_some_and(|at| at >= end);
        *paused == partition && !until.iter().all(is_read)
    }
}

impl<T: 'static> Reader<T> for PacedReader<T> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        self.at.insert(partition, from);
        self.inner.assign(partition, from)
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress> {
        let at = self.at[&partition];
        let held = self.pace.held.get(&partition).copied().unwrap_or(Offset::MAX);
        if self.is_paused(partition) || at >= held {
            return Ok(ReadProgress {
                position: at,
                at_end: false,
                more: false,
            });
        }
        let slow = self.pace.slow.get(&partition).copied().unwrap_or(usize::MAX);
        let progress = self
            .inner
            .read(partition, until.min(held), records_max.min(slow), intake)?;
        self.at.insert(partition, progress.position);
        let mut state = self.readers.state();
        let before = state.read.insert(partition, progress.position);
        if self.pace.paused.is_some() && before != Some(progress.position) {
            state.wakers.iter().for_each(Waker::wake);
        }
        drop(state);
        Ok(progress)
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.inner.schemas_seen()
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.inner.bind_schema(verdict);
    }

    fn show_progress(&mut self, positions: &[(u32, Offset)]) {
        self.inner.show_progress(positions);
    }
}
