//! Stores of every contract, one of each for a world: calls fail before or behind their effect, and writers
//! of before are fenced where the contract says so. A world lives on one thread, and its stores with it.
//!
//! ```text
//!   transactional   rows and progress together; a writer that another one has fenced commits nothing
//!   versioned       the newest row of each key with its epoch; older ones are refused
//!   repeating       whatever is written, told apart by epoch
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::oracle::Rows;
use super::{Checked, Draws};
use crate::error::{Error, Result};
use crate::sink::{
    AppendSink, Batch, ChangelogSink, Contract, Method, OpenedSink, Progress, Shard, Sink,
    TransactionalWriter, UpsertSink, WriteError, Writer, Writers,
};
use crate::source::Environment;

thread_local! {
    static STORES: RefCell<SimStores> = RefCell::new(SimStores::new(Draws(0)));
}

/// Fewer than workers, and more.
const SHARDS: u32 = 3;

struct SimStores {
    draws: Draws,
    /// One call of so many fails; nothing: none.
    fails: Option<usize>,
    /// Whether writers of an earlier service are kept from fencing those of a later one.
    knows_generations: bool,
    shards: BTreeMap<(String, u32), StoredShard>,
    /// The first promise that was broken.
    broken: Option<String>,
    /// What may be asked of it when a seed is done.
    told: StoreCounts,
}

#[derive(Clone, Copy, Default)]
pub(super) struct StoreCounts {
    pub rows: usize,
    pub failures: usize,
    pub fenced: usize,
    pub repeated: usize,
}

/// What a store holds of a shard.
#[derive(Default)]
struct StoredShard {
    owner: u64,
    /// The highest that was seen.
    generation: u64,
    progress: Option<Progress>,
    /// Each row as it was written: epoch, key, the row as JSON, none where it went.
    rows: Vec<(u64, Vec<u8>, Option<String>)>,
    newest: BTreeMap<Vec<u8>, (u64, Option<String>)>,
}

/// A sink of a contract.
pub(super) struct SimStore(pub Contract);

struct SimStoreWriter {
    shard: Shard,
    owner: u64,
}

/// How a call ends.
enum CallOutcome {
    Well,
    FailsBefore,
    FailsBehind,
}

impl SimStores {
    fn new(mut draws: Draws) -> Self {
        Self {
            knows_generations: draws.chance(1, 2),
            draws,
            fails: Some(6),
            shards: BTreeMap::new(),
            broken: None,
            told: StoreCounts::default(),
        }
    }

    fn fate(&mut self) -> CallOutcome {
        if !self.fails.is_some_and(|of| self.draws.chance(1, of)) {
            return CallOutcome::Well;
        }
        self.told.failures += 1;
        match self.draws.chance(1, 2) {
            true => CallOutcome::FailsBefore,
            false => CallOutcome::FailsBehind,
        }
    }

    /// The shards of a sink.
    fn of(&self, sink: &str) -> Vec<&StoredShard> {
        let shards = self.shards.iter().filter(|((name, _), _)| name == sink);
        shards.map(|(_, stored)| stored).collect()
    }

    fn holds(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.broken.get_or_insert_with(what);
        }
    }
}

/// Begins with empty stores, in place of those of a world before.
pub(super) fn begin(draws: Draws) {
    STORES.with(|stores| *stores.borrow_mut() = SimStores::new(draws));
}

/// No call fails any more.
pub(super) fn calm() {
    STORES.with(|stores| stores.borrow_mut().fails = None);
}

/// Whether all promises were kept so far.
pub(super) fn kept() -> Checked {
    STORES.with(|stores| match &stores.borrow().broken {
        Some(broken) => Err(broken.clone()),
        None => Ok(()),
    })
}

impl Sink for SimStore {
    fn open(self, _: Method, _: &Environment) -> Result<OpenedSink> {
        let open = |shard: &Shard| {
            Ok(SimStoreWriter {
                shard: shard.clone(),
                owner: 0,
            })
        };
        let writers = match self.0 {
            Contract::Transactional => Writers::transactional(open),
            Contract::Versioned => Writers::versioned(open),
            Contract::Repeating => Writers::repeating(open),
        };
        Ok(OpenedSink::new("a simulated store", writers).shards(SHARDS))
    }
}
impl<T> AppendSink<T> for SimStore {}
impl<K, V> UpsertSink<K, V> for SimStore {}
impl<V> ChangelogSink<V> for SimStore {}

impl SimStoreWriter {
    fn call(&self, effect: impl FnOnce(&mut StoredShard)) -> Result<(), WriteError> {
        let key = (self.shard.sink.to_string(), self.shard.number);
        STORES.with(|stores| {
            let stores = &mut *stores.borrow_mut();
            let fate = stores.fate();
            let stored = stores.shards.entry(key).or_default();
            if !matches!(fate, CallOutcome::FailsBefore) {
                effect(stored);
            }
            match fate {
                CallOutcome::Well => Ok(()),
                CallOutcome::FailsBefore | CallOutcome::FailsBehind => {
                    Err(Error::external("the store is away").into())
                }
            }
        })
    }

    fn take(&self, stored: &mut StoredShard, epochs: &[Batch]) {
        for batch in epochs {
            for row in &batch.rows {
                let (epoch, key) = (batch.epoch.0, row.key().to_vec());
                let json = row.after().and_then(|_| row.json(&self.shard.schema));
                let newest = stored.newest.entry(key.clone()).or_default();
                if newest.0 < epoch {
                    *newest = (epoch, json.clone());
                }
                stored.rows.push((epoch, key, json));
            }
        }
    }

    /// Whether a later service has resumed, as far as the store knows of such.
    fn is_outdated(&self) -> bool {
        let key = (self.shard.sink.to_string(), self.shard.number);
        STORES.with(|stores| {
            let stores = &mut *stores.borrow_mut();
            let stored = stores.shards.entry(key).or_default();
            stored.generation = stored.generation.max(self.shard.generation);
            stores.knows_generations && stored.generation > self.shard.generation
        })
    }

    fn is_fenced(&self) -> bool {
        let key = (self.shard.sink.to_string(), self.shard.number);
        STORES.with(|stores| {
            let stores = &mut *stores.borrow_mut();
            let owner = stores.shards.entry(key).or_default().owner;
            stores.told.fenced += usize::from(owner != self.owner);
            owner != self.owner
        })
    }
}

impl Writer for SimStoreWriter {
    fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
        self.call(|stored| self.take(stored, epochs))
    }
}

impl TransactionalWriter for SimStoreWriter {
    fn resume(&mut self) -> Result<Option<Progress>> {
        if self.is_outdated() {
            return Err(Error::integrity("another process writes to the store"));
        }
        let (mut owner, mut progress) = (0, None);
        let called = self.call(|stored| {
            stored.owner += 1;
            owner = stored.owner;
            progress.clone_from(&stored.progress);
        });
        self.owner = owner;
        match called {
            Ok(()) => Ok(progress),
            Err(_) => Err(Error::external("the store is away")),
        }
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        if self.is_fenced() {
            return Err(Error::external("the writer was fenced").into());
        }
        self.call(|stored| {
            self.take(stored, epochs);
            stored.progress = Some(progress.clone());
        })?;
        let key = (self.shard.sink.to_string(), self.shard.number);
        STORES.with(|stores| {
            let stores = &mut *stores.borrow_mut();
            let held = stores
                .shards
                .get(&key)
                .map_or(0, |stored| stored.rows.len() as u64);
            let counted = progress.rows;
            stores.holds(held == counted, || {
                format!("{key:?} holds {held} rows, and its progress says {counted}")
            });
        });
        Ok(())
    }
}

/// All was delivered: what the stores hold is what the views show.
pub(super) fn hold(rows: &Rows) -> Checked<StoreCounts> {
    STORES.with(|stores| {
        let stores = &*stores.borrow();
        let names = rows["names_now"]
            .iter()
            .map(|row| row.replace("\"name\":", "\"value\":"));
        let names: Vec<String> = names.collect();
        for sink in ["names_mirror", "names_log", "names_told"] {
            let newest = stores.of(sink).into_iter().flat_map(|stored| &stored.newest);
            // Keys of all shards, in order.
            let newest: BTreeMap<_, _> = newest.collect();
            let found = newest.into_values().filter_map(|(_, row)| row.clone());
            let found: Vec<String> = found.collect();
            if found != names {
                return Err(format!("`{sink}` holds {found:?}, and the view {names:?}"));
            }
        }
        for sink in ["names_log", "sales_log"] {
            once_and_in_order(sink, &stores.of(sink))?;
        }
        let mut totals = BTreeMap::<u64, (i64, i64)>::new();
        for (_, _, row) in stores.of("sales_log").into_iter().flat_map(|stored| &stored.rows) {
            let row: serde_json::Value = serde_json::from_str(row.as_deref().unwrap_or_default())
                .map_err(|error| format!("`sales_log` holds {row:?}: {error}"))?;
            let total = totals
                .entry(row["shop"].as_u64().unwrap_or_default())
                .or_default();
            *total = (total.0 + 1, total.1 + row["cents"].as_i64().unwrap_or_default());
        }
        let totals = totals.into_iter();
        let totals: Vec<String> = totals
            .map(|(shop, (n, sum))| format!("{{\"shop\":{shop},\"n\":{n},\"sum\":{sum}}}"))
            .collect();
        if totals != rows["totals_now"] {
            let shown = &rows["totals_now"];
            return Err(format!(
                "`sales_log` comes to {totals:?}, and the view to {shown:?}"
            ));
        }
        let mut told = stores.told;
        told.repeated = repeated(&stores.of("names_told"))?;
        told.rows = stores.shards.values().map(|stored| stored.rows.len()).sum();
        Ok(told)
    })
}

/// Of a transactional store: no row is there twice, and epochs follow on each other.
fn once_and_in_order(sink: &str, shards: &[&StoredShard]) -> Checked {
    for stored in shards {
        if !stored
            .rows
            .is_sorted_by_key(|(epoch, key, _)| (*epoch, key.clone()))
        {
            return Err(format!("rows of `{sink}` are out of order"));
        }
        let rows = stored.rows.iter().map(|(epoch, key, _)| (epoch, key));
        if rows.collect::<BTreeSet<_>>().len() < stored.rows.len() {
            return Err(format!("`{sink}` has a row twice"));
        }
    }
    Ok(())
}

/// Of a repeating store: how many rows came again, each as it was.
fn repeated(shards: &[&StoredShard]) -> Checked<usize> {
    let mut again = 0;
    for stored in shards {
        let mut first = BTreeMap::new();
        for (epoch, key, row) in &stored.rows {
            match first.insert((epoch, key), row) {
                Some(before) if before != row => {
                    return Err(format!(
                        "a row of epoch {epoch} came again as {row:?}, and was {before:?}"
                    ));
                }
                Some(_) => again += 1,
                None => {}
            }
        }
    }
    Ok(again)
}
