//! Watermarks of sources, and of streams from several sources: a fold over the ledger's bindings.
//!
//! ```text
//!   binding n ──▶ WatermarkFold ──▶ Watermarks as of n ──▶ timeline: horizons of events, windows close and expire
//!                   ▲                          └─▶ view::Moment: `watermark` and `closed` of every answer
//!                   └── track(S), while the dataflow is built
//! ```
//!
//! The watermark W(n) of a source is bound. That of a set S of sources is
//!
//! ```text
//!   E(n) = max( E(n−1), min { W(n) of s | s in S, s not idle at n } )          all of them idle: E(n) = E(n−1)
//! ```
//!
//! so a silent source holds nobody back, and what was closed stays closed when it returns. A source without
//! any binding yet is not idle and has no watermark: it holds E at [`EventTime::MIN`]. A binding states
//! explicitly whether a source is idle ([`EpochBinding::idle`]): a partition that was never read is in no
//! binding, so the ranges alone cannot tell.
//!
//! E depends on its history and not only on the epoch's own facts, so sets must be
//! [tracked](WatermarkFold::track) from the first binding on. Every worker of every process sees every
//! binding, in a replay too, and builds the same dataflow: all of them compute the same E at every epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::position::{EpochBinding, SourceId};
use crate::time::EventTime;

/// The state of one source as of an epoch.
#[derive(Clone, Copy, Debug)]
struct SourceMark {
    watermark: EventTime,
    idle: bool,
}

/// A source without bindings.
const UNHEARD: SourceMark = SourceMark {
    watermark: EventTime::MIN,
    idle: false,
};

/// The fold: takes bindings in order and returns the watermarks as of each.
#[derive(Debug, Default)]
pub struct WatermarkFold {
    sources: BTreeMap<SourceId, SourceMark>,
    sets: BTreeMap<Arc<[SourceId]>, EventTime>,
    now: Arc<Watermarks>,
}

impl WatermarkFold {
    /// Tracks the watermark of a set of sources as well. Must be called before the first binding; single
    /// sources, and sets already tracked, need no call.
    pub fn track(&mut self, sources: &[SourceId]) {
        if let [_, _, ..] = sources {
            self.sets.entry(ordered(sources).into()).or_insert(EventTime::MIN);
        }
    }

    /// Starts from the fold `base` with the given watermarks of sets. Returns the watermarks there.
    pub fn seed(&mut self, base: &EpochBinding, sets: &[(Vec<SourceId>, EventTime)]) -> Arc<Watermarks> {
        self.apply(base);
        for (set, watermark) in sets {
            if let Some(known) = self.sets.get_mut(set.as_slice()) {
                *known = (*known).max(*watermark);
            }
        }
        self.now = self.watermarks();
        self.now.clone()
    }

    /// Applies the next binding and returns the watermarks as of its epoch.
    pub fn apply(&mut self, binding: &EpochBinding) -> Arc<Watermarks> {
        if binding.watermarks.is_empty() && binding.idle.is_empty() {
            return self.now.clone();
        }
        for (source, watermark) in &binding.watermarks {
            self.sources.entry(*source).or_insert(UNHEARD).watermark = *watermark;
        }
        for (source, idle) in &binding.idle {
            self.sources.entry(*source).or_insert(UNHEARD).idle = *idle;
        }
        for (set, watermark) in &mut self.sets {
            let marks = set
                .iter()
                .map(|source| self.sources.get(source).unwrap_or(&UNHEARD));
            let low = marks.filter(|mark| !mark.idle).map(|mark| mark.watermark).min();
            *watermark = low.map_or(*watermark, |low| low.max(*watermark));
        }
        self.now = self.watermarks();
        self.now.clone()
    }

    fn watermarks(&self) -> Arc<Watermarks> {
        Arc::new(Watermarks {
            sources: self
                .sources
                .iter()
                .map(|(source, mark)| (*source, mark.watermark))
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|(set, watermark)| (set.clone(), *watermark))
                .collect(),
        })
    }
}

/// The watermarks as of one epoch.
///
/// ```
/// use thalweg::position::SourceId;
/// use thalweg::{EventTime, watermark::Watermarks};
/// let (a, b) = (SourceId::of("a"), SourceId::of("b"));
/// let watermarks = Watermarks::from_iter([(a, EventTime(7)), (b, EventTime(5))]);
/// assert_eq!(watermarks.of(&[a]), EventTime(7));
/// assert_eq!(watermarks.of(&[a, b]), EventTime(5));
/// assert_eq!(watermarks.of(&[a, SourceId::of("c")]), EventTime::MIN); // nothing is known of c
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// By source.
    sources: Vec<(SourceId, EventTime)>,
    /// E of every tracked set.
    sets: Vec<(Arc<[SourceId]>, EventTime)>,
}

impl Watermarks {
    /// E of the tracked sets.
    pub fn sets(&self) -> Vec<(Vec<SourceId>, EventTime)> {
        self.sets
            .iter()
            .map(|(set, watermark)| (set.to_vec(), *watermark))
            .collect()
    }

    /// The watermark of a stream from `sources`, in any order: no on-time event below it is still to come.
    /// [`EventTime::MIN`] if nothing is known yet, and for an empty set.
    ///
    /// For a set that was not [tracked](WatermarkFold::track) it is the minimum over its sources, idle or
    /// not. That never exceeds the set's E, because the W of an idle source does not rise.
    pub fn of(&self, sources: &[SourceId]) -> EventTime {
        let sources = ordered(sources);
        let tracked = self.sets.iter().find(|(set, _)| **set == *sources);
        let own = |id: &SourceId| {
            let at = self.sources.binary_search_by_key(id, |(source, _)| *source);
            at.map_or(EventTime::MIN, |at| self.sources[at].1)
        };
        match tracked {
            Some((_, watermark)) => *watermark,
            None => sources.iter().map(own).min().unwrap_or(EventTime::MIN),
        }
    }
}

/// The watermarks of sources, without tracked sets.
impl FromIterator<(SourceId, EventTime)> for Watermarks {
    fn from_iter<I: IntoIterator<Item = (SourceId, EventTime)>>(watermarks: I) -> Self {
        let by_source: BTreeMap<_, _> = watermarks.into_iter().collect();
        Self {
            sources: by_source.into_iter().collect(),
            sets: Vec::new(),
        }
    }
}

fn ordered(sources: &[SourceId]) -> std::borrow::Cow<'_, [SourceId]> {
    if sources.is_sorted_by(|a, b| a < b) {
        return sources.into();
    }
    let mut sources = sources.to_vec();
    sources.sort_unstable();
    sources.dedup();
    sources.into()
}

#[cfg(test)]
mod tests;
