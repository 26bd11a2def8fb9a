//! Every kind of refusal that a client can bring about, each in the same form.

use serde_json::json;

use super::*;

async fn filled() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(1, merchant("Acme", 7)), (2, merchant("Bolt", 9))]);
    fixture.spend(1, [(1, 0, 100)]);
    fixture.close(1);
    fixture
}

#[tokio::test]
async fn before_the_first_epoch_nothing_is_answered_yet() {
    let fixture = Fixture::new();
    for path in [
        "/v1/views",
        "/v1/views/merchants",
        "/v1/views/merchants/row?merchant=1",
        "/v1/views/merchants/rows",
        "/v1/views/merchants/rows?as_of=2026-11-23T03:00:00Z",
        "/v1/epochs/7",
    ] {
        fixture.refused(path, 503, "not-yet").await;
    }
    let query =
        fixture.post(json!({"reads": {"a": {"view": "merchants", "key": {"merchant": 1}}}}).to_string());
    problem(query, 503, "not-yet").await;
}

#[tokio::test]
async fn unknown_names_come_with_the_nearest_one() {
    let fixture = filled().await;
    let body = fixture
        .refused("/v1/views/merchant/row?merchant=1", 404, "view-unknown")
        .await;
    assert_eq!(body["nearest"], "merchants");
    let body = fixture
        .refused("/v1/views/merchants/row?mechant=1", 400, "field-unknown")
        .await;
    assert_eq!(
        (&body["field"], &body["nearest"]),
        (&json!("mechant"), &json!("merchant"))
    );
    let body = fixture
        .refused("/v1/views/merchants/rows?totl.ge=1", 400, "field-unknown")
        .await;
    assert_eq!(body["nearest"], "total");
    fixture
        .refused("/v1/views/merchants/rows?order=-totl", 400, "field-unknown")
        .await;
    let body = fixture
        .refused(
            "/v1/views/merchants/rows?after=paymets:3:0",
            400,
            "source-unknown",
        )
        .await;
    assert_eq!(body["nearest"], "payments");
    let body = fixture.refused("/v1/view", 404, "route-unknown").await;
    assert!(body["hint"].as_str().unwrap().contains("/v1/views"), "{body}");
}

#[tokio::test]
async fn keys_that_do_not_fit_say_what_was_expected() {
    let fixture = filled().await;
    let body = fixture
        .refused("/v1/views/merchants/row?merchant=Acme", 400, "key-type")
        .await;
    assert_eq!(
        (&body["field"], &body["expected"]),
        (&json!("merchant"), &json!("u32"))
    );
    assert!(body["got"].as_str().unwrap().contains("Acme"), "{body}");
    fixture
        .refused("/v1/views/merchants/row?merchant=-1", 400, "key-type")
        .await;
    fixture
        .refused("/v1/views/merchants/rows?total.gt=much", 400, "key-type")
        .await;
    fixture
        .refused("/v1/views/merchants/row", 400, "key-missing")
        .await;
    fixture
        .refused("/v1/views/merchants/row?merchant=1&merchant=2", 400, "key-twice")
        .await;
    fixture
        .refused("/v1/views/merchants/row?merchant.ge=1", 400, "filter")
        .await;
    fixture
        .refused("/v1/views/merchants/rows?merchant.prefix=1", 400, "filter")
        .await;
}

#[tokio::test]
async fn parameters_that_cannot_be_used_are_named() {
    let fixture = filled().await;
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=1", "limit"),
        ("as_of=yesterday", "as_of"),
        ("wait=soon", "wait"),
        ("wait=31s", "wait"),
        ("after=payments", "after"),
        ("after=payments:3:0&as_of=2026-11-23T03:00:01Z", "after"),
        ("numbers=roman", "numbers"),
        ("positions=maybe", "positions"),
        ("order=,", "order"),
        ("window=ajar", "window"),
    ] {
        let body = fixture
            .refused(&format!("/v1/views/merchants/rows?{query}"), 400, "parameter")
            .await;
        assert_eq!(body["parameter"], parameter, "{query}");
    }
    for word in ["limit=5", "order=name", "cursor=x"] {
        let path = format!("/v1/views/merchants/row?merchant=1&{word}");
        fixture.refused(&path, 400, "parameter").await;
    }
    fixture
        .refused("/v1/views/merchants/rows?name=%zz", 400, "parameter")
        .await;
    fixture
        .refused("/v1/views/merchants/rows?window=open", 400, "window")
        .await;
}

#[tokio::test]
async fn a_missing_window_says_how_to_name_one() {
    let fixture = filled().await;
    let hint = |body: Value| body["hint"].as_str().map(str::to_owned);
    let path = "/v1/views/merchant_spend/row?merchant=1";
    let told = hint(fixture.refused(path, 400, "key-missing").await).unwrap();
    assert!(told.contains("window=open"), "{told}");
    let query = json!({"reads": {"a": {"view": "merchant_spend", "key": {"merchant": 1}}}});
    let body = problem(fixture.post(query.to_string()), 400, "key-missing").await;
    assert!(hint(body).unwrap().contains("window=open"));
    // Where what is missing is no window, or the view has none, there is nothing to say of windows.
    for path in [
        "/v1/views/merchant_spend/row?window=open",
        "/v1/views/merchants/row",
    ] {
        assert_eq!(
            hint(fixture.refused(path, 400, "key-missing").await),
            None,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_not_waited_for() {
    let fixture = filled().await;
    let path = "/v1/views/merchants/row?merchant=1&wait=30s&after=payments:7:0";
    let body = fixture.refused(path, 400, "partition-unknown").await;
    assert_eq!(body["partitions"], json!([3, 4, 9]));
    assert!(body["hint"].as_str().unwrap().contains("3, 4, 9"), "{body}");
    let reads = json!({"a": {"view": "merchants", "key": {"merchant": 1}}});
    let query = json!({"after": {"payments": {"7": 0}}, "wait": "30s", "reads": reads});
    problem(fixture.post(query.to_string()), 400, "partition-unknown").await;
    // Which partitions `merchants` has is not known: there may be one.
    let path = "/v1/views/merchants/row?merchant=1&after=merchants:7:0";
    fixture.refused(path, 503, "not-yet").await;
}

#[tokio::test]
async fn an_absent_row_names_the_epoch() {
    let fixture = filled().await;
    let body = fixture
        .refused("/v1/views/merchants/row?merchant=3", 404, "row-absent")
        .await;
    assert_eq!(body["epoch"], epoch(1).0);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_not() {
    let fixture = filled().await;
    let deleted = fixture
        .client
        .delete(fixture.url("/v1/views"))
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.headers()["allow"], "GET, HEAD");
    let body = problem(fixture.client.delete(fixture.url("/v1/views")), 405, "method").await;
    assert_eq!(body["hint"], "send GET or HEAD");
    let body = problem(fixture.get("/v1/query"), 405, "method").await;
    assert!(body["detail"].as_str().unwrap().contains("POST"), "{body}");
    assert_eq!(body["hint"], "send POST");
}

#[tokio::test]
async fn cursors_belong_to_their_query() {
    let fixture = filled().await;
    fixture
        .refused("/v1/views/merchants/rows?cursor=nonsense", 400, "cursor")
        .await;
    let first = fixture.read("/v1/views/merchants/rows?limit=1").await;
    let next = first["next"].as_str().unwrap();
    fixture
        .read(&format!("/v1/views/merchants/rows?limit=1&cursor={next}"))
        .await;
    let other = format!("/v1/views/merchants/rows?limit=1&order=-total&cursor={next}");
    fixture.refused(&other, 400, "cursor").await;
}

#[tokio::test]
async fn a_version_that_is_gone_names_the_oldest() {
    let mut fixture = filled().await;
    // The history is ten minutes: the first epochs go when later ones close.
    for n in [2, 700, 1_400] {
        fixture.merchants(n, [(1, merchant("Acme", i128::from(n)))]);
        fixture.close(n);
    }
    let path = format!("/v1/views/merchants/row?merchant=1&as_of={}", epoch(1));
    let body = fixture.refused(&path, 410, "as-of-gone").await;
    assert!(body["oldest"].as_u64().unwrap() > epoch(1).0, "{body}");
    let described = fixture.read("/v1/views/merchants").await;
    assert_eq!(described["as_of"]["oldest"], body["oldest"]);
    assert!(body["detail"].as_str().unwrap().contains("10m"), "{body}");
    fixture
        .refused(
            "/v1/views/merchants/rows?as_of=2020-01-01T00:00:00Z",
            410,
            "as-of-gone",
        )
        .await;
    fixture
        .refused(&format!("/v1/epochs/{}", epoch(1)), 410, "as-of-gone")
        .await;
}

#[tokio::test]
async fn a_read_of_too_many_rows_is_refused() {
    let settings = HttpSettings {
        scanned_rows_max: 1_500,
        ..HttpSettings::default()
    };
    let mut fixture = Fixture::with(settings, None);
    fixture.merchants(1, (0..3_000).map(|key| (key, merchant("Acme", 7))));
    fixture.close(1);
    let body = fixture
        .refused("/v1/views/merchants/rows?order=-total", 400, "too-much")
        .await;
    assert_eq!(
        (&body["scanned_max"], &body["rows"]),
        (&json!(1_500), &json!(3_000))
    );
    assert!(
        body["hint"].as_str().unwrap().contains("http.scanned_rows_max"),
        "{body}"
    );
    // Found on a thread of its own: more than fits into the first attempt, less than the bound.
    fixture.merchants(2, (0..3_000).map(|key| (key, merchant(&format!("{key:04}"), 7))));
    fixture.close(2);
    let body = fixture.read("/v1/views/merchants/rows?name=1200&limit=1").await;
    assert_eq!(fields(&body["rows"], "merchant"), ["1200"]);
}

#[tokio::test]
async fn a_read_of_too_many_rows_does_not_wait_for_its_refusal() {
    let settings = HttpSettings {
        scanned_rows_max: 1_500,
        // Whatever goes to a thread of its own is given up at once.
        scan_time_max: Duration::ZERO,
        ..HttpSettings::default()
    };
    let mut fixture = Fixture::with(settings, None);
    fixture.merchants(1, (0..1_400).map(|key| (key, merchant("Acme", 7))));
    fixture.close(1);
    let path = "/v1/views/merchants/rows?order=-total";
    fixture.refused(path, 503, "timeout").await;
    fixture.merchants(2, (0..1_600).map(|key| (key, merchant("Acme", 8))));
    fixture.close(2);
    let body = fixture.refused(path, 400, "too-much").await;
    assert_eq!(
        (&body["scanned_max"], &body["rows"]),
        (&json!(1_500), &json!(1_600))
    );
    let reads = json!({"reads": {"a": {"view": "merchants", "order": "-total"}}});
    let body = problem(fixture.post(reads.to_string()), 400, "too-much").await;
    assert_eq!(body["read"], "a");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let fixture = filled().await;
    for body in [
        "",
        "{",
        "[]",
        "{\"reads\":{\"a\":{}}}",
        "{\"reads\":{},\"more\":1}",
    ] {
        problem(fixture.post(body), 400, "body").await;
    }
    problem(fixture.post("{\"reads\":{}}"), 400, "parameter").await;
    let read = json!({"view": "merchants", "key": {"merchant": 1}});
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("r{n}"), read.clone())).collect();
    problem(
        fixture.post(json!({ "reads": many }).to_string()),
        400,
        "parameter",
    )
    .await;
    for bad in [
        json!({"view": "merchants", "key": {"merchant": 1}, "limit": 3}),
        json!({"view": "merchants", "limit": 0}),
        json!({"view": "merchants", "window": "ajar"}),
    ] {
        let body = problem(
            fixture.post(json!({"reads": {"a": bad}}).to_string()),
            400,
            "parameter",
        )
        .await;
        assert_eq!(body["read"], "a");
    }
    let large = json!({"reads": {"a": {"view": "merchants", "limit": 6_000}, "b": {"view": "merchants", "limit": 6_000}}});
    let body = problem(fixture.post(large.to_string()), 400, "parameter").await;
    assert_eq!(body["got"], "12000 in all", "{body}");
    let negative = json!({"after": {"payments": {"3": -1}}, "reads": {"a": read}});
    problem(fixture.post(negative.to_string()), 400, "parameter").await;
}

#[tokio::test]
async fn a_fault_is_not_told_in_words() {
    let bindings: BindingLookup = Arc::new(|_epoch| Err(crate::Error::internal("secret path /var/ledger")));
    let mut fixture = Fixture::with(HttpSettings::default(), Some(bindings));
    fixture.close(1);
    let body = fixture.refused("/v1/epochs/7", 500, "internal").await;
    assert!(!body.to_string().contains("secret"), "{body}");
    let bindings: BindingLookup = Arc::new(|_epoch| panic!("secret"));
    let mut fixture = Fixture::with(HttpSettings::default(), Some(bindings));
    fixture.close(1);
    let body = fixture.refused("/v1/epochs/7", 500, "internal").await;
    assert!(!body.to_string().contains("secret"), "{body}");
}
