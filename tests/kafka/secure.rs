//! A Kafka that wants TLS and a login: let in with the right ones, told clearly with the wrong ones, and
//! nothing that is printed on the way holds the password.

use std::io::Read;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use thalweg::connect::kafka::Kafka;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::secret::Secret;
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Environment, Source};

use super::PATIENCE;
use super::broker::{Reading, numbers};
use crate::support::certificates::Authority;
use crate::support::kafka::{Broker, Secure};
use crate::support::registry::Registry;
use crate::support::thalweg::Thalweg;

const USER: &str = "thalweg";
const PASSWORD: &str = "hunter2-is-secret";
const TOPIC: &str = "secure.numbers.v1";
const RECORDS: u64 = 2_000;

fn broker() -> &'static (Broker, Secure) {
    static BROKER: OnceLock<(Broker, Secure)> = OnceLock::new();
    BROKER.get_or_init(|| {
        let broker = Broker::start_secure(USER, PASSWORD);
        broker.create_topic(TOPIC, 1);
        numbers(&broker, TOPIC, 0..RECORDS);
        let secure = broker.secure();
        (broker, secure)
    })
}

/// What the settings would make of these properties.
fn environment(kafka: &str, properties: &[(&str, &str)], password: Option<&str>) -> Environment {
    let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Environment {
        connectors: Extensions::of(KafkaSettings {
            bootstrap: kafka.to_owned(),
            properties: properties.iter().map(own).collect(),
            secrets: password
                .map(|password| ("sasl.password".to_owned(), Secret::new(password)))
                .into_iter()
                .collect(),
        }),
        ..Environment::default()
    }
}

fn sasl<'a>(mechanism: &'a str, ca: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", USER),
        ("ssl.ca.location", ca),
    ]
}

#[test]
fn records_are_read_with_the_right_login() {
    let (_, secure) = broker();
    let ca = &secure.ca;
    let tls = [("security.protocol", "SSL"), ("ssl.ca.location", &**ca)];
    let ways = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
        .map(|mechanism| environment(&secure.sasl, &sasl(mechanism, ca), Some(PASSWORD)));
    for env in ways.into_iter().chain([environment(&secure.ssl, &tls, None)]) {
        let mut reading = Reading::through(&env, TOPIC, 0);
        reading.until("all numbers", |r| r.progress.position == RECORDS as i64);
        assert!(reading.values.iter().copied().eq(0..RECORDS));
    }
}

#[test]
fn what_is_wrong_is_named_in_time_and_without_the_password() {
    let (_, secure) = broker();
    let folder = tempfile::tempdir().unwrap();
    // It signed nothing here.
    let other = Authority::new(folder.path(), "other");
    let other = other.file.to_str().unwrap();
    let wrong = "wrong-and-secret-too";
    let (ca, login) = (&secure.ca, |ca| sasl("SCRAM-SHA-512", ca));
    let cases = [
        (
            environment(&secure.sasl, &login(ca), Some(wrong)),
            "the login is refused",
            "sasl.password",
        ),
        (
            environment(&secure.sasl, &sasl("PLAIN", ca), Some(wrong)),
            "the login is refused",
            "sasl.password",
        ),
        (
            environment(&secure.sasl, &login(other), Some(PASSWORD)),
            "there is no trust in the certificate",
            "ssl.ca.location",
        ),
        (
            environment(&secure.sasl, &[], None),
            "another protocol is spoken",
            "security.protocol",
        ),
        (
            environment(&secure.ssl, &[], None),
            "another protocol is spoken",
            "security.protocol",
        ),
        (
            environment(&broker().0.bootstrap(), &login(ca), Some(PASSWORD)),
            "there is no TLS",
            "security.protocol",
        ),
    ];
    for (env, what, setting) in cases {
        let opened = Source::open(Kafka::topic(TOPIC).json::<u64>(), &env).unwrap();
        let begun = Instant::now();
        let error = opened.driver.topology().unwrap_err();
        assert!(begun.elapsed() < PATIENCE, "{error}");
        assert!(error.what().starts_with(what), "{what}\n{error}");
        let hint = error.to_string();
        let hint = hint.rsplit("hint: ").next().unwrap();
        assert!(hint.contains(setting), "{setting}\n{error}");
        let told = format!("{error} {error:?} {:?}", opened.driver.trouble());
        assert!(!told.contains("secret"), "{told}");
    }
}

/// Runs the `thalweg` binary with settings in a file; what it printed, and whether it went well.
fn thalweg(folder: &std::path::Path, arguments: &[&str], password: &str) -> (String, bool) {
    let mut process = crate::support::thalweg::command(arguments)
        .current_dir(folder)
        .env("THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD", password)
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = process.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    let mut text = Vec::new();
    process.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    text.extend(errors.join().unwrap());
    (
        String::from_utf8_lossy(&text).into_owned(),
        process.wait().unwrap().success(),
    )
}

#[test]
fn check_and_run_take_the_settings_and_show_no_secret() {
    let (broker, secure) = broker();
    for (topic, partitions) in [("payments.transactions.v1", 4), ("payments.merchants.v1", 1)] {
        broker.create_topic(topic, partitions);
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "[kafka]\nbootstrap = \"{}\"\n[kafka.properties]\nsecurity.protocol = \"SASL_SSL\"\n\
         sasl.mechanism = \"SCRAM-SHA-512\"\nsasl.username = \"{USER}\"\nssl.ca.location = \"{}\"\ndebug = \"all\"\n\
         [registry]\nurl = \"{}\"\ntoken = \"token-{PASSWORD}\"\n[http]\naddress = \"127.0.0.1:0\"\n",
        secure.sasl,
        secure.ca,
        Registry::shared().url(),
    );
    std::fs::write(folder.path().join("thalweg.toml"), settings).unwrap();
    let hidden = |text: &str| {
        let line = text.lines().find(|line| line.contains(PASSWORD));
        assert!(line.is_none(), "{line:?}");
    };

    let (text, went_well) = thalweg(folder.path(), &["check"], PASSWORD);
    assert!(went_well, "{text}");
    hidden(&text);
    for part in [
        "kafka.properties.sasl.password      ***",
        "THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD",
        "thalweg.toml:2",
        "source `payments`, topic `payments.transactions.v1`: 4 partitions",
        "cleanup.policy=delete, nothing that a replay needs expires",
        // Whether the registry has it is up to the tests that ran before: they share it.
        "subject `payments.transactions.v1-value`",
        "credentials for the schema registry are sent unencrypted",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (json, _) = thalweg(folder.path(), &["check", "--json"], PASSWORD);
    let json = &json[json.find("{\n").unwrap()..=json.rfind('}').unwrap()];
    let answer: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(answer["fits"], true, "{json}");
    hidden(json);
    let entries: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(entries.len(), 1, "check has made something: {entries:?}");

    let (text, went_well) = thalweg(folder.path(), &["run", "--until-end"], PASSWORD);
    assert!(went_well, "{text}");
    hidden(&text);
    assert!(text.contains("SCRAM"), "librdkafka's own words are in the log");
    let service = Thalweg::start_with(&["run"], |command| {
        command
            .current_dir(folder.path())
            .env("THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD", PASSWORD)
            .env("RUST_LOG", "debug");
    });
    service.ready();
    for path in ["/metrics", "/health/ready", "/v1/views", "/v1/sources"] {
        hidden(&service.page(path));
    }
    let (status, log) = service.end(libc::SIGTERM);
    assert!(status.success(), "{log}");
    hidden(&log);

    // What the ledger binds is looked at too.
    let (text, _) = thalweg(folder.path(), &["check"], PASSWORD);
    assert!(text.contains("is intact"), "{text}");

    let wrong = &format!("not-{PASSWORD}");
    for command in [&["check"][..], &["run"]] {
        let (text, went_well) = thalweg(folder.path(), command, wrong);
        assert!(
            !went_well && text.contains("the login is refused by Kafka"),
            "{text}"
        );
        hidden(&text);
    }

    // Compaction and retention that a replay would suffer from.
    broker.delete_topic("payments.merchants.v1");
    let compacted = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "60000")];
    super::eventually(
        "the topic is gone",
        || (!broker.has_topic("payments.merchants.v1")).then_some(()),
        || "it is there".into(),
    );
    broker.create_topic_with("payments.merchants.v1", 1, &compacted);
    let (text, _) = thalweg(folder.path(), &["check"], PASSWORD);
    assert!(text.contains("with a min.compaction.lag.ms of 60000"), "{text}");
}
