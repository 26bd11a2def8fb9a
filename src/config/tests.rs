mod reference;

use std::net::SocketAddr;

use super::*;
use crate::config::table::{properties, settings};
use crate::connect::kafka::{KafkaSettings, TopicSettings};
use crate::ingest::BufferLimits;
use crate::late::Late;
use crate::runtime;
use crate::source::{Deletes, Start};

const HUNTER: &str = "hunter2-is-secret";

/// What a file, variables and flags say together.
fn said(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<ResolvedSettings> {
    let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    load(&ConfigInputs {
        file: Some((PathBuf::from("thalweg.toml"), file.to_owned())),
        variables: variables.iter().map(own).collect(),
        flags: flags
            .iter()
            .map(|(name, value)| CliOverride {
                name: name.to_string(),
                flag: format!("--{name}"),
                value: value.to_string(),
            })
            .collect(),
    })
}

/// The error of a file, in full.
fn wrong(file: &str) -> String {
    said(file, &[], &[]).expect_err(file).to_string()
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_code() {
    let settings = load(&ConfigInputs::default()).unwrap().settings;
    let (runtime, http) = (runtime::RunSettings::default(), HttpSettings::default());
    assert_eq!(settings.workers, runtime.workers);
    assert_eq!(
        crate::sequencer::Cuts::Clock {
            interval: settings.epoch_interval
        },
        runtime.cuts
    );
    assert_eq!(settings.epochs_in_flight_max, runtime.epochs_in_flight_max);
    assert_eq!(settings.history, runtime.history);
    assert_eq!(
        format!("{:?}", settings.bounds),
        format!("{:?}", BufferLimits::default())
    );
    assert_eq!(format!("{:?}", settings.http), format!("{http:?}"));
}

#[test]
fn later_layers_win_and_are_named() {
    let file = "workers = 2\nepoch_interval = \"10ms\"\n\n[http]\naddress = \"127.0.0.1:1\"\nbody_bytes_max \
        = \"128KiB\"\n";
    let resolved = said(
        file,
        &[
            ("THALWEG_WORKERS", "3"),
            ("THALWEG_HTTP", "127.0.0.1:2"),
            ("THALWEG_DATA_DIR", ""),
        ],
        &[("workers", "4")],
    )
    .unwrap();
    let settings = &resolved.settings;
    assert_eq!(settings.workers, 4);
    assert_eq!(settings.epoch_interval, Duration::from_millis(10));
    assert_eq!(settings.http.address, SocketAddr::from(([127, 0, 0, 1], 2)));
    assert_eq!(settings.http.body_bytes_max, 128 << 10);
    assert_eq!(
        settings.data_dir,
        PathBuf::from("data"),
        "an empty variable says nothing"
    );
    let origin = |name: &str| resolved.origin(name).to_string();
    assert_eq!(origin("workers"), "--workers");
    assert_eq!(origin("http.address"), "THALWEG_HTTP");
    assert_eq!(origin("epoch_interval"), "thalweg.toml:2");
    assert_eq!(origin("http.body_bytes_max"), "thalweg.toml:6");
    assert_eq!(origin("http.reads_max"), "default");
}

#[test]
fn an_unknown_name_is_told_with_its_line_and_the_nearest_one() {
    let text = wrong("workers = 2\nwrokers = 3\n[http]\nadress = \"127.0.0.1:1\"\n");
    for part in [
        "the settings contain 2 mistakes",
        "thalweg.toml:2: unknown setting `wrokers`; the nearest is `workers`",
        "thalweg.toml:4: unknown setting `http.adress`; the nearest is `http.address`",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(
        wrong("kafka = \"h:1\"")
            .contains("`kafka` is a section, not a setting; it contains: bootstrap, group")
    );
    let text = wrong("[sources.payments]\nlatness = \"5s\"");
    assert!(
        text.contains(
            "thalweg.toml:2: sources have no setting `latness` (in source `payments`); the \
        nearest is `lateness`"
        ),
        "{text}"
    );
    let text = said("", &[], &[("htpp.address", "x")]).unwrap_err().to_string();
    assert!(
        text.contains("--htpp.address: unknown setting `htpp.address`; the nearest is `http.address`"),
        "{text}"
    );
    assert!(!wrong("zzzzqqq = 1").contains("nearest"));
}

#[test]
fn serving_on_belongs_to_the_end() {
    let text = said("", &[], &[("serve", "true")]).unwrap_err().to_string();
    assert!(text.contains("--serve: `serve` needs `until_end`"), "{text}");
    let resolved = said(
        "[ready]\nlag_max = 10\n[http]\nstale_reads = true\n",
        &[],
        &[("serve", "true"), ("until_end", "true")],
    );
    let settings = resolved.unwrap().settings;
    assert!(settings.serve && settings.http.stale_reads);
    assert_eq!(settings.ready_lag_max, Some(10));
    assert_eq!(said("", &[], &[]).unwrap().settings.ready_lag_max, None);
}

#[test]
fn mistakes_of_a_file_are_listed_from_top_to_bottom() {
    let file =
        "workers = 0\nwrokers = 3\nepoch_interval = 5\n[http]\nadress = 1\nreads_max = 0\n[bounds]\nx = 1\n";
    let text = said(file, &[("THALWEG_RATE", "0")], &[("until_end", "maybe")]);
    let text = text.unwrap_err().to_string();
    let places: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start().split_once(": ").map(|(place, _)| place))
        .filter(|place| *place != "hint" && *place != "error")
        .collect();
    let lines = [1, 2, 3, 5, 6, 8].map(|line| format!("thalweg.toml:{line}"));
    assert_eq!(places[..6], lines, "{text}");
    assert_eq!(places[6..].len(), 2, "{text}");
}

#[test]
fn a_wrong_type_or_range_is_told_with_its_line() {
    for (file, expected) in [
        (
            "workers = \"2\"",
            "thalweg.toml:1: `workers` must be a whole number from 1 to 256; it is \"2\"",
        ),
        (
            "\nworkers = 0",
            "thalweg.toml:2: `workers` must be a whole number from 1 to 256; it is the number 0",
        ),
        ("workers = -1", "it is the number -1"),
        ("workers = 1.5", "it is a fraction"),
        ("workers = [1]", "it is a list"),
        (
            "epoch_interval = 5",
            "`epoch_interval` must be a duration such as 250ms or 5s, from 1ms to 1m; it is the number 5",
        ),
        ("epoch_interval = \"2m\"", "from 1ms to 1m; it is \"2m\""),
        (
            "until_end = \"true\"",
            "`until_end` must be true or false; it is \"true\"",
        ),
        (
            "[buffer]\nbytes_max = \"64M\"",
            "thalweg.toml:2: `buffer.bytes_max` must be a size such as 64MiB, from 1MiB to",
        ),
        (
            "[http]\naddress = \"8460\"",
            "must be an address such as 127.0.0.1:8460",
        ),
        ("[log]\nformat = \"xml\"", "`log.format` must be `text` or `json`"),
        (
            "[kafka]\nbootstrap = \"broker\"",
            "`kafka.bootstrap` must be a comma-separated list of HOST:PORT",
        ),
        (
            "[sources.a]\nlateness = \"soon\"",
            "`sources.a.lateness` must be a duration",
        ),
        (
            "workers = 2\nworkers = 3",
            "thalweg.toml:2: invalid TOML: duplicate key",
        ),
        ("workers = \n", "thalweg.toml:1: invalid TOML"),
    ] {
        let text = wrong(file);
        assert!(text.contains(expected), "{file}\n{expected}\n{text}");
    }
}

#[test]
fn variables_that_belong_to_nobody_are_told_if_they_look_like_ours() {
    let resolved = said(
        "",
        &[
            ("THALWEG_WORKRES", "2"),
            ("THALWEG_PORT", "tcp://1.2.3.4:8460"),
            ("THALWEG_CACHE", "/tmp"),
            ("THALWEG_SOURCES_PAYMENTS_LATENESS", "5s"),
            ("WORKERS", "9"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(
        resolved.warnings,
        [
            "the variable THALWEG_WORKRES matches no setting; the nearest is `THALWEG_WORKERS`",
            "the variable THALWEG_SOURCES_PAYMENTS_LATENESS has no effect: set a source's settings in the file, \
                under [sources.NAME]"
        ]
    );
    assert_eq!(resolved.settings.workers, 1);
}

#[test]
fn the_level_of_the_log_has_the_name_that_everybody_knows() {
    let level = |variables: &[(&str, &str)]| said("", variables, &[]).unwrap().settings.log.level;
    assert_eq!(level(&[("RUST_LOG", "debug")]), "debug");
    assert_eq!(
        level(&[("RUST_LOG", "debug"), ("THALWEG_LOG_LEVEL", "warn")]),
        "warn"
    );
}

#[test]
fn kafkas_properties_go_by_an_allow_list() {
    let file = "[kafka.properties]\nsecurity.protocol = \"sasl_ssl\"\n\"sasl.mechanisms\" = \
        \"SCRAM-SHA-512\"\n\
                sasl.username = \"u\"\nfetch.wait.max.ms = 5\nsocket.keepalive.enable = true\n";
    let resolved = said(file, &[("THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD", HUNTER)], &[]);
    if cfg!(not(feature = "tls")) {
        assert!(resolved.unwrap_err().to_string().contains("feature `tls`"));
        return;
    }
    let resolved = resolved.unwrap();
    let kafka = resolved.settings.connectors.get::<KafkaSettings>().unwrap();
    let mut properties = kafka.properties.clone();
    properties.sort();
    let expected = [
        ("fetch.wait.max.ms", "5"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "u"),
        ("security.protocol", "sasl_ssl"),
        ("socket.keepalive.enable", "true"),
    ];
    assert_eq!(properties, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(kafka.secrets.len(), 1);
    assert_eq!(
        resolved.origin("kafka.properties.sasl.password").to_string(),
        "THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD"
    );

    for (property, expected) in [
        (
            "isolation.level = \"read_uncommitted\"",
            "cannot be set: records of aborted transactions",
        ),
        (
            "enable.auto.commit = true",
            "cannot be set: the ledger decides where reading resumes",
        ),
        (
            "auto.offset.reset = \"latest\"",
            "cannot be set: if a position is gone",
        ),
        ("group.id = \"g\"", "the group is the setting `kafka.group`"),
        (
            "enable.partition.eof = false",
            "cannot be set: idle partitions and `until_end` depend on it",
        ),
        (
            "fetch.wait.max = 5",
            "that can be set; the nearest is `fetch.wait.max.ms`",
        ),
        (
            "fetch.wait.max.ms = \"soon\"",
            "`kafka.properties.fetch.wait.max.ms`: Invalid value",
        ),
        (
            "security.protocol = \"TLS\"",
            "must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
        ),
        (
            "sasl.mechanism = \"GSSAPI\"",
            "must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        (
            "sasl.username = \"u\"",
            "`kafka.properties.sasl.username` has no effect with security.protocol PLAINTEXT",
        ),
        (
            "security.protocol = \"SASL_SSL\"",
            "asks for SASL, and `sasl.mechanism` is not set",
        ),
        (
            "ssl.ca.location = \"/no/such/file\"",
            "names /no/such/file, and there is no such file",
        ),
    ] {
        let text = wrong(&format!("[kafka.properties]\n{property}\n"));
        assert!(
            text.contains(expected) && text.contains("thalweg.toml:2"),
            "{property}\n{expected}\n{text}"
        );
    }
}

#[test]
fn what_is_refused_is_not_allowed_and_both_are_known_to_librdkafka() {
    let known = |name: &str| {
        let told = crate::connect::kafka::properties::accepts(name, "\u{1}").err();
        told.is_none_or(|told| !told.contains("No such configuration property"))
    };
    let kafka = properties().find(|of| of.prefix == "kafka.properties.").unwrap();
    for property in kafka.known {
        assert!(kafka.refusal(property.name).is_none(), "{}", property.name);
        assert!(known(property.name), "{}", property.name);
    }
    for (name, _) in kafka.refused {
        assert!(kafka.find(name).is_none(), "{name}");
        assert!(known(name), "{name}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{HUNTER}\n")).unwrap();
    let path = path.to_str().unwrap();
    let ways: [(String, Vec<(&str, &str)>); 3] = [
        (
            format!("[registry]\nusername = \"u\"\npassword = \"{HUNTER}\""),
            vec![],
        ),
        (
            format!("[registry]\nusername = \"u\"\npassword_file = \"{path}\""),
            vec![],
        ),
        (
            "[registry]\nusername = \"u\"".into(),
            vec![("THALWEG_REGISTRY_PASSWORD_FILE", path)],
        ),
    ];
    for (file, variables) in ways {
        let resolved = said(&file, &variables, &[]).unwrap();
        let password = resolved.settings.registry.password.as_ref().unwrap();
        assert_eq!(password.reveal(), HUNTER, "{file}");
        let shown = format!(
            "{resolved:?} {:?}",
            resolved
                .entries
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        );
        assert!(!shown.contains(HUNTER) && shown.contains("***"), "{shown}");
    }
    // A stronger layer covers the weaker one, whichever way it names the secret.
    let file = format!("[registry]\nusername = \"u\"\npassword_file = \"{path}\"");
    let resolved = said(&file, &[("THALWEG_REGISTRY_PASSWORD", "other")], &[]).unwrap();
    assert_eq!(resolved.settings.registry.password.unwrap().reveal(), "other");

    for (file, expected) in [
        (
            format!("[registry]\ntokn = \"{HUNTER}\""),
            "the nearest is `registry.token`",
        ),
        (
            format!("[registry]\npassword = \"{HUNTER}\""),
            "needs `registry.username`",
        ),
        (
            format!("[registry]\ntoken = [\"{HUNTER}\"]"),
            "`registry.token` must be a string",
        ),
        (format!("[registry]\ntoken = \"{HUNTER}"), "invalid TOML"),
        (
            format!("[registry]\ntoken = \"{HUNTER}\"\ntoken_file = \"{path}\""),
            "`registry.token` is already set, at thalweg.toml:2",
        ),
        (
            "[registry]\ntoken_file = \"/no/such/file\"".into(),
            "names /no/such/file, which cannot be read",
        ),
        (
            format!("[registry]\nurl = \"http://u:{HUNTER}@registry\""),
            "`registry.url` must be",
        ),
        (
            format!("[kafka.properties]\nsasl.passwrod = \"{HUNTER}\""),
            "the nearest is `sasl.password`",
        ),
        (
            format!("[kafka.properties]\nsasl.password = \"{HUNTER}\""),
            "has no effect with security.protocol PLAINTEXT",
        ),
    ] {
        let text = wrong(&file);
        assert!(text.contains(expected), "{file}\n{expected}\n{text}");
        assert!(!text.contains(HUNTER), "{text}");
    }
    let text = said("", &[], &[("registry.token", HUNTER)])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("every user of the machine can read the command line"),
        "{text}"
    );
    assert!(
        text.contains("THALWEG_REGISTRY_TOKEN") && !text.contains(HUNTER),
        "{text}"
    );
}

#[test]
fn settings_of_sources_belong_to_sources_that_have_them() {
    let known = |name: &str, timed, topic: bool| KnownSource {
        name: name.to_owned(),
        timed,
        connector: Some(if topic { "kafka" } else { "files" }),
    };
    let said_of = |resolved: &ResolvedSettings, name: &str| {
        let said = &resolved.settings.sources[name];
        assert_eq!((said.idle_after, said.future_bound), (None, None));
        let topic = said.connector.get::<TopicSettings>().cloned();
        (said.lateness, said.late, topic.unwrap_or_default())
    };
    let sources = [
        known("payments", true, true),
        known("names", false, true),
        known("lines", true, false),
        known("a.b", true, true),
    ];
    let file = "[sources.paymnts]\nlateness = \"5s\"\n[sources.names]\nidle_after = \"1s\"\nstart = \
        \"latest\"\n\
                wait_for_topic = true\n[sources.lines]\nstart = \"latest\"\nlate = \
                \"drop\"\nwait_for_topic = false\n\
                [sources.payments]\ndeletes = \"null\"\n";
    let text = said(file, &[], &[])
        .unwrap()
        .sources_fit(&sources)
        .unwrap_err()
        .to_string();
    for told in [
        "thalweg.toml:2: the dataflow has no source `paymnts`; the nearest is `payments`",
        "thalweg.toml:4: `names` is a table and has no event time",
        "thalweg.toml:5: `names` is a table: it is read from its topic's beginning",
        "thalweg.toml:8: `lines` is not read from a topic",
        "thalweg.toml:10: `lines` is not read from a topic",
        "thalweg.toml:12: `payments` is a stream: it has no rows to delete",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    assert!(!text.contains("toml:6") && !text.contains("toml:9"), "{text}");

    let file = "[sources.\"a.b\"]\nlateness = \"5s\"\nlate = \"correct 1h 30m\"\nstart = \
        \"2026-03-01T12:00:00Z\"\n\
                [sources.payments]\nlate = \"dead_letter\"\nstart = \"earliest\"\nwait_for_topic = true\n\
                [sources.names]\ndeletes = \"null_or_empty\"\n";
    let resolved = said(file, &[], &[]).unwrap();
    resolved.sources_fit(&sources).unwrap();
    let topic = TopicSettings {
        start: Some(Start::Timestamp("2026-03-01T12:00:00Z".parse().unwrap())),
        ..TopicSettings::default()
    };
    let late = Late::Correct(Duration::from_secs(5_400));
    let expected = (Some(Duration::from_secs(5)), Some(late), topic);
    assert_eq!(said_of(&resolved, "a.b"), expected);
    let topic = TopicSettings {
        start: Some(Start::Earliest),
        wait_for_topic: Some(true),
        ..TopicSettings::default()
    };
    assert_eq!(
        said_of(&resolved, "payments"),
        (None, Some(Late::DeadLetter), topic)
    );
    let topic = TopicSettings {
        deletes: Some(Deletes::NullOrEmpty),
        ..TopicSettings::default()
    };
    assert_eq!(said_of(&resolved, "names"), (None, None, topic));

    for (wrong, told) in [
        (
            "late = \"correct\"",
            "must be `dead_letter`, `drop`, or `correct` and a duration",
        ),
        (
            "start = \"yesterday\"",
            "must be `earliest`, `latest`, or a time such as",
        ),
        ("wait_for_topic = \"yes\"", "must be true or false"),
        (
            "deletes = \"all\"",
            "must be `tombstone`, `null` or `null_or_empty`",
        ),
    ] {
        let text = said(&format!("[sources.a]\n{wrong}"), &[], &[])
            .unwrap_err()
            .to_string();
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn names_flags_and_variables_are_each_used_once() {
    let mut seen = std::collections::BTreeSet::new();
    for setting in settings() {
        assert!(seen.insert(setting.name.to_owned()), "{}", setting.name);
        assert!(seen.insert(setting.variable()), "{}", setting.variable());
        if let Some(flag) = &setting.flag {
            assert!(seen.insert(format!("--{}", flag.name)), "{}", flag.name);
            assert!(!setting.is_secret(), "{}: a secret has no flag", setting.name);
        }
        assert!(
            !setting.doc.is_empty() && !setting.doc.ends_with('.'),
            "{}",
            setting.name
        );
    }
}

#[test]
fn the_page_of_settings_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = reference::page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/settings.md is not up to date: BLESS=1 cargo test --lib config"
    );
}

/// Every settings file that a page of docs/ shows is one, but for the files that it names.
#[test]
fn pages_show_valid_settings() {
    let mut checked = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = std::fs::read_to_string(&path).unwrap();
        let blocks = page
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next());
        for example in blocks.filter(|block| !block.contains("[dependencies]")) {
            checked += 1;
            let text = said(example, &[], &[])
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            let absent = |line: &&str| !line.contains("no such file") && !line.contains("cannot be read");
            let others: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("thalweg.toml"))
                .filter(absent)
                .collect();
            assert!(others.is_empty(), "{}: {others:?}", path.display());
        }
    }
    assert!(checked >= 2, "where are the examples?");
}
