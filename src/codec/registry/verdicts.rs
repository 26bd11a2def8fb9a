//! What one source goes by: its verdicts on schema ids, as the ledger has them or will have them.

use std::collections::HashMap;

use super::fetch::KnownSchema;
use super::{Lookup, Registry, RegistryClient, WriterSchema};
use crate::bridge::Waker;
use crate::codec::verdict::{RecordLocation, Verdict};
use crate::error::Error;
use crate::position::Offset;

#[derive(Default)]
pub(super) struct Verdicts {
    /// The first verdict on each id: the fingerprint, or that it is unknown.
    first: HashMap<u32, Option<u64>>,
    /// Where an id that was unknown became known: by id and partition, the offset and the fingerprint.
    since: HashMap<(u32, u32), (Offset, u64)>,
    /// Those that did not come from the ledger, in order.
    news: Vec<Verdict>,
}

impl Registry {
    /// What the source goes by for a record of schema `id` at `place`. The first call for an id starts to ask
    /// for it; on [`Lookup::Pending`], `waker` is called when there is more to know. Never blocks.
    pub fn lookup(&self, id: u32, place: RecordLocation, waker: Option<&Waker>) -> Lookup {
        self.source.lock().lookup(id, place, waker, &self.shared)
    }

    /// Binds an id to the ledger's verdict, whatever the registry says by now: if it has another text than
    /// the verdict's, that is an error of [`Registry::broken`]. To be called before the records that the
    /// verdict is for are read; decoders keep what they were told.
    pub fn bind(&self, verdict: Verdict) {
        let mut source = self.source.lock();
        match (verdict.since, verdict.fingerprint) {
            (Some((partition, offset)), Some(fingerprint)) => {
                source
                    .since
                    .insert((verdict.id, partition), (offset, fingerprint));
            }
            _ => {
                source.first.insert(verdict.id, verdict.fingerprint);
            }
        }
        source.check(verdict.id, &self.shared);
        drop(source);
        self.shared.refetch(verdict.id);
    }

    /// Verdicts that came since this clone's last call. Those that the ledger had bound are left out. Every
    /// verdict that a decoder has gone by is in here or was before, as a decoder can't know of it sooner.
    pub fn seen(&mut self) -> Vec<Verdict> {
        let source = self.source.lock();
        let news = source.news[self.reported..].to_vec();
        self.reported = source.news.len();
        news
    }
}

impl Verdicts {
    fn lookup(
        &mut self,
        id: u32,
        place: RecordLocation,
        waker: Option<&Waker>,
        shared: &std::sync::Arc<RegistryClient>,
    ) -> Lookup {
        match self.first.get(&id).copied() {
            None => match shared.look(id, waker) {
                KnownSchema::Pending => Lookup::Pending,
                KnownSchema::No => {
                    self.first.insert(id, None);
                    self.tell(id, None, None);
                    Lookup::Unknown
                }
                KnownSchema::Schema(schema) => {
                    self.first.insert(id, Some(schema.fingerprint));
                    self.tell(id, Some(schema.fingerprint), None);
                    Lookup::Known(schema)
                }
            },
            Some(Some(fingerprint)) => match shared.look(id, waker) {
                KnownSchema::Schema(schema) if schema.fingerprint == fingerprint => Lookup::Known(schema),
                other => shared.broken_unless_pending(id, fingerprint, other),
            },
            Some(None) => match self.since.get(&(id, place.partition)).copied() {
                Some((offset, fingerprint)) if place.offset >= offset => match shared.look(id, waker) {
                    KnownSchema::Schema(schema) if schema.fingerprint == fingerprint => {
                        Lookup::KnownSince(schema, offset)
                    }
                    other => shared.broken_unless_pending(id, fingerprint, other),
                },
                // What an earlier run left undecoded stays so.
                Some(_) => Lookup::Unknown,
                None if place.bound => Lookup::Unknown,
                None => match shared.look_again(id, waker) {
                    KnownSchema::Pending => Lookup::Pending,
                    KnownSchema::No => Lookup::Unknown,
                    KnownSchema::Schema(schema) => {
                        let (partition, offset) = (place.partition, place.offset);
                        self.since.insert((id, partition), (offset, schema.fingerprint));
                        self.tell(id, Some(schema.fingerprint), Some((partition, offset)));
                        Lookup::KnownSince(schema, offset)
                    }
                },
            },
        }
    }

    fn tell(&mut self, id: u32, fingerprint: Option<u64>, since: Option<(u32, Offset)>) {
        self.news.push(Verdict {
            id,
            fingerprint,
            since,
        });
    }

    /// Holds what the registry has for an id against the verdicts on it, if it is there.
    pub(super) fn check(&self, id: u32, shared: &RegistryClient) {
        let Some(schema) = shared.known(id) else { return };
        let late = self.since.iter().filter(|((of, _), _)| *of == id);
        let bound = late.map(|(_, (_, fingerprint))| *fingerprint);
        let first = self.first.get(&id).copied().flatten();
        if let Some(expected) = bound.chain(first).find(|bound| *bound != schema.fingerprint) {
            shared.break_off(id, expected, &text_of(&schema));
        }
    }
}

impl RegistryClient {
    /// The schema of an id, asking nobody.
    fn known(&self, id: u32) -> Option<std::sync::Arc<WriterSchema>> {
        match self.state.lock().ids.get(&id) {
            Some(super::SchemaEntry::Known(schema)) => Some(schema.clone()),
            _ => None,
        }
    }

    /// For an id that is bound to a text which is not what the registry has: nothing can be decoded any more.
    fn broken_unless_pending(&self, id: u32, expected: u64, known: KnownSchema) -> Lookup {
        match known {
            KnownSchema::Pending => {}
            KnownSchema::No => self.break_off(id, expected, "the registry does not know the id any more"),
            KnownSchema::Schema(schema) => self.break_off(id, expected, &text_of(&schema)),
        }
        Lookup::Pending
    }

    fn break_off(&self, id: u32, expected: u64, found: &str) {
        let mut state = self.state.lock();
        state.broken.get_or_insert_with(|| broken(id, expected, found));
    }
}

fn text_of(schema: &WriterSchema) -> String {
    format!("the registry's text has fingerprint {:016x}", schema.fingerprint)
}

fn broken(id: u32, expected: u64, found: &str) -> Error {
    Error::integrity(format!("schema {id} is not the one that the ledger is bound to"))
        .detail(format!("the ledger's has fingerprint {expected:016x}"))
        .detail(found)
        .hint(
            "point the registry's address at the registry that the records were written with, or start \
            afresh",
        )
}
