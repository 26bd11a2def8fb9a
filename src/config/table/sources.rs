//! The settings of one source, in sections `[sources.NAME]`.

use std::time::Duration;

use crate::connect::CONNECTORS;
use crate::connect::connector::Connector;
use crate::late::Late;
use crate::setting::{MS, YEAR, amount};
use crate::source::setting::{Of, SourceKind, SourceSetting};

const TIMELESS: &str = "is a table: it has no times";

/// Every setting of a section `[sources.NAME]`, with the connector whose sources have it; `None`: all have.
pub(crate) fn source_settings()
-> impl Iterator<Item = (Option<&'static dyn Connector>, &'static SourceSetting)> {
    let own = CONNECTORS.iter().flat_map(|connector| {
        let settings = connector.source_settings().iter();
        settings.map(move |setting| (Some(*connector), setting))
    });
    SOURCE_SETTINGS.iter().map(|setting| (None, setting)).chain(own)
}

/// Those of every source.
static SOURCE_SETTINGS: &[SourceSetting] = &[
    SourceSetting {
        name: "lateness",
        doc: "How far events may lag behind the newest one of their partition and still be on time",
        kind: SourceKind::Time(Duration::ZERO, YEAR, |s, d| s.lateness = Some(d)),
        of: Of::Streams(TIMELESS),
    },
    SourceSetting {
        name: "late",
        doc: "What becomes of events that come too late for their window; `correct 1h`: they revise it for \
            so long",
        kind: SourceKind::Word("`dead_letter`, `drop`, or `correct` and a duration", |s, text| {
            s.late = late(text);
            s.late.is_some()
        }),
        of: Of::Streams(TIMELESS),
    },
    SourceSetting {
        name: "idle_after",
        doc: "After how long without a valid event time a partition with nothing more to read, and no open \
            transaction, no longer holds windows open",
        kind: SourceKind::Time(MS, YEAR, |s, d| s.idle_after = Some(d)),
        of: Of::Streams(TIMELESS),
    },
    SourceSetting {
        name: "future_bound",
        doc: "How far past the present an event time may lie; beyond that the record is a dead letter. The \
            limit moves on from time to time, so that one up to 2s further ahead, or a thirtieth of the \
            bound, may pass",
        kind: SourceKind::Time(Duration::ZERO, Duration::from_secs(100 * 365 * 86_400), |s, d| {
            s.future_bound = Some(d);
        }),
        of: Of::Streams(TIMELESS),
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
