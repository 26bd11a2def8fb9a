//! A dead letter, read back from its topic.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::{CONNECT, ORIGINAL, OWN};
use crate::codec::header::Header;

/// A header that says how often a record was replayed.
pub(super) const REPLAYED: &str = "thalweg.replayed";
/// A header that says which letter it was replayed from: `topic/partition/offset`.
pub(super) const REPLAYED_FROM: &str = "thalweg.replayed.from";

/// A record of a topic of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Letter {
    /// Where the letter stands.
    pub partition: i32,
    pub offset: i64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl Letter {
    /// A record, with all that belongs to it.
    pub(super) fn of(record: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: record.partition(),
            offset: record.offset(),
            written_ms: record.timestamp().to_millis(),
            key: record.key().map(<[u8]>::to_vec),
            payload: record.payload().map(<[u8]>::to_vec),
            headers: headers_of(record),
        }
    }

    /// The text of a header.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.name == name)?;
        std::str::from_utf8(header.value.as_deref()?).ok()
    }

    /// What stands behind `thalweg.` in a header's name.
    pub(super) fn own(&self, name: &str) -> Option<&str> {
        self.text(&format!("{OWN}{name}"))
    }

    fn connect(&self, name: &str) -> Option<&str> {
        self.text(&format!("{CONNECT}{name}"))
    }

    /// Where the record was: topic, partition and offset. `None`: this is no letter of Thalweg.
    pub(super) fn place(&self) -> Option<(&str, i32, i64)> {
        let partition = self.connect("partition")?.parse().ok()?;
        let offset = self.connect("offset")?.parse().ok()?;
        Some((self.connect("topic")?, partition, offset))
    }

    /// Whether it was read from a Kafka topic, where it can go back to.
    pub(super) fn is_of_kafka(&self) -> bool {
        self.own("connector") == Some(super::super::settings::NAME)
    }

    /// Whether key and payload are the record's, and not an event that was made of it.
    pub(super) fn is_record(&self) -> bool {
        self.own("payload") == Some("record")
    }

    /// The time that the record had in its topic, in milliseconds.
    pub(super) fn timestamp_ms(&self) -> Option<i64> {
        self.own("timestamp")?.parse().ok().filter(|ms| *ms > 0)
    }

    /// The headers that the record had, under the names that they had.
    pub(super) fn original_headers(&self) -> Vec<Header> {
        let original = |header: &Header| {
            let own = [CONNECT, OWN]
                .iter()
                .any(|prefix| header.name.starts_with(prefix));
            let name = match header.name.strip_prefix(ORIGINAL) {
                Some(name) => name.to_owned(),
                None if own => return None,
                None => header.name.clone(),
            };
            let value = header.value.clone();
            Some(Header { name, value })
        };
        self.headers.iter().filter_map(original).collect()
    }
}

/// All headers of a record, in their order.
pub(super) fn headers_of(record: &BorrowedMessage<'_>) -> Vec<Header> {
    let all = record.headers().into_iter().flat_map(|headers| headers.iter());
    all.map(|header| Header {
        name: header.key.to_owned(),
        value: header.value.map(<[u8]>::to_vec),
    })
    .collect()
}

/// The headers of a record that is replayed from a letter: its own, and which letter that was.
pub(super) fn marked(headers: Vec<Header>, topic: &str, letter: &Letter) -> Vec<Header> {
    let is_mark = |header: &Header| [REPLAYED, REPLAYED_FROM].contains(&header.name.as_str());
    let count = |header: &Header| std::str::from_utf8(header.value.as_deref()?).ok()?.parse().ok();
    let before = headers.iter().find(|header| header.name == REPLAYED);
    let times: u64 = before.and_then(count).unwrap_or(0);
    let mut marked: Vec<Header> = headers.into_iter().filter(|header| !is_mark(header)).collect();
    let from = format!("{topic}/{}/{}", letter.partition, letter.offset);
    for (name, value) in [(REPLAYED, (times + 1).to_string()), (REPLAYED_FROM, from)] {
        marked.push(Header {
            name: name.to_owned(),
            value: Some(value.into_bytes()),
        });
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header {
            name: name.into(),
            value: Some(value.into()),
        }
    }

    #[test]
    fn a_record_gets_its_own_headers_back_and_a_mark() {
        let letter = Letter {
            partition: 1,
            offset: 7,
            written_ms: None,
            key: None,
            payload: None,
            headers: vec![
                header("thalweg.sink", "app.payments.dead_letters.0"),
                header("__connect.errors.topic", "payments.v1"),
                header("__connect.errors.partition", "3"),
                header("__connect.errors.offset", "42"),
                header("trace", "a"),
                header("thalweg.original.thalweg.epoch", "5"),
                header("thalweg.original.thalweg.replayed", "2"),
                header("thalweg.original.thalweg.replayed.from", "old/0/0"),
            ],
        };
        assert_eq!(letter.place(), Some(("payments.v1", 3, 42)));
        let expected = [
            header("trace", "a"),
            header("thalweg.epoch", "5"),
            header("thalweg.replayed", "3"),
            header("thalweg.replayed.from", "dead.v1/1/7"),
        ];
        assert_eq!(marked(letter.original_headers(), "dead.v1", &letter), expected);
    }
}
