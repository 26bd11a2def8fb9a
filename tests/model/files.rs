//! Files as a source, through the whole engine: until their end, on again when they have grown, and never
//! past a change.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use thalweg::Kind;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::schema::Numbers;
use thalweg::view::Views;

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    key: u32,
    at: i64,
}

/// Counts lines by key, and keeps the newest of each key as a table.
fn counts(dir: &Path) -> thalweg::Flow {
    let pattern = dir.join("*.jsonl");
    dataflow("counts", move |flow: Dataflow| {
        let lines = Files::lines(&pattern)
            .json::<Line>()
            .event_time(|line| EventTime::from_millis(line.at));
        flow.source("lines", lines)
            .key_by("key", |line| line.key)
            .window("second", Tumbling::of(Duration::from_secs(1)))
            .aggregate(|a| a.count())
            .view("counts");
        let rows = Files::lines(&pattern)
            .json::<Line>()
            .keyed(|line| (line.key, (line.at >= 0).then_some(line.at)));
        flow.table("rows", rows).view("newest");
    })
}

fn settings(data: &Path, workers: usize, until_end: bool) -> RunSettings {
    RunSettings {
        workers,
        until_end,
        store: LedgerLocation::Directory(data.to_owned()),
        ..RunSettings::default()
    }
}

fn append(dir: &Path, name: &str, text: &str) {
    let mut options = fs::File::options();
    let mut file = options.create(true).append(true).open(dir.join(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn rows(views: &Views, view: &str) -> Vec<String> {
    let Some(snapshot) = views.closed() else {
        return Vec::new();
    };
    let serve = views.get(view).unwrap();
    let page = serve.rows(&Default::default(), &snapshot).unwrap();
    let text = |row: &_| {
        let mut json = Vec::new();
        serve.schema().write_row(row, Numbers::default(), &mut json);
        String::from_utf8(json).unwrap()
    };
    page.rows.iter().map(|row| text(&row.row)).collect()
}

fn counted(views: &Views) -> BTreeMap<u64, u64> {
    let mut counted = BTreeMap::new();
    for row in rows(views, "counts") {
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        let n = row
            .as_object()
            .unwrap()
            .iter()
            .find(|(name, _)| !matches!(name.as_str(), "key" | "window_start" | "window_end"));
        *counted.entry(row["key"].as_u64().unwrap()).or_default() += n.unwrap().1.as_u64().unwrap();
    }
    counted
}

fn until_end(dir: &Path, data: &Path, workers: usize) -> Result<std::sync::Arc<Views>> {
    Service::start(&counts(dir), settings(data, workers, true))?.join()
}

#[test]
fn a_run_until_the_end_counts_every_line_and_a_later_one_those_that_came() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, data) = (dir.path(), data.path());
    append(
        dir,
        "a.jsonl",
        "{\"key\":1,\"at\":10}\n\n{\"key\":2,\"at\":20}\nnonsense\n",
    );
    append(dir, "b.jsonl", "{\"key\":1,\"at\":30}\n{\"key\":3,\"at\":40}");
    let views = until_end(dir, data, 2).unwrap();
    assert_eq!(counted(&views), BTreeMap::from([(1, 2), (2, 1), (3, 1)]));
    let dead = rows(&views, "lines.dead_letters");
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0].contains("a.jsonl, line 4") && dead[0].contains("json_syntax"),
        "{dead:?}"
    );

    // The line that the end cut short goes on; a file grows, and there is a new one.
    append(dir, "b.jsonl", "\n{\"key\":3,\"at\":-1}\n");
    append(dir, "a.jsonl", "{\"key\":1,\"at\":50}\n");
    append(dir, "c.jsonl", "{\"key\":4,\"at\":60}\n");
    for workers in [1, 2] {
        let views = until_end(dir, data, workers).unwrap();
        // What lies before the first event's window is late.
        let late = rows(&views, "lines.dead_letters")
            .iter()
            .filter(|row| row.contains("\"late\""))
            .count();
        let counted = counted(&views);
        assert_eq!(counted.values().sum::<u64>() + late as u64, 7, "{counted:?}");
        assert_eq!((counted[&1], counted[&4]), (3, 1));
        assert_eq!(rows(&views, "newest").len(), 3, "key 3 was deleted");
    }

    // A byte that was counted is another now.
    let changed = fs::read_to_string(dir.join("a.jsonl"))
        .unwrap()
        .replace("20}", "21}");
    fs::write(dir.join("a.jsonl"), changed).unwrap();
    let error = until_end(dir, data, 1).err().expect("a file was changed");
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.what().contains("no longer has the records"), "{error}");
    fs::write(dir.join("a.jsonl"), "").unwrap();
    let error = until_end(dir, data, 1).err().expect("a file was emptied");
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(
        error.what().contains("a.jsonl has changed since it was read"),
        "{error}"
    );
}

#[test]
fn files_are_followed_as_they_grow() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, data) = (dir.path(), data.path());
    append(dir, "a.jsonl", "{\"key\":1,\"at\":10}\n{\"key\":2,");
    let service = Service::start(&counts(dir), settings(data, 1, false)).unwrap();
    let wait = |what: &str, expected: &[(u64, u64)]| {
        let expected: BTreeMap<u64, u64> = expected.iter().copied().collect();
        let deadline = thalweg::clock::instant() + Duration::from_secs(60);
        while counted(service.views()) != expected {
            let error = service.halt().error();
            assert!(
                error.is_none() && thalweg::clock::instant() < deadline,
                "{what}: {:?}, {error:?}",
                counted(service.views())
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait("the whole line", &[(1, 1)]);
    append(dir, "a.jsonl", "\"at\":20}\n");
    wait("the line's end", &[(1, 1), (2, 1)]);
    append(dir, "b.jsonl", "{\"key\":3,\"at\":30}\n");
    wait("a new file", &[(1, 1), (2, 1), (3, 1)]);
    service.stop();
    service.join().unwrap();
}
