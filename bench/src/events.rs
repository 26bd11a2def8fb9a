//! The events that are measured with, and the answer that they must give, computed the plain way.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use thalweg::schema::datum::Datum;
use thalweg::view::serve::RowsQuery;
use thalweg::view::{Snapshot, Views};
use thalweg::{Error, Result};

/// Length of a window.
pub const WINDOW_MS: i64 = 10_000;
/// How far behind the newest event of its partition an event may be.
pub const LATENESS_MS: i64 = 5_000;
/// Partitions that events are dealt to, in turn.
pub const PARTITIONS: usize = 4;
/// Events that share a key and a window, on average.
const EVENTS_A_ROW: u64 = 10;
const START_MS: i64 = 1_700_000_000_000;

/// 24 bytes in memory, about 45 as JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, in milliseconds since the Unix epoch.
    pub ts: i64,
    /// Whose it is.
    pub key: u64,
    /// What is summed.
    pub amount: i64,
}

impl Event {
    /// The `i`th event of a set with so many keys. Up to two seconds out of order; one in ten thousand is
    /// half a minute behind, and so late.
    pub fn nth(i: u64, keys: u64) -> Self {
        let draw = splitmix(i);
        let a_window = keys * EVENTS_A_ROW;
        let on_time = START_MS + (u128::from(i) * WINDOW_MS as u128 / u128::from(a_window)) as i64;
        let behind = (draw % 2_000) as i64
            + if (draw >> 11).is_multiple_of(10_000) {
                30_000
            } else {
                0
            };
        Self {
            ts: on_time - behind,
            key: (draw >> 25) % keys,
            amount: ((draw >> 50) % 1_000) as i64,
        }
    }

    /// Events by partition, in the order of their log.
    pub fn dealt(events: u64, keys: u64) -> Vec<Vec<Event>> {
        let mut partitions: Vec<_> = (0..PARTITIONS)
            .map(|_| Vec::with_capacity(events as usize / PARTITIONS + 1))
            .collect();
        for i in 0..events {
            partitions[i as usize % PARTITIONS].push(Event::nth(i, keys));
        }
        partitions
    }
}

/// Sebastiano Vigna's splitmix64, of a counter.
pub fn splitmix(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Count and sum by key and start of the window, and how many events were late.
pub struct Answer {
    rows: HashMap<(u64, i64), (u64, i64)>,
    /// Late events.
    pub late: u64,
}

impl Answer {
    /// Folds events one by one, in the order in which they were dealt to partitions.
    pub fn of(events: impl Iterator<Item = Event>) -> Self {
        let mut answer = Self {
            rows: HashMap::new(),
            late: 0,
        };
        let mut newest = [i64::MIN; PARTITIONS];
        for (i, event) in events.enumerate() {
            let newest = &mut newest[i % PARTITIONS];
            let start = event.ts.div_euclid(WINDOW_MS) * WINDOW_MS;
            if start + WINDOW_MS <= newest.saturating_sub(LATENESS_MS) {
                answer.late += 1;
            } else {
                let row = answer.rows.entry((event.key, start)).or_default();
                *row = (row.0 + 1, row.1 + event.amount);
            }
            *newest = event.ts.max(*newest);
        }
        answer
    }

    /// How many rows there must be.
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Holds the view `name` against it, row by row, and the dead letters of source `events`.
    pub fn check(&self, views: &Views, snapshot: &Snapshot, name: Option<&str>) -> Result<()> {
        let letters = views
            .get("events.dead_letters")
            .map_or(0, |view| view.rows_len() as u64);
        if letters != self.late {
            return Err(wrong(format!("{letters} late events, {} expected", self.late)));
        }
        let Some(name) = name else { return Ok(()) };
        let view = views
            .get(name)
            .ok_or_else(|| wrong(format!("no view `{name}`")))?;
        let all = RowsQuery {
            limit: usize::MAX >> 8,
            scanned_max: usize::MAX,
            ..RowsQuery::default()
        };
        let page = view
            .rows(&all, snapshot)
            .map_err(|error| wrong(error.to_string()))?;
        if page.rows.len() != self.rows.len() || page.next.is_some() {
            return Err(wrong(format!(
                "{} rows, {} expected",
                page.rows.len(),
                self.rows.len()
            )));
        }
        for found in &page.rows {
            let [
                Datum::Int(key),
                Datum::Time(start),
                _,
                Datum::Int(count),
                Datum::Int(sum),
            ] = &found.row[..]
            else {
                return Err(wrong(format!("a row of another shape: {:?}", found.row)));
            };
            let expected = self.rows.get(&(*key as u64, start.millis()));
            if expected != Some(&(*count as u64, *sum as i64)) {
                return Err(wrong(format!(
                    "key {key}, window {start}: {count}, {sum} instead of {expected:?}"
                )));
            }
        }
        Ok(())
    }
}

fn wrong(what: String) -> Error {
    Error::integrity("the answer is wrong").detail(what)
}
