//! A user's closure that panics stops the service, and is told with the step's name and the record's
//! position: on any number of workers, without a hang, and with what was bound in the ledger.

use std::sync::mpsc::channel;
use std::time::Duration as Wait;

use thalweg::ledger::MemoryLog;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::testing::memory::Memory;
use thalweg::{Error, Flow, Kind};

/// Far more than it takes.
const PATIENCE: Wait = Wait::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Order {
    item: u32,
    count: i64,
}

const POISON: i64 = 13;

/// Panics at the poison.
fn eat(order: &Order) -> i64 {
    assert!(order.count != POISON, "cannot stomach {}", order.count);
    order.count
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    EventTime,
    Nowhere,
    Map,
    FlatMap,
    Filter,
    TryMap,
    Key,
    WindowAggregate,
    GroupAggregate,
    TableMap,
    Join,
}

/// Partition 1 has the poison at offset 4.
fn orders() -> Memory<Order> {
    let partition = |item: u32, from: i64| {
        (from..from + 9)
            .map(|count| (EventTime(count), Ok(Order { item, count })))
            .collect()
    };
    Memory::new(vec![partition(1, 100), partition(2, POISON - 4)])
}

fn flow(place: Place) -> Flow {
    let on = move |here: Place| move |order: &Order| if here == place { eat(order) } else { order.count };
    dataflow("poisoned", move |flow: Dataflow<'_>| {
        let time = on(Place::EventTime);
        let source = orders()
            .event_time(move |order| EventTime(time(order)))
            .lateness(Duration::from_secs(60));
        let (map, flat_map, filter, try_map, key, fold) = (
            on(Place::Map),
            on(Place::FlatMap),
            on(Place::Filter),
            on(Place::TryMap),
            on(Place::Key),
            on(Place::WindowAggregate),
        );
        let seen = |order: Order, count: i64| Order { count, ..order };
        let stream = flow
            .source("orders", source)
            .map(move |order| seen(order.clone(), map(&order)))
            .flat_map(move |order| Some(seen(order.clone(), flat_map(&order))))
            .filter(move |order| filter(order) >= 0)
            .try_map("checked", move |order| {
                Ok::<_, String>(seen(order.clone(), try_map(order)))
            });
        let window = stream
            .key_by("item", move |order| {
                let _seen = key(order);
                order.item
            })
            .window("spend", Tumbling::of(Duration::from_secs(60)))
            .aggregate(|a| a.sum(move |order| fold(order)));
        window.view("spend_now");
        let (group, table, join) = (on(Place::GroupAggregate), on(Place::TableMap), on(Place::Join));
        let last = stream
            .changes()
            .group_by("item", |order| order.item)
            .aggregate("grouped", |a| a.max(move |order| group(order)));
        let poisoned = |item: u32, count: i64| Order {
            item,
            count: if item == 2 { POISON } else { count },
        };
        let mapped = last.map(move |item, count| table(&poisoned(*item, count)));
        mapped
            .join("joined", &last, move |item, count, _| {
                join(&poisoned(*item, count))
            })
            .view("joined_now");
    })
}

/// What the service ends with; a hang fails the test.
fn halted(flow: &Flow, workers: usize, log: MemoryLog) -> Error {
    let settings = RunSettings {
        workers,
        store: LedgerLocation::Memory(log),
        ..RunSettings::default()
    };
    let service = Service::start(flow, settings).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(service.join().err()).unwrap_or(()));
    let ended = told.recv_timeout(PATIENCE).expect("the service ends by itself");
    ended.expect("a panic is an error")
}

#[test]
fn a_panic_names_the_step_and_the_record() {
    let record = ", at records in memory, partition 1, offset 4";
    let places = [
        (Place::EventTime, "source `orders`", record),
        (Place::Map, "the map after `orders`", record),
        (Place::FlatMap, "the flat_map after `orders`", record),
        (Place::Filter, "the filter after `orders`", record),
        (Place::TryMap, "try_map `checked`", record),
        (Place::Key, "window `spend`", record),
        (Place::WindowAggregate, "window `spend`", record),
        (Place::GroupAggregate, "aggregate `grouped`", ""),
        (Place::TableMap, "the map after `grouped`", ""),
        (Place::Join, "join `joined`", ""),
    ];
    for (place, step, at) in places {
        for workers in 1..=3 {
            let error = halted(&flow(place), workers, MemoryLog::default());
            let text = error.to_string();
            assert!(
                text.contains(&format!("\n  {step}{at}\n")),
                "{place:?}, {workers} workers: {text}"
            );
            assert!(text.contains("cannot stomach 13"), "{text}");
            assert_eq!(error.kind(), Kind::Definition);
        }
    }
}

#[test]
fn a_service_that_panicked_does_so_again_until_the_code_is_mended() {
    let log = MemoryLog::default();
    halted(&flow(Place::Map), 2, log.clone());
    halted(&flow(Place::Map), 1, log.clone());
    let settings = RunSettings {
        workers: 2,
        store: LedgerLocation::Memory(log),
        until_end: true,
        ..RunSettings::default()
    };
    // No place is poisoned that the flow has.
    let views = Service::start(&flow(Place::Nowhere), settings)
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(views.get("joined_now").unwrap().rows_len(), 2);
}
