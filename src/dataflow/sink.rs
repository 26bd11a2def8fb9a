//! Where rows leave a dataflow: sinks of streams, tables and collections.

use std::fmt::Display;
use std::sync::Arc;

use timely::dataflow::StreamVec;

use crate::dataflow::Dataflow;
use crate::dataflow::collection::Collection;
use crate::dataflow::plan::{Kind, Origin, PlannedSink};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::error::{Result, count};
use crate::ledger::SHARDS_MAX;
use crate::operator::deliver::{Shards, deliver, encode, encode_updates};
use crate::record::{Change, Event, Record, Timed};
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::sink::encode::Encoder;
use crate::sink::function::Function;
use crate::sink::process::Connection;
use crate::sink::resume;
use crate::sink::row::Row;
use crate::sink::{AppendSink, ChangelogSink, Method, Sink, UpsertSink};
use crate::time::Epoch;

// Bounds stand on the methods, so that a missing derive reads as such and not as "no method found".
impl<'s, T: 'static> Stream<'s, T> {
    /// Gives the events of each epoch to a function, in order: by partition and offset. What
    /// [`Table::for_each_epoch`](crate::dataflow::table::Table::for_each_epoch) says holds here too, but that
    /// a function that is new begins with what is new.
    #[track_caller]
    pub fn for_each_epoch<E: Display>(
        &self,
        name: &str,
        f: impl FnMut(Epoch, &[Timed<T>]) -> Result<(), E> + Send + 'static,
    ) -> &Self
    where
        T: Event,
    {
        let schema = RowSchema::unchecked(name, trace::<()>(), trace::<T>(), FieldNames::default());
        self.sink(name, Method::ForEachEpoch, Function::of_events(f), schema)
    }

    /// Appends each event to a store, in order by partition and offset: what happened in epochs that are
    /// complete and durable. Whether an event may be there twice after a crash is the store's
    /// [contract](crate::sink::Writers), which `plan` prints.
    ///
    /// A stream is split by the partitions that its events were read from: all events of a partition are in
    /// one shard. A sink that is new begins with what is new.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # use thalweg::sink::{AppendSink, Batch, Method, OpenedSink, Shard, Sink, WriteError, Writer, Writers};
    /// # use thalweg::source::Environment;
    /// # struct Counts;
    /// # impl Sink for Counts {
    /// #     fn open(self, _: Method, _: &Environment) -> Result<OpenedSink, thalweg::Error> {
    /// #         Ok(OpenedSink::new("a counter", Writers::repeating(|_: &Shard| Ok(Counter(0)))))
    /// #     }
    /// # }
    /// # impl<T> AppendSink<T> for Counts {}
    /// # struct Counter(usize);
    /// # impl Writer for Counter {
    /// #     fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
    /// #         self.0 += epochs.iter().map(|batch| batch.rows.len()).sum::<usize>();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # fn build(flow: Dataflow) {
    /// let lines = flow.source("lines", Kafka::topic("lines.v1").text::<String>());
    /// lines.filter(|line| line.contains("error")).append_to("errors", Counts);
    /// # }
    /// # thalweg::runtime::plan(&dataflow("errors", build), &Environment::default()).unwrap();
    /// ```
    #[track_caller]
    pub fn append_to(&self, name: &str, sink: impl AppendSink<T>) -> &Self
    where
        T: Event,
    {
        let owner = format!("sink `{name}`");
        let schema = RowSchema::new(&owner, trace::<()>(), trace::<T>(), FieldNames::default());
        self.sink(name, Method::AppendTo, sink, schema)
    }

    #[track_caller]
    fn sink(&self, name: &str, method: Method, sink: impl Sink, schema: Result<RowSchema>) -> &Self
    where
        T: Event,
    {
        let flow = self.flow;
        if let Some(outlet) = flow.open_sink(name, &self.origin, method, sink, schema) {
            let mut encoder = outlet.encoder(false);
            // Where events of one record come from one worker, what is stable keeps their order.
            let is_ordered = !self.is_scattered;
            flow.give(self.inner.clone(), outlet, move |event| {
                encoder.event(event, is_ordered)
            });
        }
        self
    }
}

impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// Gives what changed in each epoch to a function, in order: for what no other sink does.
    ///
    /// It is called on a thread of its own, once for each epoch that changed anything, when the epoch is
    /// complete, its place in the ledger durable, and all before it have been given. A key has at most one
    /// change. The same epoch always brings the same changes, whenever it is given.
    ///
    /// How far it has come is written down behind the calls. What was not by then, as the process was killed,
    /// is given again at the next start: where that matters, keep the epoch beside what you write, and skip
    /// one that is not greater. An error has the same epoch given again, a moment later, until it is taken;
    /// meanwhile nothing is lost, and once too much waits the whole dataflow does. A panic ends the service.
    ///
    /// A function that is new in a dataflow that goes on from a checkpoint begins with all rows as of it.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build(spend: &thalweg::dataflow::table::Table<Windowed<u32>, i128>) {
    /// let (mut out, mut last) = (std::io::stdout(), Epoch::ZERO);
    /// spend.for_each_epoch("alerts", move |epoch, changes| {
    ///     use std::io::Write;
    ///     for change in changes.iter().filter(|_| epoch > last) {
    ///         writeln!(out, "{epoch}: {:?} is now {:?}", change.key, change.new)?;
    ///     }
    ///     last = epoch;
    ///     out.flush()
    /// });
    /// # }
    /// ```
    #[track_caller]
    pub fn for_each_epoch<E: Display>(
        &self,
        name: &str,
        f: impl FnMut(Epoch, &[Change<K, V>]) -> Result<(), E> + Send + 'static,
    ) -> &Self
    where
        K: Record,
        V: Record,
    {
        let schema = RowSchema::unchecked(name, trace::<K>(), trace::<V>(), FieldNames::default());
        self.sink(name, Method::ForEachEpoch, Function::of_changes(f), schema)
    }

    /// Holds the table in a store: the newest row of each key, and no row where it went. A key has at most
    /// one change an epoch.
    ///
    /// Rows are split into shards by a fixed hash of their keys, and each shard gets its epochs in order,
    /// once they are complete and durable. What a crash does to the store is its
    /// [contract](crate::sink::Writers), which `plan` prints. A sink that is new in a dataflow that goes on
    /// from a checkpoint begins with all rows as of it.
    ///
    /// Only a store that can delete by key is an [`UpsertSink`]; others take a [changelog](Self::changes_to).
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # use thalweg::sink::{Batch, Method, OpenedSink, Shard, Sink, UpsertSink, WriteError, Writer, Writers};
    /// # use thalweg::source::Environment;
    /// # struct Names;
    /// # impl Sink for Names {
    /// #     fn open(self, _: Method, _: &Environment) -> Result<OpenedSink, thalweg::Error> {
    /// #         let writers = Writers::versioned(|shard: &Shard| Ok(Mirror { shard: shard.clone(), rows: Default::default() }));
    /// #         Ok(OpenedSink::new("memory", writers))
    /// #     }
    /// # }
    /// # impl<K, V> UpsertSink<K, V> for Names {}
    /// struct Mirror { shard: Shard, rows: std::collections::BTreeMap<Vec<u8>, String> }
    ///
    /// impl Writer for Mirror {
    ///     fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
    ///         for row in epochs.iter().flat_map(|batch| &batch.rows) {
    ///             match row.after() {
    ///                 Some(_) => self.rows.insert(row.key().to_vec(), row.json(&self.shard.schema).unwrap_or_default()),
    ///                 None => self.rows.remove(row.key()),
    ///             };
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # fn build(flow: Dataflow) {
    ///
    /// let merchants = flow.table("merchants", Kafka::topic("merchants.v1").json::<String>().keyed::<u32>());
    /// merchants.key_named("merchant").upsert_to("merchant_names", Names);
    /// # }
    /// # thalweg::runtime::plan(&dataflow("names", build), &Environment::default()).unwrap();
    /// ```
    #[track_caller]
    pub fn upsert_to(&self, name: &str, sink: impl UpsertSink<K, V>) -> &Self
    where
        K: Record,
        V: Record,
    {
        let schema = self.row_schema(name);
        self.sink(name, Method::UpsertTo, sink, schema)
    }

    /// Gives a store every change of the table as a row of its own, with what was before and what is after
    /// it.
    ///
    /// As [`upsert_to`](Self::upsert_to), but that nothing is ever replaced.
    #[track_caller]
    pub fn changes_to(&self, name: &str, sink: impl ChangelogSink<V>) -> &Self
    where
        K: Record,
        V: Record,
    {
        let schema = self.row_schema(name);
        self.sink(name, Method::ChangesTo, sink, schema)
    }

    fn row_schema(&self, name: &str) -> Result<RowSchema>
    where
        K: Record,
        V: Record,
    {
        let names = FieldNames {
            key: &self.meta.names,
            value: &[],
        };
        RowSchema::new(&format!("sink `{name}`"), trace::<K>(), trace::<V>(), names)
    }

    #[track_caller]
    fn sink(&self, name: &str, method: Method, sink: impl Sink, schema: Result<RowSchema>) -> &Self
    where
        K: Record,
        V: Record,
    {
        let flow = self.flow;
        if let Some(outlet) = flow.open_sink(name, &self.meta.origin, method, sink, schema) {
            // One that is new among restored steps needs their rows once more.
            if outlet.is_new() {
                self.meta.wanted.set(true);
            }
            let mut encoder = outlet.encoder(method.has_old());
            flow.give(self.changes(), outlet, move |change| encoder.change(change));
        }
        self
    }
}

impl<'s, D: 'static> Collection<'s, D> {
    /// Gives a store every change of the collection: each row with the epoch, and by how many it became more
    /// or fewer.
    ///
    /// Otherwise as [`Table::changes_to`].
    #[track_caller]
    pub fn changes_to(&self, name: &str, sink: impl ChangelogSink<D>) -> &Self
    where
        D: Record,
    {
        let flow = self.outside();
        let owner = format!("sink `{name}`");
        let schema = RowSchema::new(&owner, trace::<D>(), trace::<()>(), FieldNames::default());
        if let Some(outlet) = flow.open_sink(name, &self.origin, Method::ChangesTo, sink, schema) {
            let (complete, halt) = (outlet.complete(), flow.context().halt.clone());
            let mut encoder = outlet.encoder(true);
            let updates = self.inner.clone().inner;
            let rows = encode_updates(updates, name, complete, move |row, n| encoder.count(row, n), halt);
            flow.deliver(rows, outlet);
        }
        self
    }
}

/// A sink that is planned, and that rows are to be given to.
pub(super) struct Outlet {
    to: Connection,
    /// Up to where each shard has everything, as far as the ledger knows.
    complete: Vec<Option<Epoch>>,
    /// The checkpoint that this run began with.
    restored: Option<Epoch>,
}

impl Outlet {
    /// Whether a shard was not there at the checkpoint that others go on from: it takes what they give once
    /// more.
    fn is_new(&self) -> bool {
        let mut complete = self.complete.iter();
        complete.any(|complete| resume::is_new(*complete, self.restored))
    }

    /// Up to where all shards have everything.
    fn complete(&self) -> Option<Epoch> {
        self.complete.iter().copied().min().flatten()
    }

    pub(super) fn encoder(&self, with_old: bool) -> Encoder {
        let Connection {
            sink, schema, shards, ..
        } = &self.to;
        Encoder::new(sink.clone(), schema.clone(), *shards, with_old)
    }
}

impl<'s> Dataflow<'s> {
    /// Plans a sink, and finds where it goes on; `None`: there are mistakes.
    #[track_caller]
    pub(super) fn open_sink(
        &self,
        name: &str,
        of: &Origin,
        method: Method,
        sink: impl Sink,
        schema: Result<RowSchema>,
    ) -> Option<Outlet> {
        let context = self.context();
        if !context.output(name, Kind::Sink, of) {
            return None;
        }
        let opened = sink.open(method, &context.env).and_then(|opened| {
            let schema = schema?;
            opened.fits.as_ref().map_or(Ok(()), |fits| fits(&schema))?;
            Ok((opened, schema))
        });
        let (opened, schema) = match opened {
            Ok((opened, _)) if !(1..=SHARDS_MAX).contains(&opened.shards) => {
                let shards = count(opened.shards, "shard");
                context.mistake(format!(
                    "sink `{name}` has {shards}: from 1 to {SHARDS_MAX} there can be"
                ));
                return None;
            }
            Ok(opened) => opened,
            Err(error) => {
                context.mistake(format!("sink `{name}`: {error}"));
                return None;
            }
        };
        let (schema, shards) = (Arc::new(schema), opened.shards);
        let contract = opened.writers.contract();
        let writers = match &context.memory_sinks {
            Some(memory) if method != Method::ForEachEpoch => memory.writers(),
            _ => opened.writers,
        };
        context.plan.borrow_mut().sink(PlannedSink {
            name: name.to_owned(),
            method,
            description: opened.description,
            contract,
            shards,
            schema: schema.clone(),
            examine: opened.examine,
        });
        let restored = context.restored.as_ref().map(|restored| restored.manifest.epoch);
        let complete = (0..shards).map(|shard| context.sinks.complete(name, shard));
        Some(Outlet {
            to: Connection {
                sink: name.into(),
                shards,
                schema,
                writers,
                halt: context.halt.clone(),
                metrics: context.metrics.sink(name),
            },
            complete: complete.collect(),
            restored,
        })
    }

    /// Encodes rows, and gives them to a sink.
    pub(super) fn give<R: Clone + 'static>(
        &self,
        rows: StreamVec<'s, Epoch, R>,
        outlet: Outlet,
        encode_row: impl FnMut(&R) -> Result<Row> + 'static,
    ) {
        let halt = self.context().halt.clone();
        let rows = encode(rows, &outlet.to.sink, outlet.complete(), encode_row, halt);
        self.deliver(rows, outlet);
    }

    /// Gives encoded rows to a sink.
    fn deliver(&self, rows: StreamVec<'s, Epoch, Row>, outlet: Outlet) {
        let context = self.context().clone();
        let Outlet { to, complete, .. } = outlet;
        let name = to.sink.clone();
        let shards = Shards {
            count: to.shards,
            workers: context.sink_workers,
            complete,
            connect: move |shard, room| context.sinks.connect(&to, shard, room),
        };
        deliver(rows, &name, shards, &self.context().probe);
    }
}
