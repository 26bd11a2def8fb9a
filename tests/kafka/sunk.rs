//! A function that takes each epoch's changes of merchant spend and appends them to a file, and what has to
//! hold of that file whatever became of the processes that wrote it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use thalweg::prelude::*;

use super::flow::Spend;
use super::oracle;

type Changes = Vec<Change<Windowed<u32>, Spend>>;

/// Appends an epoch as one line.
pub fn append(path: &Path, epoch: Epoch, changes: &[Change<Windowed<u32>, Spend>]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    // A line that was cut short by a death ends here.
    let line = format!("\n{}", serde_json::to_string(&(epoch.0, changes))?);
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// Every epoch was given in order and as a whole; one that was given again was the same; and one after the
/// other they make the rows that are expected. What a death cut short does not count: it came again. Returns
/// how many epochs there are, and how many were given again.
pub fn check(path: &Path, expected: &oracle::Rows) -> (usize, usize) {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut epochs, mut rows) = (BTreeMap::<u64, Changes>::new(), BTreeMap::new());
    let (mut again, mut before) = (0, 0);
    for line in text.lines() {
        let Ok((epoch, changes)) = serde_json::from_str::<(u64, Changes)>(line) else {
            continue;
        };
        if let Some(first) = epochs.get(&epoch) {
            assert_eq!(
                *first, changes,
                "epoch {epoch} was given again, and not as it was"
            );
            again += 1;
            before = epoch;
            continue;
        }
        let last = epochs.last_key_value().map_or(0, |(last, _)| *last);
        assert!(epoch > last, "epoch {epoch} came behind {last}");
        assert!(
            before == last,
            "what came again ended at {before}, and {epoch} follows {last}"
        );
        before = epoch;
        for change in &changes {
            let old = match &change.new {
                Some(new) => rows.insert(change.key.clone(), new.clone()),
                None => rows.remove(&change.key),
            };
            assert_eq!(old, change.old, "{:?} before epoch {epoch}", change.key);
        }
        assert!(!changes.is_empty(), "epoch {epoch} has nothing");
        epochs.insert(epoch, changes);
    }
    let rows = rows.iter().map(|(key, row)| {
        let (start, end, total) = (key.window.start.0, key.window.end.0, row.total as i64);
        let row = json!({ "merchant": key.key, "window_start": start, "window_end": end, "n": row.n, "total": total,
            "top": row.top, "name": row.name, "country": row.country });
        oracle::normal(&row.to_string())
    });
    let made = oracle::Rows::from([("merchant_spend".to_owned(), rows.collect())]);
    let expected = expected.get_key_value("merchant_spend").unwrap();
    oracle::compare(
        &oracle::Rows::from([(expected.0.clone(), expected.1.clone())]),
        &made,
    );
    (epochs.len(), again)
}
