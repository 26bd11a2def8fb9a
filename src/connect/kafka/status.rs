//! What a Kafka client has to say besides records: logs go to `tracing`, trouble is kept for health and
//! metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::source::SourceErrorKind;

/// What stands between a source and its broker now. Shared by the source's driver and its readers.
#[derive(Debug, Default)]
pub(super) struct ClientStatus {
    troubled: AtomicBool,
    trouble: Mutex<Option<ClientFault>>,
    troubles: AtomicU64,
}

#[derive(Debug)]
struct ClientFault {
    cause: FaultCause,
    text: String,
}

/// What stands behind a trouble, the one that says most last: that no broker is left is only a consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FaultCause {
    NobodyLeft,
    Other,
    /// The broker hung up before a word was said.
    Protocol,
    /// TLS.
    Handshake,
    /// The broker does not know the login, or not that way to log in.
    Login,
}

impl FaultCause {
    fn of(code: Option<RDKafkaErrorCode>, text: &str) -> Self {
        match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => Self::NobodyLeft,
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::UnsupportedSASLMechanism,
            ) => Self::Login,
            Some(RDKafkaErrorCode::SSL) => Self::Handshake,
            _ if text.contains("SSL handshake failed") => Self::Handshake,
            // The first request of a connection was not answered, or librdkafka itself guesses at what that
            // means.
            _ if text.contains("security.protocol")
                || (text.contains("Disconnected") && text.contains("in state APIVERSION_QUERY")) =>
            {
                Self::Protocol
            }
            _ => Self::Other,
        }
    }
}

/// What librdkafka says of a connection that could not be made.
fn is_refused_connection(text: &str) -> bool {
    text.contains("Connect to") && text.contains("in state CONNECT")
}

impl ClientStatus {
    /// The broker or the way to it is in trouble; librdkafka goes on trying.
    pub(super) fn record(&self, trouble: String) {
        self.record_as(None, trouble);
    }

    /// The same with librdkafka's code. What says less than what is known already is not kept.
    fn record_as(&self, code: Option<RDKafkaErrorCode>, text: String) {
        tracing::debug!(target: "thalweg::kafka", "{text}");
        self.troubles.fetch_add(1, Ordering::Relaxed);
        let cause = FaultCause::of(code, &text);
        let mut known = self.trouble.lock();
        // A broker that is just ending hangs up, too: where nobody listens any more, that was it.
        let was_its_end =
            |known: &ClientFault| known.cause == FaultCause::Protocol && is_refused_connection(&text);
        if known
            .as_ref()
            .is_none_or(|known| known.cause <= cause || was_its_end(known))
        {
            *known = Some(ClientFault { cause, text });
        }
        drop(known);
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
        self.trouble.lock().as_ref().map(|trouble| trouble.text.clone())
    }

    /// What a broker that can't be talked to suffers from. A login or certificate that is refused looks like
    /// nobody to whoever asked: only the client's log tells.
    pub(super) fn error_kind(&self) -> SourceErrorKind {
        let cause = self.trouble.lock().as_ref().map(|trouble| trouble.cause);
        match cause {
            None | Some(FaultCause::Other | FaultCause::NobodyLeft) => SourceErrorKind::Away,
            Some(FaultCause::Login | FaultCause::Handshake | FaultCause::Protocol) => {
                SourceErrorKind::Refused
            }
        }
    }

    /// What to say of a broker that can't be talked to: what is wrong, to be followed by its address; what to
    /// do.
    pub(super) fn advice(&self) -> (&'static str, &'static str) {
        let trouble = self.trouble.lock();
        let Some(ClientFault { cause, text }) = &*trouble else {
            return (UNREACHED, IS_IT_RUNNING);
        };
        match cause {
            FaultCause::Login if text.contains("mechanism") && !text.contains("invalid credentials") => (
                "cannot log in to Kafka at",
                "set `sasl.mechanism` in [kafka.properties] to one that the broker's listener has",
            ),
            FaultCause::Login => (
                "the login is refused by Kafka at",
                "look at `sasl.username`, `sasl.password` and `sasl.mechanism` in [kafka.properties]: the \
                    broker knows no such user, or another password",
            ),
            FaultCause::Handshake
                if text.contains("certificate verify failed") || text.contains("could not be verified") =>
            {
                (
                    "there is no trust in the certificate of Kafka at",
                    "set `ssl.ca.location` in [kafka.properties] to the certificate (PEM) of the authority \
                        that signed the broker's, and name the broker as its certificate does",
                )
            }
            FaultCause::Handshake
                if text.contains("wrong version number") || text.contains("PLAINTEXT broker") =>
            {
                (
                    "there is no TLS at",
                    "this port speaks no TLS: set `security.protocol` in [kafka.properties] to that of the \
                        listener, or take the port of the one with TLS",
                )
            }
            FaultCause::Handshake => (
                "there is no TLS connection to Kafka at",
                "look at the settings `ssl.*` in [kafka.properties]; the broker may ask for a certificate \
                    of ours: `ssl.certificate.location`, `ssl.key.location`",
            ),
            FaultCause::Protocol => (
                "another protocol is spoken by Kafka at",
                "set `security.protocol` in [kafka.properties] to that of the broker's listener: SSL, \
                    SASL_SSL or SASL_PLAINTEXT",
            ),
            FaultCause::Other | FaultCause::NobodyLeft => (UNREACHED, IS_IT_RUNNING),
        }
    }
}

const UNREACHED: &str = "cannot reach Kafka at";
const IS_IT_RUNNING: &str = "is it running, and is `kafka.bootstrap` (`--kafka`) its address?";

/// Takes the events of one client.
pub(super) struct StatusContext(pub(super) Arc<ClientStatus>);

impl ClientContext for StatusContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Of a broker that hangs up at the first word librdkafka makes a log line, and no error.
        if facility == "FAIL" && FaultCause::of(None, message) == FaultCause::Protocol {
            self.0.record_as(None, message.to_owned());
        }
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
        let code = error.rdkafka_error_code();
        let text = match code {
            Some(code) => format!("{code}: {reason}"),
            None => reason.to_owned(),
        };
        self.0.record_as(code, text);
    }
}

impl ConsumerContext for StatusContext {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(target: "thalweg::kafka", %error, "cannot report progress to the consumer group");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_something_is_read() {
        let status = ClientStatus::default();
        status.record("broker away".to_owned());
        assert_eq!(status.trouble().as_deref(), Some("broker away"));
        status.well();
        assert_eq!(status.trouble(), None);
    }

    #[test]
    fn a_broker_that_hung_up_as_it_ended_is_away() {
        let status = ClientStatus::default();
        let log = |text: &str| status.record_as(None, text.into());
        log("b:9092/1: Disconnected: connection reset by peer (after 0ms in state APIVERSION_QUERY)");
        assert_eq!(status.error_kind(), SourceErrorKind::Refused);
        log(
            "b:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
        );
        assert_eq!(status.error_kind(), SourceErrorKind::Away);
        assert_eq!(status.advice().0, UNREACHED);
    }

    #[test]
    fn a_consequence_does_not_hide_its_cause() {
        let status = ClientStatus::default();
        let down = || {
            status.record_as(
                Some(RDKafkaErrorCode::AllBrokersDown),
                "1/1 brokers are down".into(),
            )
        };
        down();
        status.record_as(
            Some(RDKafkaErrorCode::Authentication),
            "invalid credentials".into(),
        );
        down();
        assert_eq!(status.trouble().as_deref(), Some("invalid credentials"));
        assert!(status.advice().1.contains("sasl.password"));
        assert_eq!(status.error_kind(), SourceErrorKind::Refused);
        status.well();
        down();
        assert_eq!(status.error_kind(), SourceErrorKind::Away);
        assert_eq!(status.advice().0, UNREACHED);
    }
}
