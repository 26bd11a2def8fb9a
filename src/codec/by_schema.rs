//! What a decoder made of each schema id: decided once an id, by what the registry and the ledger say of it.
//!
//! ```text
//!   id ─┬─ of the record before ─▶ place ┐
//!       ├─ decided ──────────────▶ place ┤
//!       ├─ known since an offset ─▶ place ┼─▶ what was made of the schema
//!       └─ Registry::lookup ─ judge ─────┘
//! ```

use std::collections::{HashMap, HashSet};

use super::registry::{Lookup, RecordLocation, Registry, Verdict, WriterSchema};
use crate::bridge::Waker;
use crate::error::Error;
use crate::position::Offset;

/// What a decoder made of the schemas of its source.
pub(super) struct BySchema<V> {
    registry: Registry,
    waker: Waker,
    /// What was made of each schema; `places` says where it is. Records mostly have the id of the one before.
    made: Vec<V>,
    places: HashMap<u32, usize>,
    last: Option<(u32, usize)>,
    /// The same of ids that were unknown once: by partition, with the offset from which on they are known
    /// there.
    late: HashMap<(u32, u32), (Offset, usize)>,
    /// Where the records stand that are decoded now.
    at: RecordLocation,
    /// Ids that the waker waits for already.
    waiting: HashSet<u32>,
}

/// What to do with a record of some schema id.
pub(super) enum Ruling {
    /// What was made of its schema, by its place.
    Made(usize),
    /// Nothing can be done: the registry does not know its schema.
    Unknown,
    /// Its schema is being fetched.
    Wait,
}

impl<V> BySchema<V> {
    pub(super) fn new(registry: Registry, waker: Waker) -> Self {
        Self {
            registry,
            waker,
            made: Vec::new(),
            places: HashMap::new(),
            last: None,
            late: HashMap::new(),
            at: RecordLocation::default(),
            waiting: HashSet::new(),
        }
    }

    /// See [`Decode::enter`](super::Decode::enter).
    pub(super) fn enter(&mut self, partition: u32, bound: bool) {
        self.at.partition = partition;
        self.at.bound = bound;
    }

    /// Where in the partition the next record stands.
    #[inline]
    pub(super) fn stand(&mut self, offset: Offset) {
        self.at.offset = offset;
    }

    #[inline]
    pub(super) fn made(&self, place: usize) -> &V {
        &self.made[place]
    }

    #[inline]
    pub(super) fn made_mut(&mut self, place: usize) -> &mut V {
        &mut self.made[place]
    }

    /// What to do with a record of an id. `judge` makes what is made of its schema.
    #[inline]
    pub(super) fn ruling(&mut self, id: u32, judge: impl FnOnce(&WriterSchema) -> V) -> Ruling {
        match self.last {
            Some((last, place)) if last == id => Ruling::Made(place),
            _ => self.look_up(id, judge),
        }
    }

    fn look_up(&mut self, id: u32, judge: impl FnOnce(&WriterSchema) -> V) -> Ruling {
        if let Some(&place) = self.places.get(&id) {
            self.last = Some((id, place));
            return Ruling::Made(place);
        }
        match self.late.get(&(id, self.at.partition)) {
            Some(&(since, place)) if self.at.offset >= since => Ruling::Made(place),
            _ => self.decide(id, judge),
        }
    }

    #[cold]
    fn decide(&mut self, id: u32, judge: impl FnOnce(&WriterSchema) -> V) -> Ruling {
        // One waker an id is enough, however often the reader tries.
        let waker = (!self.waiting.contains(&id)).then_some(&self.waker);
        let found = self.registry.lookup(id, self.at, waker);
        if found == Lookup::Pending {
            self.waiting.insert(id);
            return Ruling::Wait;
        }
        self.waiting.remove(&id);
        match found {
            Lookup::Pending => Ruling::Wait,
            Lookup::Unknown => Ruling::Unknown,
            Lookup::Known(schema) => {
                let place = self.enter_made(judge(&schema));
                self.places.insert(id, place);
                self.last = Some((id, place));
                Ruling::Made(place)
            }
            Lookup::KnownSince(schema, since) => {
                let known = self.late.iter().find(|((of, _), _)| *of == id);
                let place = match known.map(|(_, (_, place))| *place) {
                    Some(place) => place,
                    None => self.enter_made(judge(&schema)),
                };
                self.late.insert((id, self.at.partition), (since, place));
                Ruling::Made(place)
            }
        }
    }

    fn enter_made(&mut self, made: V) -> usize {
        self.made.push(made);
        self.made.len() - 1
    }

    /// See [`Decode::schemas_seen`](super::Decode::schemas_seen).
    pub(super) fn seen(&mut self) -> Vec<Verdict> {
        self.registry.seen()
    }

    /// See [`Decode::bind_schema`](super::Decode::bind_schema).
    pub(super) fn bind(&mut self, verdict: Verdict) {
        self.registry.bind(verdict);
    }

    /// See [`Decode::broken`](super::Decode::broken).
    pub(super) fn broken(&self) -> Option<Error> {
        self.registry.broken()
    }
}

/// Says in the log that nothing of a schema can be decoded.
pub(super) fn undecodable(schema: &WriterSchema, why: &str) {
    tracing::warn!(
        schema = schema.id,
        reason = why,
        "incompatible schema; its records become dead letters"
    );
}
