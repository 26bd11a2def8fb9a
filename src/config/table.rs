//! The table of all settings: the engine's, defined here, and those of the connectors.
//!
//! Everything else is derived from it: the command line flags, the environment variables, the contents of a
//! file, the output of `check`, and the page docs/settings.md (a test compares the page with it).

mod access;
mod cluster;
mod sources;

pub(crate) use sources::source_settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::checkpoint::location;
use crate::config::{LogFormat, ServiceSettings};
use crate::connect::CONNECTORS;
use crate::runtime::OnDifference;
use crate::runtime::checkpoints::OnNewProgram;
use crate::setting::extensions::Extensions;
use crate::setting::properties::Properties;
use crate::setting::{
    DAY, FlagScope, HOUR, MIN, MS, S, Setting, SettingKind, bytes, count, flag, flagged, setting, text, time,
};

/// Every setting, in the order of display: the engine's, then those of each connector.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    let own = CONNECTORS.iter().flat_map(|connector| connector.settings());
    SETTINGS
        .iter()
        .chain(access::SETTINGS)
        .chain(cluster::SETTINGS)
        .chain(own)
}

/// The sections for properties of clients.
pub(crate) fn properties() -> impl Iterator<Item = &'static Properties> {
    CONNECTORS.iter().filter_map(|connector| connector.properties())
}

/// The targets of the engine's values.
fn of(values: &mut Extensions) -> &mut ServiceSettings {
    values.get_mut()
}

fn on_new(text: &str) -> Option<OnNewProgram> {
    let known = [
        ("accept", OnNewProgram::Accept),
        ("refuse", OnNewProgram::Refuse),
        ("rebuild", OnNewProgram::Rebuild),
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
        flag("workers", "N", FlagScope::All),
    ),
    flagged(
        setting(
            "data_dir",
            text("a directory", |s, text| {
                of(s).data_dir = PathBuf::from(text);
                !text.is_empty()
            }),
            "data",
            "Data directory. Holds one directory per dataflow, with its ledger and checkpoints. `demo` \
                without a Kafka uses a temporary one",
        ),
        flag("data-dir", "DIR", FlagScope::All),
    ),
    flagged(
        setting(
            "until_end",
            SettingKind::Switch(|s, on| of(s).until_end = on),
            "false",
            "Process what the sources hold at the start, then stop",
        ),
        flag("until-end", "", FlagScope::Run),
    ),
    flagged(
        setting(
            "serve",
            SettingKind::Switch(|s, on| of(s).serve = on),
            "false",
            "With `until_end`: keep serving the views until a signal stops the process",
        ),
        flag("serve", "", FlagScope::Run),
    ),
    setting(
        "epoch_interval",
        time(MS, MIN, |s, d| of(s).epoch_interval = d),
        "5ms",
        "Minimum time between two epochs. Larger values cost less per record and add latency",
    ),
    setting(
        "epochs_in_flight_max",
        count(1, 256, |s, n| of(s).epochs_in_flight_max = n),
        "3",
        "Maximum number of unfinished epochs. No further epoch opens until one closes: this is the \
            backpressure",
    ),
    setting(
        "views.history",
        time(Duration::ZERO, DAY, |s, d| of(s).history = d),
        "1m",
        "How far back `as_of` reads may go, for views that do not set their own history",
    ),
    setting(
        "checkpoint.interval",
        time(Duration::ZERO, DAY, |s, d| of(s).checkpoint_interval = d),
        "10s",
        "Time from one checkpoint to the next; the first is written at once. A restart replays what \
            came after the last one. 0s: checkpoints are neither written nor read",
    ),
    setting(
        "checkpoint.store",
        text("s3://BUCKET/PREFIX or file:///FOLDER", |s, text| {
            of(s).checkpoint_place.url = Some(text.to_owned());
            location::is_known(text)
        }),
        "",
        "Where checkpoints are stored, by application and dataflow. Default: next to the ledger. \
            Credentials for a bucket come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the \
            role of the machine",
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
            "Endpoint of an object store other than Amazon's",
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
        "Number of checkpoints to keep. If the newest is damaged, a restart uses the one before it",
    ),
    setting(
        "checkpoint.trim_ledger",
        SettingKind::Switch(|s, on| of(s).checkpoints_trim = on),
        "true",
        "Trim the ledger behind the oldest kept checkpoint, by 4 MiB or more at a time. With `false` it \
            stays complete, and all state can be rebuilt from the topics, epoch by epoch",
    ),
    setting(
        "checkpoint.on_new_build",
        text("accept, refuse or rebuild", |s, text| {
            on_new(text).map(|what| of(s).on_new_build = what).is_some()
        }),
        "accept",
        "What to do with a checkpoint of another build: `accept` continues from it, with rows as the \
            old code made them; `refuse` does not start; `rebuild` recomputes all state from the topics, \
            if the ledger is complete",
    ),
    setting(
        "checkpoint.on_new_plan",
        text("accept, keep, refuse or rebuild", |s, text| {
            let what = match text {
                "keep" => Some(OnNewProgram::Keep),
                _ => on_new(text),
            };
            what.map(|what| of(s).on_new_plan = what).is_some()
        }),
        "refuse",
        "What to do with a checkpoint whose operators differ from the dataflow's: `accept` drops the \
            state of removed operators and starts new and changed ones empty; `keep` does the same, but \
            operators of which only the inputs changed (one more `filter`, two merged into one) keep their \
            state, and their views are rebuilt; `refuse` does not start; `rebuild` recomputes all state \
            from the topics, if the ledger is complete. New views are always backfilled with their rows as \
            of the checkpoint",
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
        "What to do when a replayed epoch has another result than the ledger recorded: `halt` stops and \
            names the view and the epoch; `warn` logs and counts it; `ignore` neither records nor compares \
            results",
    ),
    setting(
        "buffer.records_max",
        count(1_000, 100_000_000, |s, n| of(s).bounds.records_max = n),
        "500000",
        "Maximum number of records that a source buffers on one worker before they are released at an \
            epoch",
    ),
    setting(
        "buffer.bytes_max",
        bytes(1 << 20, 1 << 40, |s, n| of(s).bounds.bytes_max = n),
        "64MiB",
        "The same, in bytes of keys and payloads",
    ),
    setting(
        "buffer.batch_max",
        count(1, 1_000_000, |s, n| of(s).bounds.batch_max = n),
        "4096",
        "Maximum number of records to read from a partition at once",
    ),
    setting(
        "buffer.skew_max",
        time(S, Duration::from_secs(365 * 86_400), |s, d| {
            of(s).bounds.skew_max = d
        }),
        "30s",
        "Watermark alignment: how far, in event time, a partition may be ahead of others that have more \
            to read",
    ),
    setting(
        "dead_letters.topic",
        text(sources::TOPIC, |s, text| {
            of(s).dead_letters = Some(text.to_owned());
            sources::is_topic(text)
        }),
        "",
        "Kafka topic that the dead letters of all sources are written to which name no topic of their own. \
            Default: none; the views `<source>.dead_letters` show the newest in any case",
    ),
    setting(
        "kafka.group",
        text("a name", |s, text| {
            of(s).group = text.to_owned();
            !text.is_empty()
        }),
        "thalweg",
        "Consumer group to commit offsets to, for lag tools. It is also the application name in the \
            ledger; a ledger belongs to one",
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
        flag("registry", "URL", FlagScope::All),
    ),
    setting(
        "registry.username",
        text("a name", |s, text| {
            of(s).registry.username = Some(text.to_owned());
            !text.is_empty()
        }),
        "",
        "User name for basic authentication at the registry",
    ),
    setting(
        "registry.password",
        SettingKind::Secret(|s, secret| of(s).registry.password = Some(secret)),
        "",
        "Password for basic authentication",
    ),
    setting(
        "registry.token",
        SettingKind::Secret(|s, secret| of(s).registry.token = Some(secret)),
        "",
        "Bearer token for the registry, instead of user name and password",
    ),
    setting(
        "registry.ca_file",
        text("a file", |s, text| {
            of(s).registry.ca_file = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "CA certificates (PEM) to trust for the registry, in addition to the system's",
    ),
    setting(
        "registry.unknown_wait",
        time(Duration::ZERO, HOUR, |s, d| of(s).registry.unknown_wait = d),
        "30s",
        "How long records wait for a schema id that the registry does not know. After that they become \
            dead letters, until it does",
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
            "Address to listen on. Port 0 takes any free port. Beyond loopback, `http.tls.*` and \
                `http.tokens_file` are required",
        ),
        flag("http", "ADDRESS", FlagScope::All),
    ),
    setting(
        "http.connections_max",
        count(1, 1_000_000, |s, n| of(s).http.connections_max = n),
        "1024",
        "Maximum number of open connections; further ones get a 503",
    ),
    setting(
        "http.requests_max",
        count(1, 1_000_000, |s, n| of(s).http.requests_max = n),
        "512",
        "Maximum number of concurrent requests, including those that wait; further ones get a 503",
    ),
    setting(
        "http.body_bytes_max",
        bytes(1 << 10, 64 << 20, |s, n| of(s).http.body_bytes_max = n),
        "64KiB",
        "Maximum size of a request body",
    ),
    setting(
        "http.body_time_max",
        time(MS, HOUR, |s, d| of(s).http.body_time_max = d),
        "5s",
        "Maximum time to receive a request body",
    ),
    setting(
        "http.url_bytes_max",
        bytes(256, 64 << 10, |s, n| of(s).http.url_bytes_max = n),
        "8KiB",
        "Maximum length of a URL",
    ),
    setting(
        "http.idle_time_max",
        time(S, DAY, |s, d| of(s).http.idle_time_max = d),
        "1m",
        "How long a connection may stay open without a request",
    ),
    setting(
        "http.wait_max",
        time(Duration::ZERO, HOUR, |s, d| of(s).http.wait_max = d),
        "30s",
        "Maximum `wait` of a request",
    ),
    setting(
        "http.scans_max",
        count(0, 1_024, |s, n| {
            if n > 0 {
                of(s).http.scans_max = n;
            }
        }),
        "0",
        "Maximum number of concurrent large scans, each on a thread of its own. 0: the number of cores",
    ),
    setting(
        "http.scan_time_max",
        time(MS, HOUR, |s, d| of(s).http.scan_time_max = d),
        "10s",
        "Maximum time of a large scan, including the time it is queued",
    ),
    setting(
        "http.scanned_rows_max",
        count(1, 1_000_000_000, |s, n| of(s).http.scanned_rows_max = n),
        "2000000",
        "Maximum number of rows that one read may look at. In key order, a page ends there and `next` \
            continues; in another order, a read of more rows is refused, unless conditions on the key \
            exclude enough of them",
    ),
    setting(
        "http.reads_max",
        count(1, 1_000, |s, n| of(s).http.reads_max = n),
        "32",
        "Maximum number of reads in one `POST /v1/query`",
    ),
    setting(
        "http.stale_reads",
        SettingKind::Switch(|s, on| of(s).http.stale_reads = on),
        "false",
        "Serve older epochs while a restart recovers. With `false`, reads of the newest epoch get a 503 \
            until the last epoch bound before the restart is closed again; reads with `as_of` or a cursor \
            are served as soon as their epoch is",
    ),
    setting(
        "ready.lag_max",
        count(0, usize::MAX, |s, n| of(s).ready_lag_max = Some(n as u64)),
        "",
        "`/health/ready` returns 200 once at most this many records are left to read. Default: once \
            everything that the topics held at the start is processed. In any case not before a restart \
            has replayed what was bound before it",
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
            "Format of log lines",
        ),
        flag("log", "FORMAT", FlagScope::All),
    ),
    Setting {
        also: Some("RUST_LOG"),
        ..setting(
            "log.level",
            text(
                "a level (error, warn, info, debug, trace), or a comma-separated list of MODULE=LEVEL",
                |s, text| {
                    of(s).log.level = text.to_owned();
                    text.parse::<tracing_subscriber::filter::Targets>().is_ok()
                },
            ),
            "info",
            "Filter for log lines",
        )
    },
    flagged(
        setting(
            "demo.rate",
            count(1, 2_000, |s, n| of(s).demo_rate = n as u64),
            "200",
            "Events per second that `demo` writes",
        ),
        flag("rate", "N", FlagScope::Demo),
    ),
];

/// A password in a URL would be displayed with it.
fn is_plain_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.split('/').next().unwrap_or_default().contains('@'))
}
