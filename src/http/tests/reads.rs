//! What is answered: rows, pages, moments, tags, several reads at once.

use serde_json::json;

use super::*;
use crate::time::WindowLayout;
use crate::watermark::WatermarkFold;

#[tokio::test]
async fn a_row_is_flat_and_names_its_moment() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(42, merchant("Acme", i128::from(u64::MAX) * 10))]);
    fixture.close(1);
    let path = "/v1/views/merchants/row?merchant=42";
    let text = fixture.get(path).send().await.unwrap().text().await.unwrap();
    let expected = format!(
        "{{\"epoch\":{},\"time\":\"2026-11-23T03:00:01Z\",\"watermark\":null,\
         \"row\":{{\"merchant\":42,\"name\":\"Acme\",\"limit\":4,\"total\":184467440737095516150}},\
         \"positions\":{{\"payments\":{{\"3\":1,\"4\":1}}}}}}",
        epoch(1)
    );
    assert_eq!(
        text, expected,
        "no number is rounded, and the order of members is fixed"
    );
    let body = fixture
        .read(&format!("{path}&numbers=string&positions=false"))
        .await;
    assert_eq!(body["row"]["total"], "184467440737095516150");
    assert_eq!(body["row"]["limit"], 4, "32 bits fit into any client's numbers");
    assert!(body.get("positions").is_none());
}

#[tokio::test]
async fn closed_is_said_by_the_watermark_that_closes_the_windows() {
    let mut fixture = Fixture::new();
    let (payments, refunds) = (SourceId::of("payments"), SourceId::of("refunds"));
    let both = vec![payments.min(refunds), payments.max(refunds)];
    let define = |name: &str, window_sources: Vec<SourceId>| {
        let spec = ViewSpec {
            key: vec!["merchant".into()],
            sources: both.clone(),
            windows: Some(WindowLayout::PerKey),
            window_sources,
            ..ViewSpec::new(name)
        };
        super::define::<Windowed<u32>, u64>(&fixture.state.views, spec)
    };
    // One of windows over both sources, one of windows over refunds that payments were joined to.
    let mut views = [
        define("of_both", both.clone()),
        define("of_refunds", vec![refunds]),
    ];
    for view in &mut views {
        view.apply(epoch(1), &mut vec![upsert(window(42, 0), 7u64)])
            .unwrap();
    }
    let mut marks = WatermarkFold::default();
    marks.track(&both);
    let steps = [
        (
            vec![(payments, at(90))],
            vec![],
            [false, false],
            "nothing is known of refunds",
        ),
        (
            vec![(refunds, at(30))],
            vec![],
            [false, false],
            "refunds hold the minimum",
        ),
        (
            vec![],
            vec![(refunds, true)],
            [true, false],
            "they left, but their own windows are open",
        ),
        (
            vec![],
            vec![(refunds, false)],
            [true, false],
            "what was closed stays so",
        ),
        (
            vec![(refunds, at(60))],
            vec![],
            [true, true],
            "now they are over, too",
        ),
    ];
    for (n, (watermarks, idle, closed, why)) in (1..).zip(steps) {
        let mut snapshot = fixture.snapshot(n);
        let binding = EpochBinding {
            watermarks,
            idle,
            ..(*snapshot.binding).clone()
        };
        snapshot.watermarks = marks.apply(&binding);
        snapshot.binding = Arc::new(binding);
        fixture.state.views.close(snapshot);
        for (view, closed) in ["of_both", "of_refunds"].into_iter().zip(closed) {
            let rows = fixture.read(&format!("/v1/views/{view}/rows")).await;
            assert_eq!(rows["closed"][0], closed, "{view}: {why}: {rows}");
            let past = |text: &str| text >= "2026-11-23T03:01:00Z";
            assert_eq!(
                rows["watermark"].as_str().is_some_and(past),
                closed,
                "{view}: {why}: {rows}"
            );
        }
    }
    let binding = fixture.read(&format!("/v1/epochs/{}", epoch(3))).await;
    assert_eq!(
        binding["sources"][format!("#{}", refunds.0)]["idle"],
        true,
        "{binding}"
    );
}

#[tokio::test]
async fn windows_are_picked_without_arithmetic() {
    let mut fixture = Fixture::new();
    fixture.spend(90, [(42, 0, 100), (42, 1, 200), (7, 0, 5)]);
    // 90 s after the start of minute 0: that one is closed, minute 1 is open.
    fixture.close(90);
    let path = "/v1/views/merchant_spend/row?merchant=42";
    let body = fixture.read(&format!("{path}&window=last_closed")).await;
    assert_eq!(body["row"]["cents"], 100);
    assert_eq!(body["row"]["window_start"], "2026-11-23T03:00:00Z");
    assert_eq!(body["row"]["window_end"], "2026-11-23T03:01:00Z");
    assert_eq!(
        (&body["closed"], &body["watermark"]),
        (&json!(true), &json!("2026-11-23T03:01:30Z"))
    );
    let body = fixture.read(&format!("{path}&window=open")).await;
    assert_eq!(
        (&body["row"]["cents"], &body["closed"]),
        (&json!(200), &json!(false))
    );
    let body = fixture.read(&format!("{path}&window=2026-11-23T03:00:00Z")).await;
    assert_eq!(body["row"]["cents"], 100);
    let exact = "window_start=2026-11-23T03:01:00Z&window_end=2026-11-23T03:02:00Z";
    assert_eq!(
        fixture.read(&format!("{path}&{exact}")).await["row"]["cents"],
        200
    );

    let body = fixture
        .read("/v1/views/merchant_spend/rows?order=merchant,-window_start")
        .await;
    assert_eq!(fields(&body["rows"], "cents"), ["5", "200", "100"]);
    assert_eq!(body["closed"], json!([true, false, true]));
    let body = fixture
        .read("/v1/views/merchant_spend/rows?window=last_closed")
        .await;
    assert_eq!(fields(&body["rows"], "cents"), ["5", "100"]);
}

#[tokio::test]
async fn rows_are_filtered_and_ordered() {
    let mut fixture = Fixture::new();
    let rows = [
        (1, "Acme", 30),
        (2, "Bolt", 10),
        (3, "Acorn", 20),
        (4, "Limes", 40),
    ];
    fixture.merchants(1, rows.map(|(key, name, total)| (key, merchant(name, total))));
    fixture.close(1);
    for (query, keys) in [
        ("", vec!["1", "2", "3", "4"]),
        ("order=-total", vec!["4", "1", "3", "2"]),
        ("total.ge=20&total.lt=40", vec!["1", "3"]),
        ("total.gt=20&total.le=40", vec!["1", "4"]),
        ("name.prefix=Ac&order=name", vec!["1", "3"]),
        ("name.ne=Acme", vec!["2", "3", "4"]),
        ("name=Bolt", vec!["2"]),
        ("merchant=3", vec!["3"]),
        ("key.limit=5", vec!["3", "4"]),
        ("key.limit.le=4&limit=1", vec!["1"]),
        ("name=Nobody", vec![]),
    ] {
        let body = fixture.read(&format!("/v1/views/merchants/rows?{query}")).await;
        assert_eq!(fields(&body["rows"], "merchant"), keys, "{query}");
    }
}

#[tokio::test]
async fn pages_stay_at_their_epoch_while_the_view_moves_on() {
    let mut fixture = Fixture::new();
    fixture.merchants(
        1,
        (0..250).map(|key| (key, merchant("Acme", i128::from(key * 7 % 50)))),
    );
    fixture.close(1);
    for order in ["", "&order=-total,name"] {
        let whole = fixture
            .read(&format!(
                "/v1/views/merchants/rows?limit=10000&as_of={}{order}",
                epoch(1)
            ))
            .await;
        let mut keys = Vec::new();
        let mut path = format!("/v1/views/merchants/rows?limit=7&as_of={}{order}", epoch(1));
        let mut n = fixture
            .state
            .views
            .closed()
            .map_or(1, |at| (at.epoch.0 - T0) / 1_000_000);
        loop {
            let page = fixture.read(&path).await;
            assert_eq!(page["epoch"], epoch(1).0);
            keys.extend(fields(&page["rows"], "merchant"));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/views/merchants/rows?limit=7{order}&cursor={next}");
            // Rows come, go up and down between two pages.
            n += 1;
            let key = (n % 300) as u32;
            fixture.merchants(
                n,
                [(key, merchant("Bolt", 1_000)), (1_000 + key, merchant("Bolt", 3))],
            );
            fixture.close(n);
        }
        assert_eq!(keys.len(), 250);
        assert_eq!(keys, fields(&whole["rows"], "merchant"));
    }
}

#[tokio::test]
async fn the_oldest_epoch_is_the_first_that_can_be_read() {
    let mut fixture = Fixture::new();
    for n in [10, 20] {
        fixture.merchants(n, [(1, merchant("Acme", i128::from(n)))]);
        fixture.close(n);
        let described = fixture.read("/v1/views/merchants").await;
        assert_eq!(described["as_of"]["oldest"], epoch(10).0);
        let listed = fixture.read("/v1/views").await;
        assert_eq!(listed["views"][0]["as_of"]["oldest"], epoch(10).0);
    }
    let path = |as_of: u64| format!("/v1/views/merchants/row?merchant=1&as_of={as_of}");
    fixture.read(&path(epoch(10).0)).await;
    fixture.refused(&path(epoch(10).0 - 1), 410, "as-of-gone").await;
}

#[tokio::test]
async fn as_of_is_the_newest_epoch_up_to_it() {
    let mut fixture = Fixture::new();
    for n in [10, 20, 30] {
        fixture.merchants(n, [(1, merchant("Acme", i128::from(n)))]);
        fixture.close(n);
    }
    for (as_of, total) in [
        (epoch(10).to_string(), 10),
        (epoch(15).to_string(), 10),
        (epoch(30).to_string(), 30),
        ("2026-11-23T03:00:25Z".to_owned(), 20),
        ("2026-11-23T04:00:25%2B01:00".to_owned(), 20),
        ("2030-01-01T00:00:00Z".to_owned(), 30),
    ] {
        let body = fixture
            .read(&format!("/v1/views/merchants/row?merchant=1&as_of={as_of}"))
            .await;
        assert_eq!(body["row"]["total"], total, "{as_of}");
        assert_eq!(body["epoch"], epoch(total).0, "{as_of}");
    }
    // An epoch by number that has not been closed: now or after a wait in vain.
    for wait in ["", "&wait=1ms"] {
        let path = format!("/v1/views/merchants/row?merchant=1&as_of={}{wait}", epoch(31));
        assert_eq!(fixture.refused(&path, 503, "not-yet").await["epoch"], epoch(30).0);
    }
}

#[tokio::test]
async fn a_tag_changes_when_the_row_does() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(1, merchant("Acme", 1)), (2, merchant("Bolt", 1))]);
    fixture.close(1);
    let tag = async |fixture: &Fixture, path: &str, known: &str| {
        let response = fixture
            .get(path)
            .header("if-none-match", known)
            .send()
            .await
            .unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let length = response.bytes().await.unwrap().len();
        assert_eq!(length == 0, status == 304);
        (status, tag)
    };
    let (row, rows) = ("/v1/views/merchants/row?merchant=1", "/v1/views/merchants/rows");
    let (status, row_1) = tag(&fixture, row, "\"other\"").await;
    assert_eq!(
        (status, row_1.as_str()),
        (200, format!("W/\"{}\"", epoch(1)).as_str())
    );
    let (_, rows_1) = tag(&fixture, rows, "").await;
    // An epoch in which nothing changed: both are as they were.
    fixture.close(2);
    assert_eq!(tag(&fixture, row, &row_1).await.0, 304);
    assert_eq!(tag(&fixture, rows, &rows_1).await.0, 304);
    assert_eq!(tag(&fixture, rows, "*").await.0, 304);
    // Another row changes: the view has changed, the row has not.
    fixture.merchants(3, [(2, merchant("Bolt", 2))]);
    fixture.close(3);
    assert_eq!(tag(&fixture, row, &row_1).await.0, 304);
    let (status, rows_3) = tag(&fixture, rows, &rows_1).await;
    assert_eq!((status, rows_3 == rows_1), (200, false));
    fixture.merchants(4, [(1, merchant("Acme", 2))]);
    fixture.close(4);
    assert_eq!(tag(&fixture, row, &row_1).await.0, 200);
    assert_eq!(
        tag(&fixture, &format!("{row}&as_of={}", epoch(3)), &row_1)
            .await
            .0,
        304
    );
}

#[tokio::test]
async fn a_tag_changes_when_a_window_closes_without_a_change() {
    let mut fixture = Fixture::new();
    fixture.spend(10, [(1, 0, 100), (1, 1, 200)]);
    fixture.close(10);
    let paths = [
        "/v1/views/merchant_spend/row?merchant=1&window=2026-11-23T03:00:00Z",
        "/v1/views/merchant_spend/rows",
    ];
    for path in paths {
        let tag = fixture.get(path).send().await.unwrap().headers()["etag"].clone();
        let again = fixture
            .get(path)
            .header("if-none-match", &tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), 304, "{path}");
    }
    let tags: Vec<_> = {
        let mut tags = Vec::new();
        for path in paths {
            tags.push(fixture.get(path).send().await.unwrap().headers()["etag"].clone());
        }
        tags
    };
    fixture.close(50);
    for (path, tag) in std::iter::zip(paths, &tags) {
        let again = fixture
            .get(path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), 304, "{path}: no window has closed");
    }
    fixture.close(61);
    for (path, tag) in std::iter::zip(paths, &tags) {
        let again = fixture
            .get(path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), 200, "{path}: its window has closed");
    }
    // Written in one epoch, two windows: the URL means another row now, and its tag must say so.
    let last = "/v1/views/merchant_spend/row?merchant=1&window=last_closed";
    let tag = fixture.get(last).send().await.unwrap().headers()["etag"].clone();
    fixture.close(121);
    let moved = fixture
        .get(last)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(moved.status(), 200);
    let moved: Value = serde_json::from_str(&moved.text().await.unwrap()).unwrap();
    assert_eq!(moved["row"]["cents"], 200);
}

#[tokio::test]
async fn several_reads_are_answered_at_one_epoch() {
    let mut fixture = Fixture::new();
    fixture.merchants(30, [(42, merchant("Acme", 1)), (43, merchant("Bolt", 2))]);
    fixture.spend(30, [(42, 0, 100)]);
    fixture.close(30);
    let query = json!({"reads": {
        "spend": {"view": "merchant_spend", "key": {"merchant": 42}, "window": "open"},
        "who": {"view": "merchants", "key": {"merchant": 42}},
        "top": {"view": "merchants", "where": {"total.gt": 1, "name.prefix": "B"}, "order": "-total", "limit": 5},
        "nobody": {"view": "merchants", "key": {"merchant": 99}},
    }});
    let (status, body) = ask(fixture.post(query.to_string())).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (&body["epoch"], &body["time"]),
        (&json!(epoch(30).0), &json!("2026-11-23T03:00:30Z"))
    );
    assert_eq!(body["positions"], json!({"payments": {"3": 1, "4": 1}}));
    let results = &body["results"];
    assert_eq!(fields(&results["spend"]["rows"], "cents"), ["100"]);
    assert_eq!(results["spend"]["closed"], json!([false]));
    assert_eq!(results["spend"]["watermark"], "2026-11-23T03:00:30Z");
    assert_eq!(fields(&results["who"]["rows"], "name"), ["\"Acme\""]);
    assert_eq!(fields(&results["top"]["rows"], "merchant"), ["43"]);
    assert_eq!(results["nobody"]["rows"], json!([]));

    fixture.merchants(31, [(42, merchant("Acme", 9))]);
    fixture.close(31);
    let read = json!({"view": "merchants", "key": {"merchant": 42}});
    for as_of in [
        json!(epoch(30).0),
        json!(epoch(30).to_string()),
        json!("2026-11-23T03:00:30.5Z"),
    ] {
        let query = json!({"as_of": as_of, "numbers": "string", "positions": false, "reads": {"a": read}});
        let (_, body) = ask(fixture.post(query.to_string())).await;
        assert_eq!(body["results"]["a"]["rows"][0]["total"], "1", "{body}");
        assert!(body.get("positions").is_none());
    }
    // All or nothing: one read that fails is named, and nothing is answered.
    let query = json!({"reads": {"good": read, "bad": {"view": "merchants", "key": {"merchant": "x"}}}});
    let body = problem(fixture.post(query.to_string()), 400, "key-type").await;
    assert_eq!(body["read"], "bad");
    assert!(body.get("results").is_none());
    let query = json!({"reads": {"good": read, "bad": {"view": "nothing"}}});
    assert_eq!(
        problem(fixture.post(query.to_string()), 404, "view-unknown").await["read"],
        "bad"
    );
}

#[tokio::test]
async fn a_writer_reads_its_writes() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(1, merchant("Acme", 1))]);
    fixture.close(1);
    // One record of each partition is in: its offset is 0.
    let path = "/v1/views/merchants/row?merchant=1";
    let body = fixture
        .read(&format!("{path}&after=payments:3:0,payments:4:0"))
        .await;
    assert_eq!(body["row"]["total"], 1);
    let body = fixture
        .refused(
            &format!("{path}&after=payments:3:1,payments:4:0&wait=1ms"),
            503,
            "not-yet",
        )
        .await;
    let stands = json!([{"source": "payments", "partition": 3, "asked": 1, "next": 1}]);
    assert_eq!(body["partitions"], stands, "only what is missing");
    let body = fixture
        .refused(&format!("{path}&after=payments:9:0"), 503, "not-yet")
        .await;
    assert_eq!(body["partitions"][0]["next"], Value::Null);

    let get = tokio::spawn(ask(fixture.get(&format!("{path}&after=payments:3:1&wait=30s"))));
    let read = json!({"view": "merchants", "key": {"merchant": 1}});
    let query = json!({"after": {"payments": {"3": 1, "4": 1}}, "wait": "30s", "reads": {"a": read}});
    let post = tokio::spawn(ask(fixture.post(query.to_string())));
    while fixture.state.metrics.http_in_flight.get() < 2 {
        tokio::task::yield_now().await;
    }
    fixture.merchants(2, [(1, merchant("Acme", 2))]);
    fixture.close(2);
    let (status, body) = get.await.unwrap();
    assert_eq!((status.as_u16(), &body["row"]["total"]), (200, &json!(2)));
    let (status, body) = post.await.unwrap();
    assert_eq!(
        (status.as_u16(), &body["results"]["a"]["rows"][0]["total"]),
        (200, &json!(2))
    );
    let query = json!({"after": {"payments": {"3": 2}}, "wait": "1ms", "reads": {"a": read}});
    problem(fixture.post(query.to_string()), 503, "not-yet").await;
}

#[tokio::test]
async fn views_describe_themselves() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(1, merchant("Acme", 1)), (2, merchant("Bolt", 2))]);
    fixture.close(1);
    let body = fixture.read("/v1/views").await;
    assert_eq!(body["epoch"], epoch(1).0);
    assert_eq!(
        fields(&body["views"], "name"),
        ["\"merchant_spend\"", "\"merchants\""]
    );
    let spend = &body["views"][0];
    let key = json!([
        {"name": "merchant", "type": "u32", "json": "number"},
        {"name": "window_start", "type": "timestamp", "json": "string"},
        {"name": "window_end", "type": "timestamp", "json": "string"},
    ]);
    assert_eq!(spend["key"], key);
    assert_eq!(
        (&spend["keep"], &spend["windowed"]),
        (&json!("24h"), &json!(true))
    );
    assert_eq!(spend["watermark"], "2026-11-23T03:00:01Z");
    let merchants = fixture.read("/v1/views/merchants").await;
    assert_eq!(
        merchants["value"][2],
        json!({"name": "total", "type": "i128", "json": "number", "json_wide": "string"})
    );
    assert_eq!(
        (&merchants["rows"], &merchants["history"]),
        (&json!(2), &json!("10m"))
    );
    assert_eq!(
        (&merchants["keep"], &merchants["changed"]),
        (&Value::Null, &json!(epoch(1).0))
    );
    assert_eq!(merchants["as_of"]["newest"], epoch(1).0);
}

#[tokio::test]
async fn epochs_say_what_they_contain() {
    let mut fixture = Fixture::new();
    fixture.close(1);
    fixture.close(3);
    let body = fixture.read(&format!("/v1/epochs/{}", epoch(3))).await;
    let range = |event_time_max: &str| json!({"lo": 1, "hi": 2, "records": 1, "event_time_max": event_time_max, "idle": false});
    let expected = json!({
        "epoch": epoch(3).0,
        "time": "2026-11-23T03:00:03Z",
        "now": "2026-11-23T03:00:03Z",
        "records": 2,
        "sources": {"payments": {
            "watermark": "2026-11-23T03:00:03Z",
            "partitions": {"3": range("2026-11-23T03:00:03Z"), "4": range("2026-11-23T03:00:03Z")},
        }},
    });
    assert_eq!(body, expected);
    let body = fixture
        .refused(&format!("/v1/epochs/{}", epoch(2)), 404, "epoch-unknown")
        .await;
    assert_eq!(body["before"], epoch(1).0);
    let body = fixture
        .refused(&format!("/v1/epochs/{}", epoch(4)), 404, "epoch-unknown")
        .await;
    assert_eq!(body["newest"], epoch(3).0);
    fixture.refused("/v1/epochs/first", 404, "epoch-unknown").await;
}

#[tokio::test]
async fn older_epochs_are_asked_of_the_ledger() {
    let bindings: BindingLookup = Arc::new(|asked| {
        let empty = |epoch| EpochBinding {
            epoch,
            now: EventTime(0),
            ranges: Vec::new(),
            watermarks: Vec::new(),
            idle: Vec::new(),
            topics: Vec::new(),
            schemas: Vec::new(),
            results: None,
        };
        Ok((asked == Epoch(7)).then(|| empty(asked)))
    });
    let mut fixture = Fixture::with(HttpSettings::default(), Some(bindings));
    fixture.close(1);
    assert_eq!(fixture.read("/v1/epochs/7").await["records"], 0);
    fixture.refused("/v1/epochs/8", 404, "epoch-unknown").await;
}

#[tokio::test]
async fn one_query_may_ask_for_a_full_page_and_a_row_besides() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, (0..10_001).map(|key| (key, merchant("Acme", 7))));
    fixture.spend(1, [(1, 0, 100)]);
    fixture.close(1);
    let all = json!({"view": "merchants", "limit": 10_000});
    let key = json!({"view": "merchants", "key": {"merchant": 10_000}});
    let few = json!({"view": "merchant_spend"});
    let query = json!({"reads": {"all": all, "key": key, "few": few}});
    let (status, body) = ask(fixture.post(query.to_string())).await;
    assert_eq!(status, 200, "{body}");
    let rows = |name: &str| body["results"][name]["rows"].as_array().unwrap().len();
    assert_eq!((rows("all"), rows("key"), rows("few")), (10_000, 1, 1));
    assert!(body["results"]["all"]["next"].is_string());
    let two = json!({"reads": {"all": all, "more": {"view": "merchant_spend", "limit": 1}}});
    let body = problem(fixture.post(two.to_string()), 400, "parameter").await;
    assert_eq!(body["got"], "10001 in all", "{body}");
}

#[tokio::test]
async fn conditions_are_looked_for_in_more_rows_than_a_first_attempt_takes() {
    let settings = HttpSettings {
        scanned_rows_max: 2_000,
        ..HttpSettings::default()
    };
    let mut fixture = Fixture::with(settings, None);
    let name = |key: u32| if key.is_multiple_of(1_500) { "Bolt" } else { "Acme" };
    fixture.merchants(1, (0..6_001).map(|key| (key, merchant(name(key), 7))));
    fixture.close(1);
    let path = "/v1/views/merchants/rows?name=Bolt&limit=10";
    // A page looks at 2,000 rows, also where that takes a thread of its own; the next one goes on behind
    // them.
    let (mut found, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let body = fixture.read(&format!("{path}{cursor}")).await;
        pages.push(body["rows"].as_array().unwrap().len());
        found.extend(fields(&body["rows"], "merchant"));
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, ["0", "1500", "3000", "4500", "6000"]);
    assert_eq!(pages, [2, 1, 1, 1], "rows 0 to 1999, 2000 to 3999, …");
    // One of which nothing matches is empty, and goes on.
    let body = fixture.read("/v1/views/merchants/rows?name=Cole").await;
    assert!(
        body["rows"].as_array().unwrap().is_empty() && body["next"].is_string(),
        "{body}"
    );
}

/// A condition is read alike from a query string and from a body: what is taken, and how it is refused.
#[tokio::test]
async fn get_and_post_read_one_language() {
    let large = 55_340_232_221_128_655_000;
    let mut fixture = Fixture::new();
    fixture.merchants(
        1,
        [
            (1, merchant("Acme", large)),
            (2, merchant("Bolt", i128::MIN)),
            (3, merchant("Co", 1_000)),
        ],
    );
    fixture.close(1);
    let get = |op: &str, value: &str| {
        fixture.get(&format!(
            "/v1/views/merchants/rows?total{op}={}&positions=false",
            value.replace('+', "%2B")
        ))
    };
    let post = |op: &str, value: &str| {
        let read = format!(r#"{{"view":"merchants","where":{{"total{op}":{value}}}}}"#);
        fixture.post(format!(r#"{{"positions":false,"reads":{{"a":{read}}}}}"#))
    };
    for (op, value, found) in [
        ("", "55340232221128655000", "[1]"),
        (".gt", "18446744073709551616", "[1]"),
        (".lt", "-18446744073709551616", "[2]"),
        ("", "-170141183460469231731687303715884105728", "[2]"),
        (".le", "170141183460469231731687303715884105727", "[1, 2, 3]"),
        ("", "1000", "[3]"),
    ] {
        for request in [get(op, value), post(op, value), post(op, &format!("\"{value}\""))] {
            let (status, body) = ask(request).await;
            assert_eq!(status, 200, "{body}");
            let rows = if body["rows"].is_array() {
                &body["rows"]
            } else {
                &body["results"]["a"]["rows"]
            };
            let merchants: Vec<_> = rows
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["merchant"].as_u64().unwrap())
                .collect();
            assert_eq!(format!("{merchants:?}"), found, "total{op} {value}: {body}");
        }
    }
    for value in [
        "1e3",
        "1000.0",
        "1E+3",
        "170141183460469231731687303715884105728",
        "-170141183460469231731687303715884105729",
    ] {
        let (by_get, mut by_post) = (
            problem(get(".ge", value), 400, "key-type").await,
            problem(post(".ge", value), 400, "key-type").await,
        );
        assert_eq!(by_get["got"], format!("`{value}`"));
        assert_eq!(by_post["read"].take(), "a");
        by_post.as_object_mut().unwrap().remove("read");
        assert_eq!(by_get, by_post);
    }
    // A field that is given twice counts twice, and is no key.
    let both = r#"{"positions":false,"reads":{"a":{"view":"merchants","where":{"total":1000,"total":1}}}}"#;
    let (_, body) = ask(fixture.post(both)).await;
    assert_eq!(body["results"]["a"]["rows"], json!([]));
    let twice = r#"{"reads":{"a":{"view":"merchants","key":{"merchant":1,"merchant":3}}}}"#;
    problem(fixture.post(twice), 400, "key-twice").await;
    // Control words, too.
    for limit in ["0", "1e2", "10001", "-1", "18446744073709551616"] {
        let by_get = problem(
            fixture.get(&format!("/v1/views/merchants/rows?limit={limit}")),
            400,
            "parameter",
        )
        .await;
        let body = format!(r#"{{"reads":{{"a":{{"view":"merchants","limit":{limit}}}}}}}"#);
        let by_post = problem(fixture.post(body), 400, "parameter").await;
        assert_eq!(
            (&by_get["detail"], &by_get["got"]),
            (&by_post["detail"], &by_post["got"])
        );
    }
    for as_of in ["18446744073709551616", "1e3", "1.5"] {
        let by_get = problem(
            fixture.get(&format!("/v1/views/merchants/rows?as_of={as_of}")),
            400,
            "parameter",
        )
        .await;
        let body = format!(r#"{{"as_of":{as_of},"reads":{{"a":{{"view":"merchants"}}}}}}"#);
        let by_post = problem(fixture.post(body), 400, "parameter").await;
        assert_eq!(by_get["got"], by_post["got"]);
        assert_eq!(by_get["got"], as_of);
    }
}
