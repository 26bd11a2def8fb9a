//! Dead letters as the rows of a sink.

use serde::{Deserialize, Serialize};

use crate::codec::Cause;
use crate::codec::header::Header;
use crate::source::DeadLetter;
use crate::time::EventTime;

/// A dead letter, as a sink gets it: what the view `<source>.dead_letters` shows, and the record's headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRow {
    /// Name of the source.
    pub source: String,
    /// Name of the connector that reads the source: `kafka`.
    pub connector: Option<String>,
    /// The topic, file or generator.
    pub topic: String,
    /// Partition in it.
    pub partition: u32,
    /// Offset in that.
    pub offset: i64,
    /// The step that turned the record down: the source itself, or one behind it.
    pub step: String,
    /// Why.
    pub cause: Cause,
    /// More about why.
    pub detail: Option<String>,
    /// The log's timestamp; of what a step behind the source turned down, its event time.
    pub timestamp: EventTime,
    /// The schema id that the bytes named.
    pub schema: Option<u32>,
    /// The record's headers, where the source turned it down.
    pub headers: Vec<Header>,
    /// Key bytes, where the source did.
    #[serde(with = "crate::codec::header::bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload bytes, where the source did; else the event as JSON, as the step got it.
    #[serde(with = "crate::codec::header::bytes")]
    pub payload: Option<Vec<u8>>,
}

impl LetterRow {
    /// Whether the payload is that of the record, and not an event as JSON.
    pub fn is_record(&self) -> bool {
        !matches!(
            self.cause,
            Cause::Late | Cause::Rejected | Cause::ValueUnavailable
        )
    }
}

/// What rows of a source's dead letters have in common.
#[derive(Clone, Debug)]
pub(crate) struct LetterSource {
    pub source: String,
    pub connector: Option<String>,
    pub topic: String,
}

impl LetterSource {
    pub(crate) fn row(&self, letter: &DeadLetter) -> LetterRow {
        let letter = letter.clone();
        LetterRow {
            source: self.source.clone(),
            connector: self.connector.clone(),
            topic: self.topic.clone(),
            partition: letter.at.partition.partition,
            offset: letter.at.offset,
            step: letter.step,
            cause: letter.cause,
            detail: letter.detail,
            timestamp: letter.timestamp,
            schema: letter.schema,
            headers: letter.headers,
            key: letter.key,
            payload: letter.payload,
        }
    }
}
