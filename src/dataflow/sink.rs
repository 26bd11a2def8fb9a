//! Sinks of streams, tables and collections.

use std::fmt::Display;
use std::sync::Arc;

use timely::dataflow::StreamVec;

use crate::dataflow::Dataflow;
use crate::dataflow::collection::Collection;
use crate::dataflow::plan::{Origin, PlannedSink, StepKind};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::error::{Result, count};
use crate::ledger::SHARDS_MAX;
use crate::operator::deliver::{SinkShards, deliver, encode, encode_updates};
use crate::record::{Change, Event, Record, Timed};
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::sink::encode::SinkEncoder;
use crate::sink::function::FunctionSink;
use crate::sink::process::SinkConnection;
use crate::sink::resume;
use crate::sink::row::Row;
use crate::sink::{AppendSink, ChangelogSink, Method, Sink, UpsertSink};
use crate::time::Epoch;

// The bounds are on the methods, so that a missing derive is reported as such and not as "no method found".
impl<'s, T: 'static> Stream<'s, T> {
    /// Passes the events of each epoch to a function, ordered by partition and offset. The contract of
    /// [`Table::for_each_epoch`](crate::dataflow::table::Table::for_each_epoch) applies, except that a new
    /// function starts with new events.
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
        self.sink(name, Method::ForEachEpoch, FunctionSink::of_events(f), schema)
    }

    /// Appends each event of complete and durable epochs to a store, ordered by partition and offset. Whether
    /// events may be duplicated after a crash depends on the store's [contract](crate::sink::Writers), which
    /// `plan` prints.
    ///
    /// A stream is sharded by the partitions that its events were read from: all events of a partition are in
    /// one shard. A new sink starts with new events.
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
        if let Some(sink_input) = flow.open_sink(name, &self.origin, method, sink, schema) {
            let mut encoder = sink_input.encoder(false);
            // If events of one record come from one worker, a stable sort keeps their order.
            let is_ordered = !self.is_scattered;
            flow.give(self.inner.clone(), sink_input, move |event| {
                encoder.event(event, is_ordered)
            });
        }
        self
    }
}

impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// Passes the changes of each epoch to a function, in order. For stores without a sink of their own.
    ///
    /// The function is called on its own thread, once for each epoch with changes, after the epoch is
    /// complete, its binding is durable and all earlier epochs have been delivered. A key changes at most
    /// once per epoch. The same epoch always has the same changes, however often it is delivered.
    ///
    /// Progress is recorded after the calls. Epochs whose progress was not recorded before a crash are
    /// delivered again at the next start: where that matters, store the epoch next to your data and skip
    /// epochs that are not greater. If the function returns an error, the epoch is retried shortly after,
    /// until it succeeds; nothing is lost, and once too much is queued, the dataflow waits. A panic halts the
    /// service.
    ///
    /// A function that is new in a dataflow resumed from a checkpoint starts with all rows as of the
    /// checkpoint.
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
        self.sink(name, Method::ForEachEpoch, FunctionSink::of_changes(f), schema)
    }

    /// Maintains the table in a store: the current row of each key, with deleted rows removed. A key changes
    /// at most once per epoch.
    ///
    /// Rows are sharded by a fixed hash of their keys, and each shard receives its epochs in order, once they
    /// are complete and durable. What a crash does to the store depends on its
    /// [contract](crate::sink::Writers), which `plan` prints. A sink that is new in a dataflow resumed from a
    /// checkpoint starts with all rows as of the checkpoint.
    ///
    /// Only a store that can delete by key is an [`UpsertSink`]; other stores take a
    /// [changelog](Self::changes_to).
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

    /// Writes every change of the table to a store as a row of its own, with the row before and after it.
    ///
    /// Like [`upsert_to`](Self::upsert_to), except that rows are never replaced.
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
        if let Some(sink_input) = flow.open_sink(name, &self.meta.origin, method, sink, schema) {
            // A sink that is new among restored steps needs their rows re-emitted.
            if sink_input.is_new() {
                self.meta.demand.set(true);
            }
            let mut encoder = sink_input.encoder(method.has_old());
            flow.give(self.changes(), sink_input, move |change| encoder.change(change));
        }
        self
    }
}

impl<'s, D: 'static> Collection<'s, D> {
    /// Writes every change of the collection to a store: each row with the epoch and the difference in its
    /// multiplicity.
    ///
    /// Otherwise like [`Table::changes_to`].
    #[track_caller]
    pub fn changes_to(&self, name: &str, sink: impl ChangelogSink<D>) -> &Self
    where
        D: Record,
    {
        let flow = self.outside();
        let owner = format!("sink `{name}`");
        let schema = RowSchema::new(&owner, trace::<D>(), trace::<()>(), FieldNames::default());
        if let Some(sink_input) = flow.open_sink(name, &self.origin, Method::ChangesTo, sink, schema) {
            let (complete, halt) = (sink_input.complete(), flow.context().halt.clone());
            let mut encoder = sink_input.encoder(true);
            let updates = self.inner.clone().inner;
            let rows = encode_updates(updates, name, complete, move |row, n| encoder.count(row, n), halt);
            flow.deliver(rows, sink_input);
        }
        self
    }
}

/// A planned sink, to be connected to rows.
pub(super) struct SinkInput {
    to: SinkConnection,
    /// The epoch up to which each shard is complete, according to the ledger.
    complete: Vec<Option<Epoch>>,
    /// The checkpoint that this run resumes from.
    restored: Option<Epoch>,
}

impl SinkInput {
    /// Whether a shard did not exist at the checkpoint: then it consumes the rows that restored steps
    /// re-emit.
    fn is_new(&self) -> bool {
        let mut complete = self.complete.iter();
        complete.any(|complete| resume::is_new(*complete, self.restored))
    }

    /// The epoch up to which all shards are complete.
    fn complete(&self) -> Option<Epoch> {
        self.complete.iter().copied().min().flatten()
    }

    pub(super) fn encoder(&self, with_old: bool) -> SinkEncoder {
        let SinkConnection {
            sink, schema, shards, ..
        } = &self.to;
        SinkEncoder::new(sink.clone(), schema.clone(), *shards, with_old)
    }
}

impl<'s> Dataflow<'s> {
    /// Plans a sink and determines where it resumes; `None` if there are mistakes.
    #[track_caller]
    pub(super) fn open_sink(
        &self,
        name: &str,
        of: &Origin,
        method: Method,
        sink: impl Sink,
        schema: Result<RowSchema>,
    ) -> Option<SinkInput> {
        let context = self.context();
        if !context.output(name, StepKind::Sink, of) {
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
                    "sink `{name}` has {shards}; the limit is 1 to {SHARDS_MAX}"
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
        Some(SinkInput {
            to: SinkConnection {
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

    /// Encodes rows and passes them to a sink.
    pub(super) fn give<R: Clone + 'static>(
        &self,
        rows: StreamVec<'s, Epoch, R>,
        sink_input: SinkInput,
        encode_row: impl FnMut(&R) -> Result<Row> + 'static,
    ) {
        let halt = self.context().halt.clone();
        let rows = encode(rows, &sink_input.to.sink, sink_input.complete(), encode_row, halt);
        self.deliver(rows, sink_input);
    }

    /// Passes encoded rows to a sink.
    fn deliver(&self, rows: StreamVec<'s, Epoch, Row>, sink_input: SinkInput) {
        let context = self.context().clone();
        let SinkInput { to, complete, .. } = sink_input;
        let name = to.sink.clone();
        let shards = SinkShards {
            count: to.shards,
            workers: context.sink_workers,
            complete,
            connect: move |shard, room| context.sinks.connect(&to, shard, room),
        };
        deliver(rows, &name, shards, &self.context().probe);
    }
}
