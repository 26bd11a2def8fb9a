//! After a restart: what is answered before the process is where it was.

use serde_json::json;

use super::*;

const ROW: &str = "/v1/views/merchants/row?merchant=1";
const ROWS: &str = "/v1/views/merchants/rows";

fn settings(stale_reads: bool) -> HttpSettings {
    HttpSettings {
        stale_reads,
        ..HttpSettings::default()
    }
}

/// A process that was started again: epoch 9 was answered before, and epoch 2 is closed again.
async fn restarted(stale_reads: bool) -> Fixture {
    let mut fixture = Fixture::with(settings(stale_reads), None);
    recovers(&fixture, None);
    for n in [1, 2] {
        fixture.merchants(
            n,
            [(1, merchant("Acme", i128::from(n))), (2, merchant("Bolt", 9))],
        );
        fixture.close(n);
        recovers(&fixture, Some(n));
    }
    fixture
}

fn recovers(fixture: &Fixture, closed: Option<u64>) {
    *fixture.recovering.lock() = closed.is_none_or(|closed| closed < 9).then(|| RecoveryProgress {
        closed: closed.map(epoch),
        last_bound: epoch(9),
        left: [
            ("merchants".to_owned(), Some(0)),
            ("payments".to_owned(), Some(1_700)),
        ]
        .into(),
    });
}

fn query(more: Value) -> String {
    let mut query = json!({"reads": {"a": {"view": "merchants", "key": {"merchant": 1}}}});
    let members = query.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    query.to_string()
}

#[tokio::test]
async fn the_newest_epoch_is_not_answered_before_it_is_where_it_was() {
    let mut fixture = restarted(false).await;
    let after = format!("{ROW}&after=payments:3:0");
    let late = format!("{ROW}&as_of={}", at(8));
    let future = format!("{ROW}&as_of={}", at(80));
    let unreached = format!("{ROW}&as_of={}", epoch(7));
    for path in [
        ROW,
        ROWS,
        "/v1/views",
        "/v1/views/merchants",
        &after,
        &late,
        &future,
        &unreached,
    ] {
        let body = fixture.refused(path, 503, "not-yet").await;
        assert_eq!(body["epoch"], epoch(2).0, "{path}: {body}");
        assert_eq!(body["last_bound"], epoch(9).0, "{path}: {body}");
        assert_eq!(
            body["records_left"],
            json!({"merchants": 0, "payments": 1_700}),
            "{path}"
        );
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("1700 records left"), "{path}: {detail}");
    }
    problem(fixture.post(query(json!({}))), 503, "not-yet").await;
    problem(
        fixture.post(query(json!({"as_of": at(8).to_string()}))),
        503,
        "not-yet",
    )
    .await;
    // A client that has the row is told nothing older either.
    let known = fixture.get(ROW).header("if-none-match", "*");
    problem(known, 503, "not-yet").await;

    for n in 3..=9 {
        fixture.merchants(n, [(1, merchant("Acme", i128::from(n)))]);
        fixture.close(n);
        recovers(&fixture, Some(n));
    }
    assert_eq!(fixture.read(ROW).await["epoch"], epoch(9).0);
    assert_eq!(fixture.read(&late).await["epoch"], epoch(8).0);
    assert_eq!(fixture.read(&future).await["epoch"], epoch(9).0);
    assert_eq!(fixture.read(&after).await["epoch"], epoch(9).0);
    let (_, body) = ask(fixture.post(query(json!({})))).await;
    assert_eq!(body["epoch"], epoch(9).0);
}

#[tokio::test]
async fn what_names_its_epoch_is_answered_once_that_is_closed_again() {
    let fixture = restarted(false).await;
    for (path, expected) in [
        (format!("{ROW}&as_of={}", epoch(1)), epoch(1)),
        (format!("{ROW}&as_of={}", epoch(2)), epoch(2)),
        // Between the two there is no other.
        (format!("{ROW}&as_of={}", epoch(2).0 - 1), epoch(1)),
        (format!("{ROW}&as_of={}", EventTime(at(2).micros() - 1)), epoch(1)),
        (format!("{ROW}&as_of={}", at(2)), epoch(2)),
        (format!("/v1/epochs/{}", epoch(2)), epoch(2)),
    ] {
        assert_eq!(fixture.read(&path).await["epoch"], expected.0, "{path}");
    }
    let (_, body) = ask(fixture.post(query(json!({"as_of": epoch(1).0})))).await;
    assert_eq!(body["epoch"], epoch(1).0);
    let body = fixture
        .refused(&format!("/v1/epochs/{}", epoch(5)), 503, "not-yet")
        .await;
    assert_eq!(body["last_bound"], epoch(9).0);
    // Whether there is one that is newer than all of before shows once those are back.
    let ahead = format!("/v1/epochs/{}", epoch(10));
    fixture.refused(&ahead, 503, "not-yet").await;
    recovers(&fixture, Some(9));
    fixture.refused(&ahead, 404, "epoch-unknown").await;
}

#[tokio::test]
async fn a_cursor_goes_on_once_its_epoch_is_closed_again() {
    for stale_reads in [false, true] {
        let before = {
            let mut fixture = Fixture::new();
            for n in 1..=5 {
                fixture.merchants(
                    n,
                    [(1, merchant("Acme", 7)), (2, merchant("Bolt", i128::from(n)))],
                );
                fixture.close(n);
            }
            fixture.read(&format!("{ROWS}?limit=1")).await
        };
        let next = format!("{ROWS}?limit=1&cursor={}", before["next"].as_str().unwrap());
        let mut fixture = restarted(stale_reads).await;
        fixture.refused(&next, 503, "not-yet").await;
        let waits = tokio::spawn(fixture.get(&format!("{next}&wait=30s")).send());
        for n in 3..=6 {
            fixture.merchants(n, [(2, merchant("Bolt", i128::from(n)))]);
            fixture.close(n);
            recovers(&fixture, Some(n));
        }
        for body in [
            fixture.read(&next).await,
            waits.await.unwrap().unwrap().json().await.unwrap(),
        ] {
            assert_eq!(body["epoch"], before["epoch"]);
            assert_eq!(
                fields(&body["rows"], "total"),
                ["5"],
                "as of its own epoch, not of a later one"
            );
        }
        recovers(&fixture, Some(9));
        fixture.close(10);
        // One of an epoch that this process never had is refused.
        let other = Fixture::new();
        let mut other = Fixture {
            offsets: [0, 0],
            ..other
        };
        other.merchants(11, [(1, merchant("Acme", 7)), (2, merchant("Bolt", 7))]);
        other.close(11);
        let foreign = other.read(&format!("{ROWS}?limit=1")).await;
        let foreign = format!("{ROWS}?limit=1&cursor={}", foreign["next"].as_str().unwrap());
        fixture.refused(&foreign, 400, "cursor").await;
    }
}

#[tokio::test]
async fn who_waits_is_answered_at_the_end_of_the_recovery() {
    let mut fixture = restarted(false).await;
    let waits = tokio::spawn(fixture.get(&format!("{ROW}&wait=30s")).send());
    let body = query(json!({"wait": "30s"}));
    let waits_too = tokio::spawn(fixture.post(body).send());
    while fixture.state.metrics.http_in_flight.get() < 2 {
        assert!(
            !waits.is_finished() && !waits_too.is_finished(),
            "answered too early"
        );
        tokio::task::yield_now().await;
    }
    for n in 3..=9 {
        fixture.merchants(n, [(1, merchant("Acme", i128::from(n)))]);
        fixture.close(n);
        recovers(&fixture, Some(n));
    }
    for answer in [waits, waits_too] {
        let body: Value = answer.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(body["epoch"], epoch(9).0, "{body}");
    }
}

#[tokio::test]
async fn stale_reads_are_answered_where_they_are_wanted() {
    let fixture = restarted(true).await;
    let future = format!("{ROW}&as_of={}", at(80));
    for path in [ROW, ROWS, "/v1/views", "/v1/views/merchants", &future] {
        assert_eq!(fixture.read(path).await["epoch"], epoch(2).0, "{path}");
    }
    let (status, body) = ask(fixture.post(query(json!({})))).await;
    assert_eq!((status.as_u16(), &body["epoch"]), (200, &json!(epoch(2).0)));
    // An epoch that is named is never another one.
    fixture
        .refused(&format!("{ROW}&as_of={}", epoch(7)), 503, "not-yet")
        .await;
}

#[tokio::test]
async fn a_view_that_is_planned_is_not_there_yet_and_never_unknown() {
    let fixture = Fixture::new();
    for path in ["", "/row?a=1", "/rows"] {
        let body = fixture
            .refused(&format!("/v1/views/planned{path}"), 503, "not-yet")
            .await;
        assert!(body["detail"].as_str().unwrap().contains("`planned`"), "{body}");
        let body = fixture
            .refused(&format!("/v1/views/planed{path}"), 404, "view-unknown")
            .await;
        assert_eq!(body["nearest"], "planned");
    }
    let read = json!({"reads": {"a": {"view": "planned", "key": {"merchant": 1}}}});
    let body = problem(fixture.post(read.to_string()), 503, "not-yet").await;
    assert_eq!(body["read"], "a");
    let read = json!({"reads": {"a": {"view": "planed", "key": {"merchant": 1}}}});
    problem(fixture.post(read.to_string()), 404, "view-unknown").await;
    fixture.read("/v1/sources").await;
}
