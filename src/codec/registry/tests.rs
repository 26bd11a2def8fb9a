use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Reply};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::codec::avro::Avro;
use crate::codec::{Cause, Decode, Decoded};

mod access;

const QUICK: RegistryTimeouts = RegistryTimeouts {
    request: Duration::from_millis(200),
    silence: Duration::from_secs(60),
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    again: Duration::from_secs(2),
};

/// A registry that gives the answers it was told to, the last one for ever.
struct Fake {
    runtime: Runtime,
    url: String,
    asked: Arc<AtomicUsize>,
}

type Script = Arc<(Vec<fn() -> Reply>, Arc<AtomicUsize>)>;

async fn schema(Extract(script): Extract<Script>, Path(_id): Path<u32>) -> Reply {
    let turn = script.1.fetch_add(1, Ordering::SeqCst);
    let answer = script.0[turn.min(script.0.len() - 1)]();
    if answer.status() == StatusCode::IM_A_TEAPOT {
        std::future::pending::<()>().await;
    }
    answer
}

impl Fake {
    fn new(script: Vec<fn() -> Reply>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let refused = || {
            (
                StatusCode::CONFLICT,
                answer(json!({ "error_code": 409, "message": "incompatible" })),
            )
        };
        let registered = move |Path(subject): Path<String>, body: String| async move {
            let body: Value = serde_json::from_str(&body).unwrap();
            match (subject.as_str(), body["schema"].as_str()) {
                ("a/b value", Some("\"long\"")) => answer(json!({ "id": 9 })).into_response(),
                _ => refused().into_response(),
            }
        };
        let latest = |Path(subject): Path<String>| async move {
            answer(json!({ "subject": subject, "version": 3, "id": 9, "schema": "\"long\"" }))
        };
        let referenced = |Path(subject): Path<String>| async move { first_version(&subject) };
        let router = Router::new()
            .route("/base/schemas/ids/{id}", get(schema))
            .route(
                "/base/schemas/ids/{id}/subjects",
                get(|| async { answer(json!(["a-value"])) }),
            )
            .route("/base/subjects/{subject}/versions", post(registered))
            .route("/base/subjects/{subject}/versions/latest", get(latest))
            .route("/base/subjects/{subject}/versions/1", get(referenced))
            .with_state(Arc::new((script, asked.clone())));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { runtime, url, asked }
    }

    /// Believes at once what it is told.
    fn registry(&self) -> Registry {
        self.patient(Duration::ZERO)
    }

    fn patient(&self, unknown_wait: Duration) -> Registry {
        let access = RegistryAccess {
            unknown_wait,
            ..RegistryAccess::open(&self.url)
        };
        Registry::with_patience(&access, self.runtime.handle().clone(), QUICK).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Looks `id` up and waits to be woken.
    fn resolve(&self, registry: &Registry, id: u32) -> Lookup {
        let (waker, mut woken) = waker();
        match look(registry, id, &waker) {
            Lookup::Pending => {
                self.runtime.block_on(woken.recv()).unwrap();
                look(registry, id, &waker)
            }
            other => other,
        }
    }
}

fn look(registry: &Registry, id: u32, waker: &Waker) -> Lookup {
    registry.lookup(id, RecordLocation::default(), Some(waker))
}

/// Where an earlier run has read.
const BOUND: RecordLocation = RecordLocation {
    partition: 0,
    offset: 0,
    bound: true,
};

fn verdict(id: u32, fingerprint: Option<u64>) -> Verdict {
    Verdict {
        id,
        fingerprint,
        since: None,
    }
}

fn waker() -> (Waker, UnboundedReceiver<()>) {
    let (sender, receiver) = unbounded_channel();
    (Waker::new(move || sender.send(()).unwrap_or_default()), receiver)
}

fn long() -> Reply {
    answer(json!({ "schema": "\"long\"" })).into_response()
}

fn answer(json: Value) -> String {
    json.to_string()
}

/// Schemas that others refer to.
fn first_version(subject: &str) -> Reply {
    let to = |name: &str| json!([{ "name": name, "subject": name, "version": 1 }]);
    let record = |name: &str, kind: &str| {
        json!({ "type": "record", "name": name, "fields": [{ "name": "a", "type": kind }] }).to_string()
    };
    let body = match subject {
        "x.A" => json!({ "schema": record("x.A", "int") }),
        "x.B" => json!({ "schema": record("x.B", "x.A"), "references": to("x.A") }),
        "x.circle" => json!({ "schema": record("x.circle", "x.round"), "references": to("x.round") }),
        "x.round" => json!({ "schema": record("x.round", "x.circle"), "references": to("x.circle") }),
        _ => {
            let body = json!({ "error_code": 40402, "message": "Version not found" });
            return (StatusCode::NOT_FOUND, answer(body)).into_response();
        }
    };
    answer(body).into_response()
}

fn no_such_schema() -> Reply {
    (
        StatusCode::NOT_FOUND,
        answer(json!({ "error_code": 40403, "message": "Schema not found" })),
    )
        .into_response()
}

fn print() -> u64 {
    fingerprint("\"long\"", &[])
}

#[test]
fn the_fingerprint_is_fixed() {
    assert_eq!(print(), xxhash_rust::xxh3::xxh3_64(b"\"long\""));
    assert_eq!(fingerprint("", &[]), 0x2d06_8005_38d3_94c2);
}

#[test]
fn a_schema_is_asked_for_once_and_wakes_all() {
    let fake = Fake::new(vec![long]);
    let mut registry = fake.registry();
    let (one, mut one_woken) = waker();
    let (two, mut two_woken) = waker();
    assert_eq!(look(&registry, 7, &one), Lookup::Pending);
    let second = look(&registry.clone(), 7, &two);
    fake.runtime.block_on(async {
        one_woken.recv().await;
        // On a busy machine the answer may have come before the second call, which then has nothing to wait
        // for.
        if second == Lookup::Pending {
            two_woken.recv().await;
        }
    });
    let known = Lookup::Known(Arc::new(WriterSchema::new(7, "\"long\"")));
    assert_eq!(look(&registry, 7, &one), known);
    assert_eq!(look(&registry.clone(), 7, &two), known);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    assert_eq!(registry.status(), RegistryStatus::default());
    let mut other = registry.clone();
    assert_eq!(registry.seen(), vec![verdict(7, Some(print()))]);
    assert_eq!(registry.seen(), vec![]);
    assert_eq!(other.seen(), vec![verdict(7, Some(print()))]);
}

#[test]
fn only_the_registrys_own_404_is_a_verdict() {
    let proxy = || (StatusCode::NOT_FOUND, "no such backend").into_response();
    let other_code = || (StatusCode::NOT_FOUND, answer(json!({ "error_code": 404 }))).into_response();
    let no_subject = || (StatusCode::NOT_FOUND, answer(json!({ "error_code": 40401 }))).into_response();
    let no_version = || (StatusCode::NOT_FOUND, answer(json!({ "error_code": 40402 }))).into_response();
    let other_status = || {
        let body = answer(json!({ "error_code": 40403 }));
        (StatusCode::BAD_GATEWAY, body).into_response()
    };
    let outages = vec![proxy, other_code, no_subject, no_version, other_status];
    let fake = Fake::new([outages, vec![no_such_schema, long]].concat());
    let mut registry = fake.registry();
    assert_eq!(fake.resolve(&registry, 7), Lookup::Unknown);
    assert_eq!(fake.asked(), 6);
    assert_eq!(fake.resolve(&registry, 7), Lookup::Unknown);
    assert_eq!(fake.asked(), 6);
    assert_eq!(registry.seen(), vec![verdict(7, None)]);
}

#[test]
fn an_id_that_no_registry_can_have_is_unknown_without_asking() {
    // What registries say to a number that is no `int`: the path doesn't exist.
    let no_such_path = || (StatusCode::NOT_FOUND, answer(json!({ "error_code": 404 }))).into_response();
    let fake = Fake::new(vec![no_such_path]);
    let mut registry = fake.registry();
    let (waker, _woken) = waker();
    for id in [1 << 31, u32::MAX] {
        assert_eq!(look(&registry, id, &waker), Lookup::Unknown);
        assert_eq!(look(&registry, id, &waker), Lookup::Unknown);
    }
    assert_eq!(
        registry.seen(),
        vec![verdict(1 << 31, None), verdict(u32::MAX, None)]
    );
    assert_eq!(registry.status(), RegistryStatus::default());
    assert_eq!(fake.asked.load(Ordering::SeqCst), 0);
    // The greatest that there can be is asked for.
    assert_eq!(look(&registry, (1 << 31) - 1, &waker), Lookup::Pending);
}

#[test]
fn an_absent_registry_is_tried_again() {
    let down = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    let hangs = || StatusCode::IM_A_TEAPOT.into_response();
    let garbage = || "<html>".into_response();
    let no_schema = || answer(json!({ "id": 7 })).into_response();
    let denied = || StatusCode::UNAUTHORIZED.into_response();
    let fake = Fake::new(vec![down, hangs, garbage, no_schema, denied, long]);
    let registry = fake.registry();
    assert!(matches!(fake.resolve(&registry, 7), Lookup::Known(_)));
    assert_eq!(fake.asked.load(Ordering::SeqCst), 6);
    assert_eq!(registry.status().away, None);
}

#[test]
fn a_text_that_is_no_schema_is_asked_for_again() {
    let empty = || answer(json!({ "schema": "" })).into_response();
    let prose = || answer(json!({ "schema": "be right back", "schemaType": "AVRO" })).into_response();
    let other = || answer(json!({ "schema": "{\"maintenance\":true}" })).into_response();
    let unknown = || answer(json!({ "schema": "\"no such type\"" })).into_response();
    let hangs = || StatusCode::IM_A_TEAPOT.into_response();
    let fake = Fake::new(vec![empty, prose, other, unknown, long]);
    let mut registry = fake.patient(PATIENT);
    assert!(matches!(fake.resolve(&registry, 7), Lookup::Known(_)));
    assert_eq!(fake.asked(), 5);
    assert_eq!(
        registry.seen(),
        vec![verdict(7, Some(print()))],
        "nothing else is bound"
    );
    // What comes next takes its time, so that there is some to look at what is said.
    let fake = Fake::new(vec![prose, hangs]);
    let mut registry = Registry::with_patience(
        &RegistryAccess::open(&fake.url),
        fake.runtime.handle().clone(),
        PATIENCE,
    )
    .unwrap();
    look(&registry, 7, &waker().0);
    while registry.status().away.is_none() {
        std::thread::yield_now();
    }
    let text = registry.status().to_string();
    for said in ["schema 7 is no Avro schema", "be right back", "(subject a-value)"] {
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(
        (look(&registry, 7, &waker().0), registry.seen()),
        (Lookup::Pending, vec![])
    );
}

/// Longer than any test takes.
const PATIENT: Duration = Duration::from_secs(600);

#[test]
fn a_passing_unknown_is_no_verdict() {
    let fake = Fake::new(vec![no_such_schema, no_such_schema, no_such_schema, long]);
    let mut registry = fake.patient(PATIENT);
    let (waker, mut woken) = waker();
    let mut decoder = Avro::<i64>::new(registry.clone(), None, waker).unwrap();
    assert!(matches!(decoder.decode(&RECORD), Decoded::Wait));
    fake.runtime.block_on(woken.recv()).unwrap();
    assert!(matches!(decoder.decode(&RECORD), Decoded::Value(1)));
    assert_eq!(fake.asked(), 4);
    assert_eq!(registry.seen(), vec![verdict(7, Some(print()))]);
}

#[test]
fn what_is_unreadable_for_long_is_unknown() {
    let prose = || answer(json!({ "schema": "gone fishing" })).into_response();
    let fake = Fake::new(vec![prose]);
    let mut registry = fake.registry();
    assert_eq!(fake.resolve(&registry, 7), Lookup::Unknown);
    assert_eq!(registry.seen(), vec![verdict(7, None)]);
    assert_eq!(
        registry.status(),
        RegistryStatus::default(),
        "nobody waits any more"
    );
}

#[test]
fn rubbish_is_not_waited_for_all_the_time() {
    let fake = Fake::new(vec![no_such_schema]);
    let registry = fake.patient(PATIENT);
    // As after an hour of waiting for an id that never came.
    registry.shared.state.lock().vain = Some(clock::instant());
    for id in 0..100 {
        assert_eq!(fake.resolve(&registry, id), Lookup::Unknown);
    }
    assert_eq!(fake.patient(PATIENT).shared.doubt(), PATIENT);
}

/// A long, 1, in schema 7.
const RECORD: [u8; 6] = [0, 0, 0, 0, 7, 2];

/// A decoder, what wakes it, and what it makes of records.
struct Partitions {
    decoder: Avro<i64>,
    woken: UnboundedReceiver<()>,
}

impl Partitions {
    fn of(registry: &Registry) -> Self {
        let (waker, woken) = waker();
        Self {
            decoder: Avro::new(registry.clone(), None, waker).unwrap(),
            woken,
        }
    }

    /// Whether a record becomes a value; the alternative is a dead letter. Waits as the reader does.
    fn decodes(&mut self, fake: &Fake, partition: u32, bound: bool, offset: Offset) -> bool {
        self.decoder.enter(partition, bound);
        loop {
            match self.decoder.decode_at(offset, &RECORD) {
                Decoded::Value(1) => return true,
                Decoded::Dead(Cause::SchemaUnknown, Some(7)) => return false,
                Decoded::Wait => fake.runtime.block_on(self.woken.recv()).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// As if the registry had been asked long ago.
fn age(registry: &Registry) {
    for entry in registry.shared.state.lock().ids.values_mut() {
        if let SchemaEntry::Unknown { asked, .. } = entry {
            *asked -= QUICK.again;
        }
    }
}

#[test]
fn an_unknown_id_becomes_known_in_each_partition_from_a_record_on() {
    let since = |partition, offset| Verdict {
        since: Some((partition, offset)),
        ..verdict(7, Some(print()))
    };
    let fake = Fake::new(vec![no_such_schema, no_such_schema, long]);
    let mut registry = fake.registry();
    let mut live = Partitions::of(&registry);
    assert!(!live.decodes(&fake, 3, false, 10));
    assert!(!live.decodes(&fake, 3, false, 11));
    assert_eq!(fake.asked(), 1, "not for every record");
    age(&registry);
    assert!(!live.decodes(&fake, 3, false, 12));
    assert!(!live.decodes(&fake, 4, false, 70));
    assert_eq!((fake.asked(), registry.seen()), (2, vec![verdict(7, None)]));
    age(&registry);
    // The record that asks is the first that is decoded.
    assert!(live.decodes(&fake, 3, false, 13));
    assert!(live.decodes(&fake, 3, false, 14));
    assert_eq!(registry.seen(), vec![since(3, 13)]);
    // Another worker, another partition; in a third one a record that was bound as a dead letter.
    let mut other = Partitions::of(&registry);
    assert!(other.decodes(&fake, 4, false, 71));
    assert!(!other.decodes(&fake, 5, true, 0));
    assert!(other.decodes(&fake, 5, false, 1));
    assert_eq!(registry.seen(), vec![since(4, 71), since(5, 1)]);
    assert_eq!(fake.asked(), 3);

    // After a restart, in any order of partitions and by other workers.
    let fake = Fake::new(vec![long]);
    let mut registry = fake.registry();
    for verdict in [verdict(7, None), since(3, 13), since(4, 71)] {
        registry.bind(verdict);
    }
    let (mut one, mut two) = (Partitions::of(&registry), Partitions::of(&registry));
    for (second, partition, offset, decoded) in [
        (false, 4, 70, false),
        (true, 5, 0, false),
        (false, 4, 71, true),
        (true, 3, 13, true),
        (true, 3, 12, false),
        (false, 3, 14, true),
        (false, 4, 5, false),
    ] {
        let replay = if second { &mut two } else { &mut one };
        assert_eq!(
            replay.decodes(&fake, partition, true, offset),
            decoded,
            "{partition} {offset}"
        );
    }
    assert_eq!(registry.seen(), vec![], "all of it was bound");
    assert!(one.decodes(&fake, 5, false, 1));
    assert_eq!(registry.seen(), vec![since(5, 1)]);
    assert!(registry.broken().is_none());
}

#[test]
fn an_outage_does_not_end_a_verdict_nor_hold_records_up() {
    let down = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    let fake = Fake::new(vec![no_such_schema, down, long]);
    let mut registry = fake.registry();
    let mut live = Partitions::of(&registry);
    assert!(!live.decodes(&fake, 0, false, 0));
    age(&registry);
    assert!(!live.decodes(&fake, 0, false, 1));
    assert_eq!((fake.asked(), registry.status()), (2, RegistryStatus::default()));
    // Another source has no verdict yet, so it has to find out; what was said long ago is none.
    age(&registry);
    let mut other = registry.of_source();
    assert!(Partitions::of(&other).decodes(&fake, 0, false, 0));
    assert_eq!(other.seen(), vec![verdict(7, Some(print()))]);
    assert_eq!(registry.seen(), vec![verdict(7, None)]);
}

#[test]
fn a_text_that_changes_after_it_became_known_is_broken() {
    let fake = Fake::new(vec![long]);
    let registry = fake.registry();
    registry.bind(verdict(7, None));
    registry.bind(Verdict {
        since: Some((0, 5)),
        ..verdict(7, Some(print() + 1))
    });
    let place = RecordLocation {
        offset: 5,
        ..RecordLocation::default()
    };
    let (waker, mut woken) = waker();
    assert_eq!(registry.lookup(7, place, Some(&waker)), Lookup::Pending);
    fake.runtime.block_on(woken.recv()).unwrap();
    assert_eq!(registry.lookup(7, place, Some(&waker)), Lookup::Pending);
    assert!(registry.broken().is_some());
}

#[test]
fn status_says_why_it_waits() {
    let fake = Fake::new(vec![long]);
    // Bound and dropped again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://user:secret@127.0.0.1:{port}");
    let registry =
        Registry::with_patience(&RegistryAccess::open(&url), fake.runtime.handle().clone(), QUICK).unwrap();
    look(&registry, 7, &waker().0);
    let away = fake.runtime.block_on(async {
        loop {
            match registry.status().away {
                Some(away) if away.tries > 2 => break away,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert!(away.since <= clock::now());
    let text = registry.status().to_string();
    assert!(
        text.starts_with("away for") && text.contains("1 schema to come"),
        "{text}"
    );
    assert!(!format!("{text}{away:?}{registry:?}").contains("secret"));
}

/// A registry that accepts connections and never answers, and a client whose people are told after
/// `in_flight`.
fn hanging(silence: Duration) -> (Fake, Registry) {
    let fake = Fake::new(vec![|| StatusCode::IM_A_TEAPOT.into_response()]);
    let patience = RegistryTimeouts {
        request: Duration::from_secs(600),
        silence,
        ..QUICK
    };
    let handle = fake.runtime.handle().clone();
    let registry = Registry::with_patience(&RegistryAccess::open(&fake.url), handle, patience).unwrap();
    (fake, registry)
}

/// Asks for a schema as a thread does that may wait.
fn wait(registry: &Registry) -> Result<()> {
    let shared = registry.shared.clone();
    let request = async move { shared.ask(7).await.map(drop).map_err(Error::external) };
    registry.wait(Duration::from_secs(600), request)
}

#[test]
fn a_registry_that_never_answers_is_in_trouble_before_the_request_is_over() {
    let (_fake, registry) = hanging(Duration::from_millis(20));
    assert_eq!(registry.status(), RegistryStatus::default());
    let asked = clock::now();
    look(&registry, 7, &waker().0);
    let away = loop {
        match registry.status().away {
            Some(away) => break away,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(away.tries, 0);
    let text = registry.status().to_string();
    assert!(
        text.starts_with("it has not answered for ") && text.ends_with(" s, 1 schema to come"),
        "{text}"
    );
    // Counted from when it was asked.
    assert!((asked.minus(Duration::from_millis(20))..=clock::now()).contains(&away.since));
}

#[test]
fn a_failure_counts_from_when_it_was_asked_for() {
    let fake = Fake::new(vec![|| StatusCode::IM_A_TEAPOT.into_response()]);
    let registry = fake.registry();
    look(&registry, 7, &waker().0);
    let away = loop {
        match registry.status().away {
            Some(away) => break away,
            None => std::thread::yield_now(),
        }
    };
    assert!(away.since <= clock::now().minus(QUICK.request), "{away:?}");
}

#[test]
fn nobody_waits_long_for_a_registry_that_never_answers() {
    let (_fake, registry) = hanging(Duration::from_millis(20));
    for _ in 0..2 {
        let error = wait(&registry).unwrap_err();
        assert_eq!(error.what(), "the schema registry does not answer");
    }
}

#[test]
fn a_stop_waits_for_no_registry() {
    let (fake, registry) = hanging(Duration::from_secs(600));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&registry));
        while fake.asked.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        registry.clone().hang_up();
        assert!(waiting.join().unwrap().is_err());
    });
    assert!(wait(&registry).is_err(), "nor does who comes later");
}

#[test]
fn a_replay_goes_by_the_ledger() {
    let fake = Fake::new(vec![long]);
    let mut registry = fake.registry();
    registry.bind(verdict(1, None));
    registry.bind(verdict(2, Some(print())));
    registry.bind(verdict(3, Some(print() + 1)));
    assert_eq!(registry.lookup(1, BOUND, None), Lookup::Unknown);
    assert!(matches!(fake.resolve(&registry, 2), Lookup::Known(_)));
    assert!(registry.broken().is_none());
    assert_eq!(fake.resolve(&registry, 3), Lookup::Pending);
    let error = registry.broken().unwrap();
    assert_eq!(error.kind(), crate::error::Kind::Integrity);
    assert_eq!(registry.seen(), vec![]);
    assert_eq!(fake.asked(), 2);
}

#[test]
fn a_bound_schema_may_not_vanish() {
    let fake = Fake::new(vec![no_such_schema]);
    let registry = fake.registry();
    registry.bind(verdict(1, Some(print())));
    assert_eq!(fake.resolve(&registry, 1), Lookup::Pending);
    assert!(
        registry
            .broken()
            .unwrap()
            .to_string()
            .contains("does not know the id any more")
    );
}

#[test]
fn what_is_known_already_is_held_against_the_ledger() {
    let fake = Fake::new(vec![long]);
    let registry = fake.registry();
    fake.resolve(&registry, 1);
    registry.bind(verdict(1, Some(print())));
    assert!(registry.broken().is_none());
    registry.bind(verdict(1, Some(0)));
    assert!(registry.broken().is_some());
}

#[test]
fn a_text_from_elsewhere_needs_no_registry() {
    let fake = Fake::new(vec![long]);
    let mut registry = fake.registry();
    registry.bind(verdict(1, Some(print())));
    registry.provide(WriterSchema::new(1, "\"long\""));
    assert!(matches!(look(&registry, 1, &waker().0), Lookup::Known(_)));
    assert_eq!(registry.seen(), vec![]);
    registry.bind(verdict(2, Some(print())));
    registry.provide(WriterSchema::new(2, "\"int\""));
    assert!(registry.broken().is_some());
    assert_eq!(fake.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn binding_wakes_those_who_wait() {
    let hangs = || StatusCode::IM_A_TEAPOT.into_response();
    let fake = Fake::new(vec![hangs]);
    let registry = fake.registry();
    let (waker, mut woken) = waker();
    assert_eq!(look(&registry, 1, &waker), Lookup::Pending);
    registry.bind(verdict(1, None));
    fake.runtime.block_on(woken.recv()).unwrap();
    assert_eq!(registry.lookup(1, BOUND, None), Lookup::Unknown);
}

#[test]
fn registers_and_gets_the_latest() {
    let fake = Fake::new(vec![long]);
    let registry = fake.registry();
    fake.runtime.block_on(async {
        assert_eq!(registry.register("a/b value", "\"long\"").await.unwrap(), 9);
        let error = registry.register("a/b value", "\"int\"").await.unwrap_err();
        assert!(error.to_string().contains("incompatible"), "{error}");
        assert_eq!(
            *registry.latest("a/b value").await.unwrap(),
            WriterSchema::new(9, "\"long\"")
        );
    });
}

#[test]
fn schemas_come_with_their_language_and_all_that_they_refer_to() {
    let protobuf = || answer(json!({ "schema": "message A {}", "schemaType": "PROTOBUF" })).into_response();
    let other = || answer(json!({ "schema": "anything", "schemaType": "XSD" })).into_response();
    let referring = || {
        let references = json!([
            { "name": "x.B", "subject": "x.B", "version": 1 },
            { "name": "x.A", "subject": "x.A", "version": 1 },
        ]);
        answer(json!({ "schema": r#"{"type":"array","items":"x.B"}"#, "references": references }))
            .into_response()
    };
    let in_a_circle = || referring_to("x.circle");
    let to_nothing = || referring_to("x.gone");
    let fake = Fake::new(vec![protobuf, other, referring, in_a_circle, to_nothing]);
    let registry = fake.registry();
    let schema = |id: u32| match fake.resolve(&registry, id) {
        Lookup::Known(schema) => schema,
        other => panic!("{other:?}"),
    };
    assert_eq!(schema(1).language, Language::Protobuf);
    assert_eq!(schema(2).language, Language::Other);
    let referring = schema(3);
    let names: Vec<&str> = referring.references.iter().map(|other| &*other.name).collect();
    assert_eq!(
        names,
        ["x.A", "x.B"],
        "what another one refers to comes first, and once"
    );
    assert_ne!(
        referring.fingerprint,
        fingerprint(&referring.text, &referring.references[..1])
    );
    let mut decoder = Avro::<Value>::new(registry.clone(), None, waker().0).unwrap();
    // An array of one item, whose `a` has an `a` of 7.
    let payload = [0, 0, 0, 0, 3, 2, 14, 0];
    let expected = json!([{ "a": { "a": 7 } }]);
    assert!(matches!(decoder.decode(&payload), Decoded::Value(read) if read == expected));
    // They are no schemas that can be read.
    assert_eq!(fake.resolve(&registry, 4), Lookup::Unknown);
    assert_eq!(fake.resolve(&registry, 5), Lookup::Unknown);
}

fn referring_to(name: &str) -> Reply {
    let references = json!([{ "name": name, "subject": name, "version": 1 }]);
    answer(json!({ "schema": r#""x.A""#, "references": references })).into_response()
}

#[test]
fn addresses_are_checked() {
    let runtime = Runtime::new().unwrap();
    for url in ["", "registry:8081", "ftp://registry", "/a"] {
        let error = Registry::new(url, runtime.handle().clone()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Definition, "{url}");
    }
    assert!(Registry::new("http://registry:8081", runtime.handle().clone()).is_ok());
}
