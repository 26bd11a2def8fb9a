//! Exchanges records between workers in type-erased batches.
//!
//! ```text
//!  worker 0   records ─ by owner ─▶ parcels ═╗ one channel type ╔═▶ parcels ─ opened ─▶ records
//!  worker 1   records ─ by owner ─▶ parcels ═╝                  ╚═▶ parcels ─ opened ─▶ records
//! ```
//!
//! Timely compiles a channel for each type that goes through it, in the user's crate, both in memory and as
//! bytes, for threads and for processes. That was a fifth of the compile time of a windowed aggregate. A
//! parcel holds records of any type, and only its two ends know which.

use std::any::Any;
use std::mem;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer, ser};
use timely::ExchangeData;
use timely::communication::Pull;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{Exchange, LogPuller, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{InputHandleCore, Operator as _};
use timely::dataflow::operators::{Concat, InputCapability};

use crate::record::owner;
use crate::time::Epoch;

/// Records per parcel: enough to make the cost of a parcel negligible.
const RECORDS_MAX: usize = 1024;

/// Records for one worker.
pub(crate) struct RoutedBatch {
    to: u64,
    records: BatchRecords,
}

enum BatchRecords {
    Here(Box<dyn AnyRecords>),
    /// Received from another process.
    Encoded(Vec<u8>),
}

/// A `Vec` of records whose type the receiver knows.
trait AnyRecords: Any + Send {
    fn encode(&self) -> Result<Vec<u8>, postcard::Error>;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<D: ExchangeData> AnyRecords for Vec<D> {
    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl RoutedBatch {
    fn new<D: ExchangeData>(to: usize, records: Vec<D>) -> Self {
        Self {
            to: to as u64,
            records: BatchRecords::Here(Box::new(records)),
        }
    }

    /// The records, in the order in which they were packed.
    pub(crate) fn open<D: ExchangeData>(self) -> Vec<D> {
        match self.records {
            BatchRecords::Here(records) => *records
                .into_any()
                .downcast()
                .expect("both ends of a channel are of one operator"),
            BatchRecords::Encoded(bytes) => {
                postcard::from_bytes(&bytes).expect("all processes of a cluster run the same program")
            }
        }
    }
}

/// Packs records into parcels by the worker that owns the [`route`](crate::record::route) of each.
pub(crate) struct RoutedBatchBuilder<D> {
    /// The open parcel of each worker. Empty between activations.
    parts: Vec<Vec<D>>,
}

impl<D: ExchangeData> RoutedBatchBuilder<D> {
    /// A packer for this many workers.
    pub(crate) fn new(peers: usize) -> Self {
        Self {
            parts: std::iter::repeat_with(Vec::new).take(peers).collect(),
        }
    }

    /// Packs a record. Returns the parcel if it is now full.
    #[inline]
    pub(crate) fn push(&mut self, route: u64, record: D) -> Option<RoutedBatch> {
        let to = if self.parts.len() == 1 {
            0
        } else {
            owner(route, self.parts.len())
        };
        self.push_to(to, record)
    }

    /// Packs a record for one worker. Returns the parcel if it is now full.
    #[inline]
    pub(crate) fn push_to(&mut self, to: usize, record: D) -> Option<RoutedBatch> {
        let part = &mut self.parts[to];
        part.push(record);
        (part.len() == RECORDS_MAX).then(|| RoutedBatch::new(to, mem::take(part)))
    }

    /// The number of workers.
    pub(crate) fn peers(&self) -> usize {
        self.parts.len()
    }

    /// Takes the parcels that are not full.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = RoutedBatch> {
        let parts = self.parts.iter_mut().enumerate();
        let some = parts.filter(|(_, part)| !part.is_empty());
        some.map(|(to, part)| RoutedBatch::new(to, mem::take(part)))
    }
}

/// Packs the records of a stream.
pub(crate) fn pack<'s, D: ExchangeData>(
    records: StreamVec<'s, Epoch, D>,
    name: &str,
    route: impl Fn(&D) -> u64 + 'static,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    type Builder = CapacityContainerBuilder<Vec<RoutedBatch>>;
    let mut packer = RoutedBatchBuilder::new(records.scope().peers());
    let name = format!("{name}: pack");
    records.unary::<Builder, _, _, _>(Pipeline, &name, move |_, _| {
        move |input, output| {
            input.for_each_stamp(|capability, batches| {
                let mut session = output.session(&capability);
                for record in batches.flat_map(|batch| batch.drain(..)) {
                    if let Some(routed_batch) = packer.push(route(&record), record) {
                        session.give(routed_batch);
                    }
                }
                session.give_iterator(packer.rest());
            });
        }
    })
}

/// Merges the parcels of two streams into one input. Compiled once.
pub(crate) fn both<'s>(
    one: StreamVec<'s, Epoch, RoutedBatch>,
    other: StreamVec<'s, Epoch, RoutedBatch>,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    one.concat(other)
}

/// An operator's input for parcels from all workers. Created and drained by code that is compiled once.
pub(crate) struct RoutedInput(InputHandleCore<Epoch, Vec<RoutedBatch>, Puller>);

type Puller = LogPuller<Box<dyn Pull<Message<Epoch, Vec<RoutedBatch>>>>>;

impl RoutedInput {
    /// Adds the input to an operator. Each parcel goes to its worker.
    pub(crate) fn new<'s>(
        builder: &mut OperatorBuilder<'s, Epoch>,
        routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
    ) -> Self {
        Self(builder.new_input(
            routed_batches,
            Exchange::new(|routed_batch: &RoutedBatch| routed_batch.to),
        ))
    }

    /// Takes every waiting parcel, with the epoch of its message.
    pub(crate) fn each(&mut self, take: &mut dyn FnMut(&InputCapability<Epoch>, Epoch, RoutedBatch)) {
        self.0.for_each(|capability, routed_batches| {
            let epoch = *capability
                .least()
                .expect("data travels under its epoch's capability");
            routed_batches
                .drain(..)
                .for_each(|routed_batch| take(&capability, epoch, routed_batch));
        });
    }
}

impl Serialize for RoutedBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.records {
            BatchRecords::Here(records) => {
                let bytes = records.encode().map_err(ser::Error::custom)?;
                serializer.serialize_bytes(&bytes)
            }
            BatchRecords::Encoded(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

/// The destination is no longer known and no longer matters: the parcel has arrived.
impl<'de> Deserialize<'de> for RoutedBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the bytes of some records")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        let records = BatchRecords::Encoded(deserializer.deserialize_byte_buf(Bytes)?);
        Ok(Self { to: 0, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_they_were_here_and_in_another_process() {
        let records = vec![(1u64, "a".to_owned()), (2, String::new())];
        let routed_batch = RoutedBatch::new(3, records.clone());
        let bytes = postcard::to_allocvec(&routed_batch).unwrap();
        let there: RoutedBatch = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(postcard::to_allocvec(&there).unwrap(), bytes);
        assert_eq!(routed_batch.open::<(u64, String)>(), records);
        assert_eq!(there.open::<(u64, String)>(), records);
    }
}
