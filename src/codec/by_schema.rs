//! Looks up what a decoder compiled for a schema id. Each id is resolved once, from the registry and the
//! ledger.
//!
//! ```text
//!   id ─┬─ same as the record before ─▶ index ┐
//!       ├─ resolved ──────────────────▶ index ┼─▶ compiled schema
//!       ├─ known since an offset ─────▶ index ┤
//!       └─ Registry::lookup ─ compile ────────┘
//! ```

use std::collections::{HashMap, HashSet};

use super::registry::{Lookup, RecordLocation, Registry, Verdict, WriterSchema};
use super::{Cause, Decoded};
use crate::bridge::Waker;
use crate::error::Error;
use crate::position::Offset;

/// The compiled schemas of a decoder, by schema id.
pub(super) struct BySchema<V> {
    registry: Registry,
    waker: Waker,
    /// `None`: the schema is incompatible.
    compiled: Vec<Option<V>>,
    /// Indices into `compiled`.
    indices: HashMap<u32, usize>,
    /// The id of the record before, which most records share, and its index.
    last: Option<(u32, usize)>,
    /// Ids that were unknown at first: by id and partition, the offset from which they are known there.
    late: HashMap<(u32, u32), (Offset, usize)>,
    /// The location of the current record.
    at: RecordLocation,
    /// Ids for which the waker is already registered.
    waiting: HashSet<u32>,
}

/// The result of looking up a schema id.
enum SchemaLookup {
    /// The index of the compiled schema.
    Compiled(usize),
    /// The registry does not know the id.
    Unknown,
    /// The schema is being fetched.
    Pending,
}

impl<V> BySchema<V> {
    pub(super) fn new(registry: Registry, waker: Waker) -> Self {
        Self {
            registry,
            waker,
            compiled: Vec::new(),
            indices: HashMap::new(),
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

    /// Sets the offset of the next record.
    #[inline]
    pub(super) fn set_offset(&mut self, offset: Offset) {
        self.at.offset = offset;
    }

    /// Returns the compiled schema of an id, or the result for a record that cannot be decoded for lack of
    /// one. `compile` is called once per schema; what it fails with is logged.
    #[inline]
    pub(super) fn lookup<T>(
        &mut self,
        id: u32,
        compile: impl FnOnce(&WriterSchema) -> Result<V, String>,
    ) -> Result<&mut V, Decoded<T>> {
        let found = match self.last {
            Some((last, index)) if last == id => SchemaLookup::Compiled(index),
            _ => self.lookup_other(id, compile),
        };
        match found {
            SchemaLookup::Pending => Err(Decoded::Wait),
            SchemaLookup::Unknown => Err(Decoded::Dead(Cause::SchemaUnknown, Some(id))),
            SchemaLookup::Compiled(index) => self.compiled[index]
                .as_mut()
                .ok_or_else(|| Decoded::Dead(Cause::SchemaIncompatible, Some(id))),
        }
    }

    fn lookup_other(
        &mut self,
        id: u32,
        compile: impl FnOnce(&WriterSchema) -> Result<V, String>,
    ) -> SchemaLookup {
        if let Some(&index) = self.indices.get(&id) {
            self.last = Some((id, index));
            return SchemaLookup::Compiled(index);
        }
        match self.late.get(&(id, self.at.partition)) {
            Some(&(since, index)) if self.at.offset >= since => SchemaLookup::Compiled(index),
            _ => self.resolve(id, compile),
        }
    }

    #[cold]
    fn resolve(&mut self, id: u32, compile: impl FnOnce(&WriterSchema) -> Result<V, String>) -> SchemaLookup {
        // One waker per id is enough, however often the reader tries.
        let waker = (!self.waiting.contains(&id)).then_some(&self.waker);
        let found = self.registry.lookup(id, self.at, waker);
        if found == Lookup::Pending {
            self.waiting.insert(id);
            return SchemaLookup::Pending;
        }
        self.waiting.remove(&id);
        match found {
            Lookup::Pending => SchemaLookup::Pending,
            Lookup::Unknown => SchemaLookup::Unknown,
            Lookup::Known(schema) => {
                let index = self.push_compiled(&schema, compile);
                self.indices.insert(id, index);
                self.last = Some((id, index));
                SchemaLookup::Compiled(index)
            }
            Lookup::KnownSince(schema, since) => {
                let known = self.late.iter().find(|((of, _), _)| *of == id);
                let index = match known.map(|(_, (_, index))| *index) {
                    Some(index) => index,
                    None => self.push_compiled(&schema, compile),
                };
                self.late.insert((id, self.at.partition), (since, index));
                SchemaLookup::Compiled(index)
            }
        }
    }

    fn push_compiled(
        &mut self,
        schema: &WriterSchema,
        compile: impl FnOnce(&WriterSchema) -> Result<V, String>,
    ) -> usize {
        let compiled = compile(schema).inspect_err(|why| {
            tracing::warn!(
                schema = schema.id,
                reason = why,
                "incompatible schema; its records become dead letters"
            );
        });
        self.compiled.push(compiled.ok());
        self.compiled.len() - 1
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
