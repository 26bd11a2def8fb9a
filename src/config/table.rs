//! The table of all settings: the engine's own, written here once, and those of the connectors.
//!
//! Everything else is made from it: the flags of the command line, the names of variables, what a file may
//! hold, what `check` prints, and the page docs/settings.md (a test holds the page against it).

mod sources;

pub(crate) use sources::source_settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::checkpoint::place;
use crate::config::{LogFormat, Settings};
use crate::connect::CONNECTORS;
use crate::runtime::OnDifference;
use crate::runtime::checkpoints::OnNew;
use crate::setting::extensions::Extensions;
use crate::setting::properties::Properties;
use crate::setting::{
    DAY, HOUR, Kind, MIN, MS, On, S, Setting, bytes, count, flag, flagged, setting, text, time,
};

/// Every setting, in the order in which they are shown: the engine's, then those of each connector.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    let own = CONNECTORS.iter().flat_map(|connector| connector.settings());
    SETTINGS.iter().chain(own)
}

/// The sections of the clients' own properties.
pub(crate) fn properties() -> impl Iterator<Item = &'static Properties> {
    CONNECTORS.iter().filter_map(|connector| connector.properties())
}

/// Where the engine's own values go.
fn of(values: &mut Extensions) -> &mut Settings {
    values.get_mut()
}

fn on_new(text: &str) -> Option<OnNew> {
    let known = [
        ("accept", OnNew::Accept),
        ("refuse", OnNew::Refuse),
        ("rebuild", OnNew::Rebuild),
    ];
    known
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, what)| *what)
}

/// The engine's settings.
static SETTINGS: &[Setting] = &[
    flagged(
        setting(
            "workers",
            count(1, 256, |s, n| of(s).workers = n),
            "1",
            "Worker threads",
        ),
        flag("workers", "N", On::All),
    ),
    flagged(
        setting(
            "data_dir",
            text("a folder", |s, text| {
                of(s).data_dir = PathBuf::from(text);
                !text.is_empty()
            }),
            "data",
            "Where the ledger is kept; one folder a dataflow is made in it. `demo` without a Kafka uses a \
                temporary one",
        ),
        flag("data-dir", "DIR", On::All),
    ),
    flagged(
        setting(
            "until_end",
            Kind::Switch(|s, on| of(s).until_end = on),
            "false",
            "Stop when everything that is in the topics at the start has been counted",
        ),
        flag("until-end", "", On::Run),
    ),
    flagged(
        setting(
            "serve",
            Kind::Switch(|s, on| of(s).serve = on),
            "false",
            "With `until_end`: read no further at that end, and go on answering until a signal stops the \
                process",
        ),
        flag("serve", "", On::Run),
    ),
    setting(
        "epoch_interval",
        time(MS, MIN, |s, d| of(s).epoch_interval = d),
        "5ms",
        "Shortest time between two epochs. Longer: less work a record, results later",
    ),
    setting(
        "epochs_in_flight_max",
        count(1, 256, |s, n| of(s).epochs_in_flight_max = n),
        "3",
        "How many epochs may be unfinished before no further one opens: the back pressure",
    ),
    setting(
        "views.history",
        time(Duration::ZERO, DAY, |s, d| of(s).history = d),
        "1m",
        "How far back `as_of` reaches, in views that don't say so themselves",
    ),
    setting(
        "checkpoint.interval",
        time(Duration::ZERO, DAY, |s, d| of(s).checkpoint_interval = d),
        "10s",
        "From one checkpoint to the next, the first at once: a restart replays what came after the last \
            one. 0s: none are made, and none is read",
    ),
    setting(
        "checkpoint.store",
        text("s3://BUCKET/PREFIX or file:///FOLDER", |s, text| {
            of(s).checkpoint_place.url = Some(text.to_owned());
            place::is_known(text)
        }),
        "",
        "Where checkpoints are kept, by app and dataflow; nothing: beside the ledger. Who asks a bucket is \
            said by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by the role of the machine",
    ),
    Setting {
        also: Some("AWS_ENDPOINT_URL"),
        ..setting(
            "checkpoint.endpoint",
            text("an http:// or https:// URL without a password", |s, text| {
                of(s).checkpoint_place.endpoint = Some(text.to_owned());
                is_plain_url(text)
            }),
            "",
            "Address of an object store other than Amazon's",
        )
    },
    Setting {
        also: Some("AWS_REGION"),
        ..setting(
            "checkpoint.region",
            text("a name", |s, text| {
                of(s).checkpoint_place.region = Some(text.to_owned());
                !text.is_empty()
            }),
            "",
            "The region of the bucket",
        )
    },
    setting(
        "checkpoint.keep",
        count(1, 1000, |s, n| of(s).checkpoints_kept = n),
        "2",
        "How many checkpoints are kept: a damaged one is passed over for the one before it",
    ),
    setting(
        "checkpoint.trim_ledger",
        Kind::Switch(|s, on| of(s).checkpoints_trim = on),
        "true",
        "Let go of the ledger's beginning once no checkpoint that is kept needs it, and 4 MiB or more of \
            it. With `false` it stays whole, and state can be made anew from the topics, epoch by epoch",
    ),
    setting(
        "checkpoint.on_new_build",
        text("accept, refuse or rebuild", |s, text| {
            on_new(text).map(|what| of(s).on_new_build = what).is_some()
        }),
        "accept",
        "What to do with a checkpoint that another build made: go on from it, with rows as the old code \
            made them; don't start; or make all state anew from the topics, as long as the ledger is whole",
    ),
    setting(
        "checkpoint.on_new_plan",
        text("accept, keep, refuse or rebuild", |s, text| {
            let what = match text {
                "keep" => Some(OnNew::Keep),
                _ => on_new(text),
            };
            what.map(|what| of(s).on_new_plan = what).is_some()
        }),
        "refuse",
        "What to do with a checkpoint of a dataflow whose steps have changed: `accept` forgets what is gone \
            and lets what is new or changed begin behind it; `keep` does, too, but what is only made of \
            something else (one more `filter`, two merged into one) goes on from its state, its views anew; \
            `refuse` doesn't start; `rebuild` makes all state anew from the topics, as long as the ledger \
            is whole. New views need no word: they begin with their rows as of the checkpoint",
    ),
    setting(
        "replay.on_difference",
        text("halt, warn or ignore", |s, text| {
            let what = match text {
                "halt" => OnDifference::Halt,
                "warn" => OnDifference::Warn,
                "ignore" => OnDifference::Ignore,
                _ => return false,
            };
            of(s).on_difference = what;
            true
        }),
        "halt",
        "What to do when an epoch that is gone through again after a restart comes to another result than \
            the ledger says: stop with the view and the epoch; say and count it; or record and compare \
            nothing",
    ),
    setting(
        "buffer.records_max",
        count(1_000, 100_000_000, |s, n| of(s).bounds.records_max = n),
        "500000",
        "Records that one source may hold on one worker before they are released",
    ),
    setting(
        "buffer.bytes_max",
        bytes(1 << 20, 1 << 40, |s, n| of(s).bounds.bytes_max = n),
        "64MiB",
        "The same in bytes of keys and payloads",
    ),
    setting(
        "buffer.batch_max",
        count(1, 1_000_000, |s, n| of(s).bounds.batch_max = n),
        "4096",
        "Records that are read at once from one partition",
    ),
    setting(
        "buffer.skew_max",
        time(S, Duration::from_secs(365 * 86_400), |s, d| {
            of(s).bounds.skew_max = d
        }),
        "30s",
        "How far a partition may run ahead in event time of others that have more to read",
    ),
    setting(
        "kafka.group",
        text("a name", |s, text| {
            of(s).group = text.to_owned();
            !text.is_empty()
        }),
        "thalweg",
        "Consumer group that shows progress to lag tools, and the name in the ledger: a ledger belongs to one",
    ),
    flagged(
        setting(
            "registry.url",
            text("an http:// or https:// URL without a password", |s, text| {
                of(s).registry.url = Some(text.to_owned());
                is_plain_url(text)
            }),
            "",
            "Schema registry (the Confluent-compatible API)",
        ),
        flag("registry", "URL", On::All),
    ),
    setting(
        "registry.username",
        text("a name", |s, text| {
            of(s).registry.username = Some(text.to_owned());
            !text.is_empty()
        }),
        "",
        "Who logs in at the registry, with `registry.password`",
    ),
    setting(
        "registry.password",
        Kind::Secret(|s, secret| of(s).registry.password = Some(secret)),
        "",
        "The password for it",
    ),
    setting(
        "registry.token",
        Kind::Secret(|s, secret| of(s).registry.token = Some(secret)),
        "",
        "A bearer token for the registry, in place of name and password",
    ),
    setting(
        "registry.ca_file",
        text("a file", |s, text| {
            of(s).registry.ca_file = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "Certificates (PEM) that the registry's may be signed by, besides those the system trusts",
    ),
    setting(
        "registry.unknown_wait",
        time(Duration::ZERO, HOUR, |s, d| of(s).registry.unknown_wait = d),
        "30s",
        "How long the registry may not know a schema id while its records wait; then they become dead \
            letters until it does",
    ),
    flagged(
        setting(
            "http.address",
            text("an address such as 127.0.0.1:8460", |s, text| {
                text.parse::<SocketAddr>()
                    .map(|address| of(s).http.address = address)
                    .is_ok()
            }),
            "127.0.0.1:8460",
            "Where answers are given: a loopback address; port 0 takes any that is free",
        ),
        flag("http", "ADDRESS", On::All),
    ),
    setting(
        "http.connections_max",
        count(1, 1_000_000, |s, n| of(s).http.connections_max = n),
        "1024",
        "Connections open at once; more are told 503",
    ),
    setting(
        "http.requests_max",
        count(1, 1_000_000, |s, n| of(s).http.requests_max = n),
        "512",
        "Requests answered at once, those that wait included; more are told 503",
    ),
    setting(
        "http.body_bytes_max",
        bytes(1 << 10, 64 << 20, |s, n| of(s).http.body_bytes_max = n),
        "64KiB",
        "Longest body of a request",
    ),
    setting(
        "http.body_time_max",
        time(MS, HOUR, |s, d| of(s).http.body_time_max = d),
        "5s",
        "How long a body may take to come",
    ),
    setting(
        "http.url_bytes_max",
        bytes(256, 64 << 10, |s, n| of(s).http.url_bytes_max = n),
        "8KiB",
        "Longest URL",
    ),
    setting(
        "http.idle_time_max",
        time(S, DAY, |s, d| of(s).http.idle_time_max = d),
        "1m",
        "How long a connection may stay without a request",
    ),
    setting(
        "http.wait_max",
        time(Duration::ZERO, HOUR, |s, d| of(s).http.wait_max = d),
        "30s",
        "Longest `wait` of a request",
    ),
    setting(
        "http.scans_max",
        count(0, 1_024, |s, n| {
            if n > 0 {
                of(s).http.scans_max = n;
            }
        }),
        "0",
        "Large scans at once, each on a thread of its own; 0: as many as there are cores",
    ),
    setting(
        "http.scan_time_max",
        time(MS, HOUR, |s, d| of(s).http.scan_time_max = d),
        "10s",
        "How long a large scan may take, its turn waited for included",
    ),
    setting(
        "http.scanned_rows_max",
        count(1, 1_000_000_000, |s, n| of(s).http.scanned_rows_max = n),
        "2000000",
        "How many rows one read may look at. In the order of keys a page ends there, with `next`; in \
            another one a view of more rows is refused at once, unless the key leaves enough of them out",
    ),
    setting(
        "http.reads_max",
        count(1, 1_000, |s, n| of(s).http.reads_max = n),
        "32",
        "Reads in one `POST /v1/query`",
    ),
    setting(
        "http.stale_reads",
        Kind::Switch(|s, on| of(s).http.stale_reads = on),
        "false",
        "Answer with older epochs than before the restart while a restart recovers. With `false` reads of \
            the newest epoch are told 503 until the last epoch that was bound before is there again; those \
            with `as_of` and cursors are answered once theirs is",
    ),
    setting(
        "ready.lag_max",
        count(0, usize::MAX, |s, n| of(s).ready_lag_max = Some(n as u64)),
        "",
        "`/health/ready` says 200 once no more records than these are left, of all that the topics hold by \
            then; nothing said: once everything is counted that they held at the start. In any case not \
            before a restart has recovered what was bound before it",
    ),
    flagged(
        setting(
            "log.format",
            text("`text` or `json`", |s, text| {
                of(s).log.format = match text {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                };
                ["text", "json"].contains(&text)
            }),
            "text",
            "How log lines are written",
        ),
        flag("log", "FORMAT", On::All),
    ),
    Setting {
        also: Some("RUST_LOG"),
        ..setting(
            "log.level",
            text(
                "a level (error, warn, info, debug, trace), or such for modules with commas between",
                |s, text| {
                    of(s).log.level = text.to_owned();
                    text.parse::<tracing_subscriber::filter::Targets>().is_ok()
                },
            ),
            "info",
            "Which log lines are written",
        )
    },
    flagged(
        setting(
            "demo.rate",
            count(1, 2_000, |s, n| of(s).demo_rate = n as u64),
            "200",
            "Events a second that `demo` writes",
        ),
        flag("rate", "N", On::Demo),
    ),
];

/// A password in a URL would be shown with it.
fn is_plain_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.split('/').next().unwrap_or_default().contains('@'))
}
