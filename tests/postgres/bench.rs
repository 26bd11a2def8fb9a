//! How many rows a second one shard upserts: a figure, for who asks (`-- --ignored --nocapture bench`).

use std::io::Write;
use std::time::{Duration, Instant};

use thalweg::connect::postgres::Postgres as Sink;
use thalweg::prelude::*;

use super::node::start;
use crate::support::postgres::Postgres;

const ROWS: u64 = 300_000;

#[test]
#[ignore = "it measures"]
fn upserts_a_second() {
    let (postgres, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    for (name, keys) in [("fresh", ROWS), ("again", 50_000)] {
        let path = dir.path().join(format!("{name}.jsonl"));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        for n in 0..ROWS {
            writeln!(file, "[{},[{n},\"merchant {n}\",{}]]", n % keys, n * 3).unwrap();
        }
        file.flush().unwrap();
        let table = name.to_owned();
        let flow = dataflow(name, move |flow: Dataflow| {
            let lines = Files::lines(&path)
                .json::<(u64, (u64, String, i64))>()
                .poll(Duration::from_millis(5))
                .keyed(|(key, row)| (key, Some(row)));
            flow.table("rows", lines)
                .upsert_to("rows_pg", Sink::table(&*table));
        });
        let begun = Instant::now();
        let service = start(
            &flow,
            postgres.settings(),
            &dir.path().join(name).join("l"),
            1,
            true,
        )
        .unwrap();
        let sinks = service.sinks();
        service.join().unwrap();
        let (seconds, rows) = (begun.elapsed().as_secs_f64(), sinks()[0].rows);
        println!(
            "{name}: {rows} rows in {seconds:.2} s, {:.0} a second",
            rows as f64 / seconds
        );
    }
}
