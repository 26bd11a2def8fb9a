//! Stores of every contract, under failing calls, halts in the midst of it, checkpoints, and restarts with
//! other numbers of workers: a transactional one holds each row exactly once, a versioned one the newest
//! rows, a repeating one got the same epochs again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg::prelude::*;
use thalweg::sink::row::shard_of;
use thalweg::sink::{
    AppendSink, Batch, ChangelogSink, Contract, Method, OpenedSink, Progress, Shard, Sink,
    TransactionalWriter, UpsertSink, WriteError, Writer, Writers,
};
use thalweg::source::Environment;
use thalweg::{Error, Flow};

use super::checkpoints::{EPOCHS, World};

const SHARDS: u32 = 3;

/// What may go wrong in a store's calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Luck {
    /// So many calls succeed between two that fail, before or behind their effect.
    fails_every: Option<u64>,
    /// The how many-th call, from now on, halts the service, before or behind its effect.
    halts_at: Option<u64>,
}

#[derive(Default)]
struct Stored {
    luck: Luck,
    calls: u64,
    /// By sink and shard.
    shards: BTreeMap<(String, u32), Held>,
}

/// What a store holds of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Held {
    /// Each row with its epoch, as it was written.
    rows: Vec<(u64, String)>,
    /// The newest row of each key, with its epoch.
    newest: BTreeMap<Vec<u8>, (u64, Option<String>)>,
    progress: Option<Progress>,
    /// Writers of before this one are fenced.
    owner: u64,
}

/// The stores of a test.
#[derive(Clone, Default)]
pub(super) struct Stores(Arc<Mutex<Stored>>);

/// One of them.
struct Store {
    stores: Stores,
    contract: Contract,
    shards: u32,
}

struct StoreWriter {
    stores: Stores,
    shard: Shard,
    owner: u64,
}

/// Whether something fails, and whether it has its effect all the same.
enum Fate {
    Well,
    Fails { takes_effect: bool, halts: bool },
}

impl Stored {
    fn fate(&mut self) -> Fate {
        self.calls += 1;
        let takes_effect = self.calls.is_multiple_of(2);
        if self.luck.halts_at == Some(self.calls) {
            return Fate::Fails {
                takes_effect,
                halts: true,
            };
        }
        match self.luck.fails_every {
            Some(every) if self.calls.is_multiple_of(every) => Fate::Fails {
                takes_effect,
                halts: false,
            },
            _ => Fate::Well,
        }
    }
}

impl Stores {
    fn store(&self, contract: Contract) -> Store {
        Store {
            stores: self.clone(),
            contract,
            shards: SHARDS,
        }
    }

    pub(super) fn luck(&self, luck: Luck) {
        let mut stored = self.0.lock();
        (stored.luck, stored.calls) = (luck, 0);
    }

    fn held(&self) -> BTreeMap<(String, u32), Held> {
        self.0.lock().shards.clone()
    }
}

impl Sink for Store {
    fn open(self, _: Method, _: &Environment) -> Result<OpenedSink, Error> {
        let stores = self.stores;
        let open = move |shard: &Shard| {
            Ok(StoreWriter {
                stores: stores.clone(),
                shard: shard.clone(),
                owner: 0,
            })
        };
        let writers = match self.contract {
            Contract::Transactional => Writers::transactional(open),
            Contract::Versioned => Writers::versioned(open),
            Contract::Repeating => Writers::repeating(open),
        };
        Ok(OpenedSink::new("memory", writers).shards(self.shards))
    }
}
impl<T> AppendSink<T> for Store {}
impl<K, V> UpsertSink<K, V> for Store {}
impl<V> ChangelogSink<V> for Store {}

impl StoreWriter {
    fn key(&self) -> (String, u32) {
        (self.shard.sink.to_string(), self.shard.number)
    }

    fn take(&self, held: &mut Held, epochs: &[Batch]) {
        for batch in epochs {
            for row in &batch.rows {
                let key = row.key();
                // Of events the partition counts, whose bytes come first.
                let of = if row.place().is_some() { &key[..8] } else { key };
                assert_eq!(shard_of(of, SHARDS), self.shard.number);
                let json = row.json(&self.shard.schema).expect("the schema fits");
                let old = row.fields_before(&self.shard.schema).is_some();
                let text = format!("{json} diff {} old {old} at {:?}", row.diff(), row.place());
                held.rows.push((batch.epoch.0, text));
                let newest = held.newest.entry(key.to_vec()).or_default();
                // What a versioned store does.
                if newest.0 < batch.epoch.0 {
                    *newest = (batch.epoch.0, row.after().map(|_| json));
                }
            }
        }
    }
}

impl Writer for StoreWriter {
    fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
        let mut stored = self.stores.0.lock();
        let fate = stored.fate();
        let held = stored.shards.entry(self.key()).or_default();
        finish(fate, || self.take(held, epochs))
    }
}

impl TransactionalWriter for StoreWriter {
    fn resume(&mut self) -> Result<Option<Progress>, Error> {
        let mut stored = self.stores.0.lock();
        let fate = stored.fate();
        let held = stored.shards.entry(self.key()).or_default();
        let owner = &mut self.owner;
        let fenced = || {
            held.owner += 1;
            *owner = held.owner;
        };
        match finish(fate, fenced) {
            Ok(()) => Ok(held.progress.clone()),
            Err(WriteError::Retry(error) | WriteError::Fatal(error) | WriteError::Refused { error, .. }) => {
                Err(error)
            }
        }
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        let mut stored = self.stores.0.lock();
        let fate = stored.fate();
        let held = stored.shards.entry(self.key()).or_default();
        assert_eq!(held.owner, self.owner, "two writers of a shard");
        finish(fate, || {
            self.take(held, epochs);
            held.progress = Some(progress.clone());
            assert_eq!(progress.rows, held.rows.len() as u64);
        })
    }
}

fn finish(fate: Fate, effect: impl FnOnce()) -> Result<(), WriteError> {
    match fate {
        Fate::Well => effect(),
        Fate::Fails { takes_effect, halts } => {
            if takes_effect {
                effect();
            }
            return Err(match halts {
                true => WriteError::Fatal(Error::definition("the end of this run")),
                false => WriteError::Retry(Error::external("nobody is there")),
            });
        }
    }
    Ok(())
}

pub(super) fn flow(stores: &Stores) -> Flow {
    let stores = stores.clone();
    dataflow("lucky", move |flow: Dataflow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let names = names.key_named("n");
        let numbers = Kafka::topic("o").json::<u64>();
        let numbers = flow.source("numbers", numbers.event_time(|n| EventTime(*n as i64)));
        let doubled = numbers.flat_map(|n| std::iter::repeat_n(n, (n % 3) as usize));
        doubled.append_to("doubled", stores.store(Contract::Transactional));
        doubled.append_to("repeated", stores.store(Contract::Repeating));
        names.upsert_to("mirror", stores.store(Contract::Versioned));
        names.changes_to("log", stores.store(Contract::Transactional));
        let rows = names.rows().map(|(key, value)| (key % 5, value % 2));
        rows.changes_to("multiset", stores.store(Contract::Transactional));
        names.view("names_view");
    })
}

fn run(world: &World, stores: &Stores, upto: u64, due: &[u64], workers: usize) -> thalweg::Result<()> {
    let bound = world.log.bindings().last().map_or(0, |binding| binding.epoch.0);
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&flow(stores), disk, bound + 1..=upto, due, workers)?;
    service.join().map(drop)
}

fn undisturbed(workers: usize) -> BTreeMap<(String, u32), Held> {
    let stores = Stores::default();
    run(&World::default(), &stores, EPOCHS, &[], workers).unwrap();
    stores.held()
}

/// What counts of what a store holds: all of it in a transactional one.
fn counts(sink: &str, mut held: Held) -> Held {
    held.owner = 0;
    held.progress = held.progress.map(|progress| Progress {
        ledger: 0,
        generation: 0,
        ..progress
    });
    match sink {
        "mirror" => held.rows.clear(),
        "repeated" => {
            // Epochs that came again came whole and as they were, and none before those before it.
            let mut epochs = BTreeMap::<u64, Vec<String>>::new();
            let mut greatest = 0;
            for some in held.rows.chunk_by(|(a, _), (b, _)| a == b) {
                let (epoch, mut rows): (u64, Vec<String>) =
                    (some[0].0, some.iter().map(|(_, row)| row.clone()).collect());
                // An epoch that was given again at once.
                let first = rows.iter().skip(1).position(|row| *row == rows[0]);
                let again = rows.split_off(first.map_or(rows.len(), |at| at + 1));
                assert!(
                    again.chunks(rows.len()).all(|again| again == rows),
                    "epoch {epoch}"
                );
                match epochs.get(&epoch) {
                    Some(first) => assert_eq!(*first, rows, "epoch {epoch}"),
                    None => assert!(epoch > greatest, "epoch {epoch} behind {greatest}"),
                }
                greatest = greatest.max(epoch);
                epochs.insert(epoch, rows);
            }
            let all = epochs.into_iter();
            held.rows = all
                .flat_map(|(epoch, rows)| rows.into_iter().map(move |row| (epoch, row)))
                .collect();
        }
        _ => {}
    }
    held
}

fn same(found: BTreeMap<(String, u32), Held>, expected: &BTreeMap<(String, u32), Held>, what: &str) {
    assert!(expected.keys().eq(found.keys()), "{what}: {:?}", found.keys());
    for ((sink, shard), held) in found {
        let expected = counts(&sink, expected[&(sink.clone(), shard)].clone());
        let held = counts(&sink, held);
        let different = held.rows.iter().zip(&expected.rows).position(|(a, b)| a != b);
        let (own, others) = (held.rows.len(), expected.rows.len());
        assert!(
            held == expected,
            "{what}: {sink}/{shard} has {own} rows, and should have {others}; row {different:?} is the \
                first other one"
        );
    }
}

#[test]
fn rows_do_not_depend_on_the_number_of_workers() {
    let expected = undisturbed(1);
    let filled = expected.values().filter(|held| !held.rows.is_empty());
    assert!(filled.count() > 8, "few shards have rows: {expected:?}");
    for workers in 2..=4 {
        same(undisturbed(workers), &expected, &format!("{workers} workers"));
    }
}

#[test]
fn calls_that_fail_are_made_again_without_loss_or_doubles() {
    let expected = undisturbed(1);
    for every in [2, 3, 5] {
        let stores = Stores::default();
        stores.luck(Luck {
            fails_every: Some(every),
            halts_at: None,
        });
        let world = World::default();
        // A service that ends gives up on a store that fails; the next one goes on.
        while world.log.bindings().len() < EPOCHS as usize {
            run(&world, &stores, EPOCHS, &[4], 2).unwrap();
        }
        stores.luck(Luck::default());
        run(&world, &stores, EPOCHS, &[], 1).unwrap();
        same(stores.held(), &expected, &format!("every {every}th call fails"));
    }
}

/// At whichever call of a store the service ends, and with whatever checkpoints.
#[test]
fn a_halt_at_any_call_loses_and_doubles_nothing() {
    let expected = undisturbed(1);
    let mut halted = 0;
    for first in 1..=24 {
        let (world, stores) = (World::default(), Stores::default());
        let mut runs = 0;
        loop {
            let halts_at = (runs < 4).then_some(first + 3 * runs);
            stores.luck(Luck {
                fails_every: (first % 3 == 0).then_some(4),
                halts_at,
            });
            let workers = 1 + (first + runs) as usize % 3;
            let due: Vec<u64> = (1..=EPOCHS).filter(|epoch| (epoch + first) % 3 == 0).collect();
            let bound = world.log.bindings().len() as u64;
            let due = due.into_iter().filter(|epoch| *epoch > bound).collect::<Vec<_>>();
            match run(&world, &stores, EPOCHS, &due, workers) {
                Ok(()) if halts_at.is_none() => break,
                Ok(()) => {}
                Err(error) => {
                    assert!(error.to_string().contains("the end of this run"), "{error}");
                    halted += 1;
                }
            }
            runs += 1;
        }
        same(
            stores.held(),
            &expected,
            &format!("halts from the call {first} on"),
        );
    }
    assert!(halted > 40, "{halted} halts");
}

#[test]
fn a_store_that_lost_its_rows_is_refused() {
    let (world, stores) = (World::default(), Stores::default());
    run(&world, &stores, 8, &[6], 2).unwrap();
    for held in stores.0.lock().shards.values_mut() {
        held.progress = None;
    }
    let error = run(&world, &stores, EPOCHS, &[], 1).unwrap_err().to_string();
    assert!(
        error.contains("has lost rows") && error.contains("hint: "),
        "{error}"
    );
}

#[test]
fn an_upsert_sink_that_is_new_begins_with_all_rows() {
    let world = World::default();
    let without = dataflow("lucky", |flow: Dataflow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let numbers = Kafka::topic("o").json::<u64>();
        let _numbers = flow.source("numbers", numbers.event_time(|n| EventTime(*n as i64)));
        names.key_named("n").view("names_view");
    });
    let disk = Arc::new(world.disk.clone());
    world
        .start(&without, disk, 1..=8, &[6], 2)
        .unwrap()
        .join()
        .unwrap();
    let with = |stores: &Stores| {
        let stores = stores.clone();
        dataflow("lucky", move |flow: Dataflow| {
            let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
            let numbers = Kafka::topic("o").json::<u64>();
            let _numbers = flow.source("numbers", numbers.event_time(|n| EventTime(*n as i64)));
            let names = names.key_named("n");
            names.upsert_to("mirror", stores.store(Contract::Versioned));
            names.view("names_view");
        })
    };
    let stores = Stores::default();
    let disk = Arc::new(world.disk.clone());
    let service = world.start(&with(&stores), disk, 9..=EPOCHS, &[], 3).unwrap();
    assert_eq!(service.restored(), Some(Epoch(6)));
    service.join().unwrap();
    let newest = |stores: &BTreeMap<(String, u32), Held>| {
        let mirrors = stores.iter().filter(|((sink, _), _)| sink == "mirror");
        let rows = mirrors.flat_map(|(_, held)| held.newest.clone());
        // A row that went before the sink was there it never heard of.
        let rows = rows.filter_map(|(key, (_, row))| Some((key, row?)));
        rows.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(newest(&stores.held()), newest(&undisturbed(1)));
}

#[test]
fn the_number_of_shards_stays() {
    let (world, stores) = (World::default(), Stores::default());
    run(&world, &stores, 8, &[], 2).unwrap();
    let other = dataflow("lucky", |flow: Dataflow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let numbers = Kafka::topic("o").json::<u64>();
        let _numbers = flow.source("numbers", numbers.event_time(|n| EventTime(*n as i64)));
        let store = Store {
            shards: 2,
            ..Stores::default().store(Contract::Versioned)
        };
        names.key_named("n").upsert_to("mirror", store);
    });
    let disk = Arc::new(world.disk.clone());
    let error = world
        .start(&other, disk, 9..=10, &[], 1)
        .err()
        .expect("it is refused");
    let error = error.to_string();
    assert!(
        error.contains("had 3 shards, and now has 2") && error.contains("hint: "),
        "{error}"
    );
}
