//! Dead letters in a topic of their own: the record as it was, and headers that say why it is there.
//!
//! ```text
//!   LetterRow ─▶ key and payload as they were
//!                headers: thalweg.sink … .sequence        as of any sink: which row it is
//!                         __connect.errors.topic …        as Kafka Connect names them, for tools that know these
//!                         thalweg.cause …                 what Connect has no name for
//!                         the record's own                one that begins as ours do: `thalweg.original.` before it
//! ```

pub(super) mod command;
mod letter;
mod replay;
mod replayed;
mod topic;

use std::sync::Arc;

use super::sink::To;
use crate::codec::Cause;
use crate::codec::header::Header;
use crate::codec::rows::{RowEncoder, RowEncoding, RowsOf};
use crate::error::{Error, Result};
use crate::schema::RowSchema;
use crate::sink::dead_letters::LetterRow;
use crate::sink::row::Row;
use crate::sink::{Method, OpenedSink, Sink};
use crate::source::Environment;

/// Before the names that Kafka Connect's dead letters have.
pub(super) const CONNECT: &str = "__connect.errors.";
/// Before all other names of ours.
pub(super) const OWN: &str = "thalweg.";
/// Before the name of a record's own header that would be taken for one of these.
pub(super) const ORIGINAL: &str = "thalweg.original.";

/// A topic that dead letters are written to.
pub(crate) struct LetterTopic {
    topic: Arc<str>,
}

impl LetterTopic {
    pub(crate) fn new(topic: &str) -> Self {
        Self { topic: topic.into() }
    }
}

impl Sink for LetterTopic {
    fn open(self, method: Method, env: &Environment) -> Result<OpenedSink> {
        let name = format!("{}.{}", super::config::group_or_own(&env.group), env.dataflow);
        let encoding = RowEncoding {
            check: Arc::new(|_| Ok(())),
            encoder: Arc::new(move |of: &RowsOf<'_>| {
                Ok(Box::new(LetterEncoder {
                    schema: of.schema.clone(),
                    dataflow: name.clone(),
                    letter: None,
                }))
            }),
        };
        let to = To {
            topic: self.topic,
            method,
            partitions: None,
        };
        Ok(to.open(env, encoding))
    }
}

/// Takes letters apart. The writer asks for the key first, then for the payload, then for headers.
struct LetterEncoder {
    schema: Arc<RowSchema>,
    /// `GROUP.DATAFLOW`.
    dataflow: String,
    letter: Option<LetterRow>,
}

impl LetterEncoder {
    fn letter(&mut self, row: &Row) -> Result<&LetterRow> {
        let value = row.after();
        let letter = value.and_then(|value| self.schema.decode_value(value));
        let letter: LetterRow = letter.ok_or_else(|| Error::internal("a dead letter can't be decoded"))?;
        Ok(self.letter.insert(letter))
    }
}

impl RowEncoder for LetterEncoder {
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let key = &self.letter(row)?.key;
        out.extend(key.iter().flatten());
        Ok(key.is_some())
    }

    fn payload(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let payload = match &self.letter {
            Some(letter) => &letter.payload,
            None => &self.letter(row)?.payload,
        };
        out.extend(payload.iter().flatten());
        Ok(payload.is_some())
    }

    fn headers(&mut self, row: &Row, headers: &mut Vec<Header>) -> Result<()> {
        let letter = match self.letter.take() {
            Some(letter) => letter,
            None => self.letter(row)?.clone(),
        };
        why(&letter, &self.dataflow, headers);
        headers.extend(letter.headers.into_iter().map(kept));
        Ok(())
    }
}

/// A record's own header, under a name that is none of ours.
fn kept(header: Header) -> Header {
    match [CONNECT, OWN]
        .iter()
        .any(|prefix| header.name.starts_with(prefix))
    {
        true => Header {
            name: format!("{ORIGINAL}{}", header.name),
            ..header
        },
        false => header,
    }
}

/// Where a record was, and why it is dead.
fn why(letter: &LetterRow, dataflow: &str, headers: &mut Vec<Header>) {
    let cause = letter.cause.code();
    let message = match &letter.detail {
        Some(detail) => format!("{cause}: {detail}"),
        None => cause.to_owned(),
    };
    let mut put = |name: String, value: String| {
        headers.push(Header {
            name,
            value: Some(value.into_bytes()),
        });
    };
    for (name, value) in [
        ("topic", letter.topic.clone()),
        ("partition", letter.partition.to_string()),
        ("offset", letter.offset.to_string()),
        ("connector.name", dataflow.to_owned()),
        ("stage", stage(letter.cause).to_owned()),
        ("class.name", letter.step.clone()),
        ("exception.class.name", cause.to_owned()),
        ("exception.message", message),
    ] {
        put(format!("{CONNECT}{name}"), value);
    }
    let millis = letter.timestamp.micros().div_euclid(1000).to_string();
    let form = if letter.is_record() { "record" } else { "event" };
    let own = [
        ("cause", Some(cause.to_owned())),
        ("detail", letter.detail.clone()),
        ("source", Some(letter.source.clone())),
        ("step", Some(letter.step.clone())),
        ("connector", letter.connector.clone()),
        ("payload", Some(form.to_owned())),
        ("timestamp", Some(millis)),
        ("schema", letter.schema.map(|id| id.to_string())),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            put(format!("{OWN}{name}"), value);
        }
    }
}

/// The stage at which Kafka Connect would have failed.
fn stage(cause: Cause) -> &'static str {
    match cause {
        Cause::KeyMissing | Cause::KeyInvalid => "KEY_CONVERTER",
        Cause::EventTimeInvalid
        | Cause::EventTimeFarFuture
        | Cause::Late
        | Cause::Rejected
        | Cause::ValueUnavailable => "TRANSFORMATION",
        _ => "VALUE_CONVERTER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{PartitionId, Position, SourceId};
    use crate::schema::fields::FieldNames;
    use crate::schema::trace::trace;
    use crate::time::EventTime;

    fn letter() -> LetterRow {
        LetterRow {
            source: "payments".into(),
            connector: Some("kafka".into()),
            topic: "payments.v1".into(),
            partition: 3,
            offset: 42,
            step: "payments".into(),
            cause: Cause::JsonUnknownField,
            detail: Some("legs[0].venue".into()),
            timestamp: EventTime::from_millis(-1),
            schema: None,
            headers: Vec::new(),
            key: Some(vec![0, 255]),
            payload: None,
        }
    }

    fn header(name: &str, value: Option<&[u8]>) -> Header {
        Header {
            name: name.into(),
            value: value.map(<[u8]>::to_vec),
        }
    }

    /// Key, payload and headers of a letter in its topic.
    fn encoded(letter: &LetterRow) -> (Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>) {
        let schema = RowSchema::new("it", trace::<()>(), trace::<LetterRow>(), FieldNames::default());
        let schema = Arc::new(schema.unwrap());
        let mut value = Vec::new();
        schema.encode_value(letter, &mut value).unwrap();
        let partition = PartitionId {
            source: SourceId(1),
            partition: letter.partition,
        };
        let at = Position {
            partition,
            offset: letter.offset,
        };
        let times = (letter.timestamp, EventTime::MIN);
        let row = Row::event(at, times, false, &value, 1);
        let mut encoder = LetterEncoder {
            schema,
            dataflow: "tests.spend".into(),
            letter: None,
        };
        let (mut key, mut payload, mut headers) = (Vec::new(), Vec::new(), Vec::new());
        let has_key = encoder.key(&row, &mut key).unwrap();
        let has_payload = encoder.payload(&row, &mut payload).unwrap();
        encoder.headers(&row, &mut headers).unwrap();
        (has_key.then_some(key), has_payload.then_some(payload), headers)
    }

    #[test]
    fn bytes_stay_as_they_were_and_headers_say_why() {
        let (key, payload, headers) = encoded(&letter());
        assert_eq!((key, payload), (Some(vec![0, 255]), None));
        let found: Vec<(String, String)> = headers
            .into_iter()
            .map(|header| (header.name, String::from_utf8(header.value.unwrap()).unwrap()))
            .collect();
        let expected = [
            ("__connect.errors.topic", "payments.v1"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "42"),
            ("__connect.errors.connector.name", "tests.spend"),
            ("__connect.errors.stage", "VALUE_CONVERTER"),
            ("__connect.errors.class.name", "payments"),
            ("__connect.errors.exception.class.name", "json_unknown_field"),
            (
                "__connect.errors.exception.message",
                "json_unknown_field: legs[0].venue",
            ),
            ("thalweg.cause", "json_unknown_field"),
            ("thalweg.detail", "legs[0].venue"),
            ("thalweg.source", "payments"),
            ("thalweg.step", "payments"),
            ("thalweg.connector", "kafka"),
            ("thalweg.payload", "record"),
            ("thalweg.timestamp", "-1"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn headers_of_the_record_are_never_taken_for_ours() {
        let own = vec![
            header("trace", Some(b"\xff")),
            header("trace", None),
            header("thalweg.sink", Some(b"another's")),
            header("__connect.errors.topic", Some(b"first")),
        ];
        let letter = LetterRow {
            headers: own,
            cause: Cause::Late,
            step: "spend".into(),
            ..letter()
        };
        let (_, _, headers) = encoded(&letter);
        let expected = [
            header("trace", Some(b"\xff")),
            header("trace", None),
            header("thalweg.original.thalweg.sink", Some(b"another's")),
            header("thalweg.original.__connect.errors.topic", Some(b"first")),
        ];
        assert_eq!(headers[headers.len() - 4..], expected);
        assert!(headers.contains(&header("thalweg.payload", Some(b"event"))));
    }
}
