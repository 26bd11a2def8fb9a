//! Kafka topics as sinks: rows and progress in one transaction.
//!
//! ```text
//!   rows of some epochs ─▶ producer of the shard ─┬─▶ topic            headers: sink, ledger, epoch, shard, sequence
//!                                                 └─▶ progress topic   one partition a shard: {ledger, generation, epoch, rows, ends}
//!                                                  commit: both or neither
//!
//!   open ─▶ init_transactions: fences older producers of the shard, and ends what they left open
//!        ─▶ progress: the newest record of the shard's partition
//!        ─▶ tail: what the topic has behind the progress is not written again
//! ```
//!
//! The progress topic has a partition per shard: with a shared one, the open transaction of another shard
//! would limit what a reader may see. Records are awaited before the commit, which otherwise waits a tenth of
//! a second by itself. After a failure, or a commit that took long enough to have been sent twice, another
//! producer is opened and everything is read again: a slow broker costs time, and no row.
//!
//! Readers with `isolation.level=read_committed` see each row once. A row's sequence is its number among all
//! that the shard has delivered; the tail is read because the end of a transaction may arrive late, behind
//! the one that fenced it, and then commits rows whose progress came to nothing.

pub(super) mod producer;
mod progress;
mod topics;
mod writer;

use std::sync::Arc;

use self::topics::SinkTopic;
use self::writer::KafkaWriter;
use super::settings::KafkaSettings;
use super::{Topic, config};
use crate::codec::registry::Registry;
use crate::codec::rows::{RowEncoding, RowsOf};
use crate::error::{Error, Result};
use crate::record::{Event, Record};
use crate::sink::{AppendSink, ChangelogSink, Method, OpenedSink, Shard, Sink, UpsertSink, Writers};
use crate::source::Environment;

/// Rows are encoded, and the producer batches, on one thread: enough for some hundred thousand rows a second.
const SHARDS: u32 = 1;

impl<T: 'static> Sink for Topic<T> {
    fn open(self, method: Method, env: &Environment) -> Result<OpenedSink> {
        if self.rules.event_time.is_some() {
            let what = format!(
                "topic `{}` is written to, so it has no event time to read",
                self.name
            );
            return Err(Error::definition(what).hint("leave out `event_time`"));
        }
        let format = super::ready(self.format, self.mistake)?;
        let encoding = format.rows(method).ok_or_else(|| {
            let what = format!("rows can't be written as `{}`", format.name());
            Error::definition(what).hint("use `json()` or `avro()`")
        })?;
        let to = To {
            topic: self.name,
            method,
            partitions: self.partitions,
        };
        Ok(to.open(env, encoding))
    }
}

/// A topic that rows go to.
pub(super) struct To {
    pub topic: Arc<str>,
    pub method: Method,
    /// How many partitions it is made with; `None`: as many as the broker makes.
    pub partitions: Option<u32>,
}

impl To {
    /// The sink, for rows in an encoding.
    pub(super) fn open(self, env: &Environment, encoding: RowEncoding) -> OpenedSink {
        let target = Arc::new(SinkTopic {
            topic: self.topic,
            kafka: KafkaSettings::of(env),
            application: format!("{}.{}", config::group_or_own(&env.group), env.dataflow).into(),
            group: env.group.as_str().into(),
            method: self.method,
            partitions: self.partitions,
        });
        let description = super::describe(&target.topic);
        let (examined, fits) = (target.clone(), encoding.check.clone());
        let writers = writers(target, encoding, env.registry.clone());
        OpenedSink::new(description, writers)
            .shards(SHARDS)
            .fits(fits)
            .examine(move |_| examined.examine())
    }
}

fn writers(target: Arc<SinkTopic>, encoding: RowEncoding, registry: Option<Registry>) -> Writers {
    Writers::transactional(move |shard: &Shard| {
        let encoder = (encoding.encoder)(&RowsOf {
            schema: &shard.schema,
            topic: &target.topic,
            registry: registry.as_ref(),
        })?;
        KafkaWriter::open(target.clone(), shard.clone(), encoder)
    })
}

/// Events become records without a key. All events of a partition of their source go to one partition, in
/// order.
impl<T: Event> AppendSink<T> for Topic<T> {}
/// Keys are records' keys, and a row that is gone leaves a tombstone: the topic can be compacted.
impl<K: Record, V: Record> UpsertSink<K, V> for Topic<V> {}
/// Each change is a record with what was before and what is after it.
impl<V: Record> ChangelogSink<V> for Topic<V> {}

#[cfg(test)]
mod tests;
