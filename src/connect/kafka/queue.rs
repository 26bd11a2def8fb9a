//! What a partition's queue hands out, whoever fills it.

use rdkafka::error::KafkaError;

use crate::codec::header::Header;
use crate::position::Offset;
use crate::source::Raw;

/// The next thing in a partition.
pub(super) enum QueueItem<'a> {
    Record(Raw<'a>),
    /// Everything before this offset that can be read has been.
    End(Offset),
    Fault(PartitionFault),
}

/// What librdkafka says of a partition instead of a record.
#[derive(Clone, Debug)]
pub(super) struct PartitionFault {
    pub(super) code: i32,
    pub(super) offset: Offset,
    pub(super) text: String,
}

impl PartitionFault {
    /// One of no code that Kafka has.
    pub(super) fn told(text: impl Into<String>) -> Self {
        Self {
            code: -1,
            offset: -1,
            text: text.into(),
        }
    }
}

impl From<KafkaError> for PartitionFault {
    fn from(error: KafkaError) -> Self {
        Self {
            code: error.rdkafka_error_code().map_or(-1, |code| code as i32),
            ..Self::told(error.to_string())
        }
    }
}

/// What arrives of one partition, in order.
pub(super) trait PartitionMessages {
    /// Takes what is there, unless something taken before is left. `true`: that was everything, and the next
    /// arrival wakes the worker.
    fn fetch(&mut self) -> bool;
    /// The first item that was taken and not popped.
    fn head(&self) -> Option<QueueItem<'_>>;
    /// The end of the log, as of the latest answer to a fetch.
    fn end(&self) -> Option<Offset>;
    /// The headers of the record that is the head.
    fn headers(&self) -> Vec<Header>;
    /// Lets go of it.
    fn pop(&mut self);
}
