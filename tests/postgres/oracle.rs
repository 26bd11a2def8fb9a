//! The input, as files that grow; and what has to be in the tables, evaluated from the files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::postgres::Postgres;

pub const DAY_US: i64 = 24 * 3_600_000_000;

/// Files that grow, made up from a seed.
pub struct Input {
    pub dir: PathBuf,
    state: u64,
    ids: u64,
}

impl Input {
    pub fn new(dir: &Path, seed: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            state: seed,
            ids: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % n
    }

    /// Adds so many lines to each topic.
    pub fn grow(&mut self, lines: usize) {
        for _ in 0..lines {
            let (id, kind) = (self.below(40), self.below(5));
            let row = match kind {
                0 => Value::Null,
                _ => {
                    serde_json::json!({ "owner": format!("o'{}\"", self.below(9)), "limit": self.below(1000) })
                }
            };
            self.line("accounts-0.jsonl", &serde_json::json!([id, row]));
            let (from, to) = (self.below(12), self.below(12));
            let transfer = serde_json::json!({
                "id": self.ids, "from": from, "to": to, "cents": 1 + self.below(500),
                "at_us": self.below(3) as i64 * DAY_US + self.below(1000) as i64,
            });
            let file = format!("transfers-{}.jsonl", self.ids % 3);
            self.line(&file, &transfer);
            self.ids += 1;
        }
    }

    pub fn line(&self, file: &str, line: &Value) {
        let mut open = File::options();
        let mut file = open.create(true).append(true).open(self.dir.join(file)).unwrap();
        // One write: whoever reads along sees whole lines.
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn lines(&self, of: &str) -> Vec<Value> {
        let files = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let of = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(of);
        let mut files: Vec<PathBuf> = files.filter(of).collect();
        files.sort();
        let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
        let lines: Vec<Value> = texts
            .flat_map(|text| {
                let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
                parsed.collect::<Vec<Value>>()
            })
            .collect();
        lines
    }

    /// The last line of each account that is there.
    fn accounts(&self) -> BTreeMap<u64, (String, i64)> {
        let mut accounts = BTreeMap::new();
        for line in self.lines("accounts") {
            let id = line[0].as_u64().unwrap();
            match &line[1] {
                Value::Null => accounts.remove(&id),
                row => {
                    let owner = row["owner"].as_str().unwrap().to_owned();
                    accounts.insert(id, (owner, row["limit"].as_i64().unwrap()))
                }
            };
        }
        accounts
    }

    /// Compares all four tables with the files, row by row. Returns how many rows there are.
    pub fn check(&self, postgres: &Postgres) -> usize {
        let accounts = self.accounts();
        let expected = accounts
            .iter()
            .map(|(id, (owner, limit))| format!("{id}|{owner}|{limit}"));
        same(
            "accounts",
            expected,
            postgres.lines("SELECT id, owner, \"limit\" FROM accounts"),
        );

        let transfers = self.lines("transfers");
        let expected = transfers.iter().map(|line| {
            let text = |name: &str| line[name].to_string();
            format!("{}|{}|{}|{}", text("id"), text("from"), text("to"), text("cents"))
        });
        let found = postgres.lines("SELECT id, \"from\", \"to\", cents FROM transfers");
        same("transfers", expected, found);

        let mut balances = BTreeMap::<(u64, i64), i64>::new();
        for line in &transfers {
            let cents = line["cents"].as_i64().unwrap();
            let day = line["at_us"].as_i64().unwrap() / DAY_US;
            for (account, cents) in [("from", -cents), ("to", cents)] {
                *balances
                    .entry((line[account].as_u64().unwrap(), day))
                    .or_default() += cents;
            }
        }
        let expected = balances
            .iter()
            .map(|((account, day), cents)| format!("{account}|{day}|{cents}"));
        let found = "SELECT account, extract(epoch FROM window_start)::bigint / 86400, value FROM balances";
        same("balances", expected, postgres.lines(found));
        self.check_changes(postgres, &accounts);
        postgres
            .value(
                "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM transfers) \
            + (SELECT count(*) FROM changes) + (SELECT count(*) FROM balances)",
            )
            .parse()
            .unwrap()
    }

    /// Each change begins with what the one before it ended with: one that is lost, or there twice, tears the
    /// chain of its key.
    fn check_changes(&self, postgres: &Postgres, accounts: &BTreeMap<u64, (String, i64)>) {
        let rows = postgres.run(
            "SELECT id, epoch, diff, before_owner, before_limit, after_owner, after_limit FROM changes \
            ORDER BY epoch, id",
        );
        let mut now = BTreeMap::<u64, (String, i64)>::new();
        let mut seen = BTreeSet::new();
        for row in rows {
            let number = |at: usize| row[at].as_ref().unwrap().parse::<i64>().unwrap();
            let side = |at: usize| {
                let owner = row[at].clone()?;
                Some((owner, number(at + 1)))
            };
            let (id, epoch, before, after) = (number(0) as u64, number(1), side(3), side(5));
            assert!(seen.insert((epoch, id)), "a change of {id} is there twice");
            assert_eq!(now.get(&id), before.as_ref(), "the changes of {id} don't join");
            assert_eq!(
                number(2),
                i64::from(after.is_some()) - i64::from(before.is_some())
            );
            match after {
                Some(after) => now.insert(id, after),
                None => now.remove(&id),
            };
        }
        assert_eq!(&now, accounts, "the changes lead elsewhere");
    }
}

fn same(table: &str, expected: impl Iterator<Item = String>, found: Vec<String>) {
    let mut expected: Vec<String> = expected.collect();
    expected.sort();
    let lost = expected
        .iter()
        .filter(|row| !found.contains(row))
        .take(5)
        .collect::<Vec<_>>();
    let odd = found
        .iter()
        .filter(|row| !expected.contains(row))
        .take(5)
        .collect::<Vec<_>>();
    assert!(
        expected == found,
        "{table}: {} rows expected, {} found; lost {lost:?}, odd {odd:?}",
        expected.len(),
        found.len()
    );
}
