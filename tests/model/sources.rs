//! What a view knows of its sources: its watermark is the least of theirs, by whatever steps it came about.

use thalweg::prelude::*;
use thalweg::source::Environment;
use thalweg::testing::Harness;

fn build(flow: Dataflow) {
    let stream = |name: &str, us: u64| {
        let source = Kafka::topic(name)
            .json::<(u32, i64)>()
            .event_time(|e| EventTime(e.1));
        flow.source(name, source.lateness(Duration::from_micros(us)))
    };
    let (near, far) = (stream("near", 1), stream("far", 100));
    let count = |rows: &Collection<(u32, i64)>, name: &str| {
        rows.group_by("key", |row| row.0)
            .aggregate(&format!("{name} counted"), |a| a.count())
            .view(name);
    };
    let (a, b) = (near.changes(), far.changes());
    count(&a, "near_view");
    count(&a.concat(&b), "concat");
    count(&a.join(&b, |key, x, _| (*key, *x)), "join");
    count(&a.semijoin(&b.map(|row| row.0)), "semijoin");
    count(&a.antijoin(&b.map(|row| row.0)), "antijoin");
    count(
        &a.iterate("loop", |inner, rows| {
            rows.concat(&inner.bring(&b)).distinct("once")
        }),
        "brought",
    );
    count(&near.merge(&far).changes().map(|row| row), "merged");
}

#[test]
fn a_views_watermark_is_the_least_of_its_sources() {
    let mut test = Harness::of(dataflow("sources", build));
    test.feed("near", 0, [(1u32, 1_000i64)])
        .feed("far", 0, [(1u32, 1_000i64)]);
    let epoch = test.epoch();
    let run = test.run().unwrap();
    let snapshot = run.snapshot(epoch).unwrap();
    let watermark = |view: &str| run.views().get(view).unwrap().watermark(&snapshot).micros();
    assert_eq!(watermark("near_view"), 999);
    for view in ["concat", "join", "semijoin", "antijoin", "brought", "merged"] {
        assert_eq!(watermark(view), 900, "{view}");
    }
}

#[test]
fn a_schema_for_what_is_no_avro_is_a_mistake_among_the_others() {
    fn confused(flow: Dataflow) {
        let rows = Kafka::topic("a").json::<String>().avro_schema("\"string\"");
        flow.table("values", rows.keyed::<u32>()).view("values_view");
        let rows = Kafka::topic("b")
            .avro::<String>()
            .avro_schema("\"string\"")
            .keyed::<u32>();
        flow.table("keys", rows.key_text().key_avro_schema("\"int\""))
            .view("keys_view");
    }
    let told = thalweg::runtime::plan(&dataflow("confused", confused), &Environment::default());
    let told = told.err().expect("it is refused").to_string();
    assert!(told.contains("2 mistakes"), "{told}");
    assert!(
        told.contains("source `values`") && told.contains("payloads that are no Avro"),
        "{told}"
    );
    assert!(
        told.contains("source `keys`") && told.contains("keys that are no Avro"),
        "{told}"
    );
}
