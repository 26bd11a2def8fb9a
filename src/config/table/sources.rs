//! The settings of one source, in sections `[sources.NAME]`.

use std::time::Duration;

use crate::connect::CONNECTORS;
use crate::connect::connector::Connector;
use crate::late::Late;
use crate::setting::{MS, YEAR, amount};
use crate::source::setting::{SettingScope, SourceSetting, SourceSettingKind};

const TIMELESS: &str = "is a table and has no event time";

/// Every setting of a section `[sources.NAME]`, with the connector whose sources have it; `None`: every
/// source has it.
pub(crate) fn source_settings()
-> impl Iterator<Item = (Option<&'static dyn Connector>, &'static SourceSetting)> {
    let own = CONNECTORS.iter().flat_map(|connector| {
        let settings = connector.source_settings().iter();
        settings.map(move |setting| (Some(*connector), setting))
    });
    SOURCE_SETTINGS.iter().map(|setting| (None, setting)).chain(own)
}

/// The settings that every source has.
static SOURCE_SETTINGS: &[SourceSetting] = &[
    SourceSetting {
        name: "lateness",
        doc: "How far events may lag behind the newest event of their partition and still be on time",
        kind: SourceSettingKind::Time(Duration::ZERO, YEAR, |s, d| s.lateness = Some(d)),
        of: SettingScope::Streams(TIMELESS),
    },
    SourceSetting {
        name: "late",
        doc: "What to do with events that arrive after their window closed. `correct 1h`: they revise it \
            for that long",
        kind: SourceSettingKind::Word("`dead_letter`, `drop`, or `correct` and a duration", |s, text| {
            s.late = late(text);
            s.late.is_some()
        }),
        of: SettingScope::Streams(TIMELESS),
    },
    SourceSetting {
        name: "idle_after",
        doc: "How long a partition may be quiet, with nothing left to read and no open transaction, before \
            it no longer holds back the watermark",
        kind: SourceSettingKind::Time(MS, YEAR, |s, d| s.idle_after = Some(d)),
        of: SettingScope::Streams(TIMELESS),
    },
    SourceSetting {
        name: "future_bound",
        doc: "How far ahead of the wall clock an event time may be; beyond that, the record is a dead \
            letter. The limit moves in steps, so event times up to 2s (or a thirtieth of the bound) \
            further ahead may pass",
        kind: SourceSettingKind::Time(Duration::ZERO, Duration::from_secs(100 * 365 * 86_400), |s, d| {
            s.future_bound = Some(d);
        }),
        of: SettingScope::Streams(TIMELESS),
    },
    SourceSetting {
        name: "dead_letters",
        doc: "Kafka topic that the source's dead letters are written to, besides its view of them",
        kind: SourceSettingKind::Word(TOPIC, |s, text| {
            s.dead_letters = Some(text.to_owned());
            is_topic(text)
        }),
        of: SettingScope::All,
    },
];

/// What a setting expects that names a topic.
pub(super) const TOPIC: &str = "a topic's name: up to 249 letters, digits, dots, hyphens and underscores";

/// Returns whether Kafka accepts `text` as the name of a topic.
pub(super) fn is_topic(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=249).contains(&text.len()) && text.chars().all(is_fit) && ![".", ".."].contains(&text)
}

/// Parses [`Late`] as displayed.
fn late(text: &str) -> Option<Late> {
    match text.trim() {
        "dead_letter" => Some(Late::DeadLetter),
        "drop" => Some(Late::Drop),
        text => amount::duration(text.strip_prefix("correct ")?).map(Late::Correct),
    }
}
