//! What a Kafka client has to say besides records: logs go to `tracing`, trouble is kept for health and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, TopicPartitionList};

use std::sync::Arc;

/// What stands between a source and its broker now. Shared by the source's driver and its readers.
#[derive(Debug, Default)]
pub(super) struct Status {
    troubled: AtomicBool,
    trouble: Mutex<Option<String>>,
    troubles: AtomicU64,
}

impl Status {
    /// The broker or the way to it is in trouble; librdkafka goes on trying.
    pub(super) fn record(&self, trouble: String) {
        tracing::debug!(target: "thalweg::kafka", "{trouble}");
        self.troubles.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock() = Some(trouble);
        self.troubled.store(true, Ordering::Release);
    }

    /// Something was read: whatever there was is over.
    #[inline]
    pub(super) fn well(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            self.troubled.store(false, Ordering::Release);
            *self.trouble.lock() = None;
        }
    }

    /// The newest trouble since something was last read.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

/// Takes the events of one client.
pub(super) struct Context(pub(super) Arc<Status>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            Emerg | Alert | Critical | Error => {
                tracing::error!(target: "librdkafka", "{facility}: {message}")
            }
            Warning => tracing::warn!(target: "librdkafka", "{facility}: {message}"),
            Notice | Info => tracing::info!(target: "librdkafka", "{facility}: {message}"),
            Debug => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
        }
    }

    fn stats_raw(&self, _json: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.record(match error.rdkafka_error_code() {
            Some(code) => format!("{code}: {reason}"),
            None => reason.to_owned(),
        });
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(target: "thalweg::kafka", "progress could not be shown to the group: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_something_is_read() {
        let status = Status::default();
        status.record("broker away".to_owned());
        assert_eq!(status.trouble().as_deref(), Some("broker away"));
        status.well();
        assert_eq!(status.trouble(), None);
    }
}
