//! A transactional producer whose calls end: librdkafka's own may wait for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::clock;
use crate::connect::kafka::config;
use crate::connect::kafka::settings::KafkaSettings;
use crate::error::{Error, Result};

/// How long a look at what was delivered takes.
const LOOK: Duration = Duration::from_millis(1);
/// How long is waited for the reason of a failure, and for an abort.
const EXPLAINED: Duration = Duration::from_secs(2);
/// Shorter than it takes until a commit is sent again.
const DOUBTFUL: Duration = Duration::from_millis(config::RETRY_FIRST.as_millis() as u64 * 3 / 4);

/// How long is waited while nothing gets on.
pub(in crate::connect::kafka) struct ProducerTimeouts {
    at_most: Duration,
    until: Instant,
    /// Records that were on their way.
    left: i32,
}

impl ProducerTimeouts {
    pub(in crate::connect::kafka) fn new(at_most: Duration) -> Self {
        Self {
            at_most,
            until: clock::instant() + at_most,
            left: 0,
        }
    }
}

/// Whether it is the record that is wrong, and not the moment.
pub(in crate::connect::kafka) fn is_refused(error: &KafkaError) -> bool {
    let refused = [
        RDKafkaErrorCode::MessageSizeTooLarge,
        RDKafkaErrorCode::InvalidMessageSize,
        RDKafkaErrorCode::InvalidRecord,
    ];
    error
        .rdkafka_error_code()
        .is_some_and(|code| refused.contains(&code))
}

/// Sends records in transactions.
pub(in crate::connect::kafka) struct SinkProducer {
    client: Arc<BaseProducer<DeliveryCallbacks>>,
    delivered: Arc<Mutex<DeliveryOutcome>>,
}

/// What became of the records of a transaction.
#[derive(Default)]
struct DeliveryOutcome {
    /// Behind the last record of each partition of the rows' topic.
    ends: BTreeMap<i32, i64>,
    /// The first record that was not delivered: its number, and why.
    failed: Option<(usize, KafkaError)>,
}

/// A record to be sent.
pub(in crate::connect::kafka) struct OutgoingRecord<'a> {
    pub topic: &'a str,
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub headers: Option<OwnedHeaders>,
    /// Its time, in milliseconds since the Unix epoch; `None`: the present.
    pub timestamp_ms: Option<i64>,
    /// Tells it from others of the transaction.
    pub number: usize,
}

/// The number of the progress record: its place is nobody's business.
pub(in crate::connect::kafka) const PROGRESS: usize = usize::MAX;

/// Why a call came to nothing.
pub(in crate::connect::kafka) enum ProducerFailure {
    /// This record is not taken.
    Record(usize, KafkaError),
    Kafka(KafkaError),
    /// This row can't be encoded.
    Row(usize, Error),
    /// The producer is of no use any more.
    Broken(String),
    /// The call did not end in time.
    Late(&'static str),
}

impl From<KafkaError> for ProducerFailure {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Takes what librdkafka says of records.
struct DeliveryCallbacks(Arc<Mutex<DeliveryOutcome>>);

impl ClientContext for DeliveryCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What goes wrong is told by the calls that it concerns; why, at times only here.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", "{facility}: {message}");
            }
            _ => tracing::debug!(target: "librdkafka", "{level:?} {facility}: {message}"),
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "thalweg::kafka", %error, reason, "producer error");
    }
}

impl ProducerContext for DeliveryCallbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut delivered = self.0.lock();
        match result {
            Ok(_) if number == PROGRESS => {}
            Ok(record) => {
                let end = delivered.ends.entry(record.partition()).or_default();
                *end = (*end).max(record.offset() + 1);
            }
            // When one record is refused the others are given up: the refused one says why.
            Err((error, _)) => match &delivered.failed {
                Some((_, known)) if is_refused(known) || !is_refused(error) => {}
                _ => delivered.failed = Some((number, error.clone())),
            },
        }
    }
}

impl SinkProducer {
    /// A producer of this transactional id, not connected yet.
    pub(in crate::connect::kafka) fn new(kafka: &KafkaSettings, transactional_id: &str) -> Result<Self> {
        let delivered: Arc<Mutex<DeliveryOutcome>> = Arc::default();
        let client = config::producer(kafka, transactional_id)?
            .create_with_context(DeliveryCallbacks(delivered.clone()))
            .map_err(|error| {
                Error::definition("cannot make a Kafka producer")
                    .detail(crate::connect::kafka::properties::told(&error))
                    .hint("look at the settings `kafka.bootstrap` and `kafka.properties`")
            })?;
        let client = Arc::new(client);
        Ok(Self { client, delivered })
    }

    /// Fences older producers of the id, and ends their transactions.
    pub(in crate::connect::kafka) fn init(&self, patience: Duration) -> Result<(), ProducerFailure> {
        self.within("init_transactions", patience, move |client| {
            client.init_transactions(patience)
        })
    }

    pub(in crate::connect::kafka) fn begin(&self) -> Result<(), ProducerFailure> {
        *self.delivered.lock() = DeliveryOutcome::default();
        Ok(self.client.begin_transaction()?)
    }

    /// Hands a record over. Waits where too many are on their way, as long as some get there.
    pub(in crate::connect::kafka) fn send(
        &self,
        record: OutgoingRecord<'_>,
        patience: &mut ProducerTimeouts,
    ) -> Result<(), ProducerFailure> {
        let mut sent = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, record.number);
        (sent.partition, sent.key, sent.payload) = (record.partition, record.key, record.payload);
        (sent.headers, sent.timestamp) = (record.headers, record.timestamp_ms);
        loop {
            match self.client.send(sent) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    sent = back;
                    self.look(patience, "the queue of records stays full")?;
                }
                Err((error, _)) if is_refused(&error) => {
                    return Err(ProducerFailure::Record(record.number, error));
                }
                Err((error, _)) => return Err(self.explained(error)),
            }
        }
    }

    /// Why the producer takes nothing any more: most often as a record was refused, which is told last.
    fn explained(&self, error: KafkaError) -> ProducerFailure {
        let until = clock::instant() + EXPLAINED;
        while self.client.in_flight_count() > 0 && clock::instant() < until {
            self.client.poll(LOOK);
        }
        match self.delivered.lock().failed.take() {
            Some((number, why)) => ProducerFailure::Record(number, why),
            None => error.into(),
        }
    }

    /// Waits until all records are where they belong. A commit before that waits a tenth of a second by
    /// itself, however soon they are.
    pub(in crate::connect::kafka) fn settle(
        &self,
        patience: &mut ProducerTimeouts,
    ) -> Result<(), ProducerFailure> {
        while self.client.in_flight_count() > 0 {
            self.look(patience, "records are not acknowledged")?;
        }
        match self.delivered.lock().failed.take() {
            None => Ok(()),
            Some((number, error)) => Err(ProducerFailure::Record(number, error)),
        }
    }

    /// Behind the last record of each partition that the transaction wrote to.
    pub(in crate::connect::kafka) fn ends(&self) -> BTreeMap<i32, i64> {
        self.delivered.lock().ends.clone()
    }

    /// Commits. Returns whether there is no doubt about it: one that took longer may have been sent twice,
    /// and its second end may meet a later transaction.
    pub(in crate::connect::kafka) fn commit(&self, patience: Duration) -> Result<bool, ProducerFailure> {
        let begun = clock::instant();
        self.within("commit_transaction", patience, move |client| {
            client.commit_transaction(patience)
        })?;
        Ok(clock::instant().saturating_duration_since(begun) < DOUBTFUL)
    }

    /// Has a group's offsets committed with the transaction.
    pub(in crate::connect::kafka) fn send_offsets(
        &self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
        patience: Duration,
    ) -> Result<(), ProducerFailure> {
        self.within("send_offsets_to_transaction", patience, move |client| {
            client.send_offsets_to_transaction(&offsets, &group, patience)
        })
    }

    /// Aborts, so that readers don't wait for the transaction. What comes of it does not matter: the producer
    /// is done with.
    pub(in crate::connect::kafka) fn give_up(&self) {
        let _ = self.within("abort_transaction", EXPLAINED, |client| {
            client.abort_transaction(EXPLAINED)
        });
    }

    /// Lets librdkafka say what was delivered, and gives up where nothing is for long.
    fn look(&self, patience: &mut ProducerTimeouts, what: &'static str) -> Result<(), ProducerFailure> {
        self.client.poll(LOOK);
        if let Some((_, text)) = self.client.client().fatal_error() {
            return Err(self.explained_by(text));
        }
        let left = self.client.in_flight_count();
        if left != patience.left {
            *patience = ProducerTimeouts {
                left,
                ..ProducerTimeouts::new(patience.at_most)
            };
        }
        if clock::instant() > patience.until {
            Err(ProducerFailure::Late(what))
        } else {
            Ok(())
        }
    }

    fn explained_by(&self, text: String) -> ProducerFailure {
        match self.delivered.lock().failed.take() {
            Some((number, error)) if is_refused(&error) => ProducerFailure::Record(number, error),
            _ => ProducerFailure::Broken(text),
        }
    }

    /// Makes a call that may not end on a thread of its own, which is left to itself when it does not.
    fn within(
        &self,
        what: &'static str,
        patience: Duration,
        call: impl FnOnce(&BaseProducer<DeliveryCallbacks>) -> KafkaResult<()> + Send + 'static,
    ) -> Result<(), ProducerFailure> {
        let (answer, answers) = mpsc::channel();
        let client = self.client.clone();
        let caller = std::thread::Builder::new().name(what.into());
        let called = caller.spawn(move || {
            // Nobody waits any more where the answer can't be given.
            let _late = answer.send(call(&client));
        });
        if called.is_err() {
            return Err(ProducerFailure::Late("no thread can be started"));
        }
        match answers.recv_timeout(patience + patience / 4) {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(ProducerFailure::Late(what)),
        }
    }
}
