//! The settings of one source, in sections `[sources.NAME]`.

use std::time::Duration;

use super::{MS, YEAR};
use crate::config::amount;
use crate::late::Late;
use crate::source::Overrides;

/// A setting of one source, in the section `[sources.NAME]`.
pub struct SourceSetting {
    /// Its name in the section.
    pub name: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// What it is, and where it goes.
    pub kind: SourceKind,
    /// Which sources have it.
    pub of: Of,
}

/// What a setting of a source is.
pub enum SourceKind {
    /// From least to most.
    Time(Duration, Duration, fn(&mut Overrides, Duration)),
    /// A text of a form; `false`: it is not of that form.
    Word(&'static str, fn(&mut Overrides, &str) -> bool),
}

impl SourceKind {
    /// What is expected of a value.
    pub fn form(&self) -> String {
        let text = amount::duration_text;
        match self {
            Self::Time(min, max, _) => format!(
                "a duration such as 250ms or 5s, from {} to {}",
                text(*min),
                text(*max)
            ),
            Self::Word(form, _) => (*form).to_owned(),
        }
    }

    /// Puts a value in; `false`: it is not what is expected.
    pub fn set(&self, overrides: &mut Overrides, text: &str) -> bool {
        match self {
            Self::Time(min, max, set) => {
                let time = amount::duration(text).filter(|time| (*min..=*max).contains(time));
                time.map(|time| set(overrides, time)).is_some()
            }
            Self::Word(_, set) => set(overrides, text),
        }
    }
}

/// Which sources have a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Streams: tables have no event times.
    Streams,
    /// Streams that are read from topics: a table needs its topic from the start.
    StreamTopics,
    /// Whatever is read from topics.
    Topics,
    /// Tables that are read from topics.
    TableTopics,
}

/// The settings of every section `[sources.NAME]`.
pub static SOURCE_SETTINGS: &[SourceSetting] = &[
    SourceSetting {
        name: "lateness",
        doc: "How far events may lag behind the newest one of their partition and still be on time",
        kind: SourceKind::Time(Duration::ZERO, YEAR, |s, d| s.lateness = Some(d)),
        of: Of::Streams,
    },
    SourceSetting {
        name: "late",
        doc: "What becomes of events that come too late for their window; `correct 1h`: they revise it for so long",
        kind: SourceKind::Word("`dead_letter`, `drop`, or `correct` and a duration", |s, text| {
            s.late = late(text);
            s.late.is_some()
        }),
        of: Of::Streams,
    },
    SourceSetting {
        name: "idle_after",
        doc: "After how long without a valid event time a partition with nothing more to read, and no open transaction, no longer holds windows open",
        kind: SourceKind::Time(MS, YEAR, |s, d| s.idle_after = Some(d)),
        of: Of::Streams,
    },
    SourceSetting {
        name: "future_bound",
        doc: "How far past the present an event time may lie; beyond that the record is a dead letter. The limit moves on from time to time, so that one up to 2s further ahead, or a thirtieth of the bound, may pass",
        kind: SourceKind::Time(Duration::ZERO, Duration::from_secs(100 * 365 * 86_400), |s, d| {
            s.future_bound = Some(d);
        }),
        of: Of::Streams,
    },
    SourceSetting {
        name: "start",
        doc: "Where the first start begins to read; later ones go on where the ledger says",
        kind: SourceKind::Word(
            "`earliest`, `latest`, or a time such as 2026-03-01T12:00:00Z",
            |s, text| {
                s.start = text.parse().ok();
                s.start.is_some()
            },
        ),
        of: Of::StreamTopics,
    },
    SourceSetting {
        name: "wait_for_topic",
        doc: "Whether a topic that is missing at the start is waited for, and not an error",
        kind: SourceKind::Word("true or false", |s, text| {
            s.wait_for_topic = text.parse().ok();
            s.wait_for_topic.is_some()
        }),
        of: Of::Topics,
    },
    SourceSetting {
        name: "deletes",
        doc: "What deletes the row of a record's key: a record without payload alone; also one whose payload is null in its format, as JSON `null` is; also one of no bytes",
        kind: SourceKind::Word("`tombstone`, `null` or `null_or_empty`", |s, text| {
            s.deletes = text.parse().ok();
            s.deletes.is_some()
        }),
        of: Of::TableTopics,
    },
];

/// As [`Late`] is shown.
fn late(text: &str) -> Option<Late> {
    match text.trim() {
        "dead_letter" => Some(Late::DeadLetter),
        "drop" => Some(Late::Drop),
        text => amount::duration(text.strip_prefix("correct ")?).map(Late::Correct),
    }
}
