//! The queries, on events of the generator, against other ways to answer them.

mod duckdb;
mod generator;
mod naive;

use std::collections::BTreeMap;

use dataflows::Random;
use nexmark::generator::Generator;
use nexmark::model::{Auction, Bid, Event, Person};
use serde_json::Value;
use thalweg::testing::{Harness, Run};
use thalweg::{Epoch, EventTime};

/// Events by kind, in the order in which they are made.
struct Events {
    people: Vec<Person>,
    auctions: Vec<Auction>,
    bids: Vec<Bid>,
}

impl Events {
    /// From half a minute before a midnight on.
    fn new(seed: u64, rate: u64, number: u64) -> Self {
        let (people, auctions, bids) = (Vec::new(), Vec::new(), Vec::new());
        let mut events = Events {
            people,
            auctions,
            bids,
        };
        let start = "2025-12-31T23:59:30Z".parse().expect("a time");
        let generator = Generator::new(seed).starting_at(start).rate(rate);
        for number in 0..number {
            match generator.event(number) {
                Event::Person(person) => events.people.push(person),
                Event::Auction(auction) => events.auctions.push(auction),
                Event::Bid(bid) => events.bids.push(bid),
            }
        }
        events
    }
}

/// How many people, auctions and bids there are by the end of each epoch. The last epoch has all.
struct Parts(Vec<[usize; 3]>);

impl Parts {
    /// Each kind gets on at a pace of its own, as topics do: bids may come long before their auction.
    fn draw(events: &Events, epochs: usize, random: &mut Random) -> Self {
        let mut cuts = |all: usize| {
            let drawn = (1..epochs).map(|_| random.below(all as u64 + 1) as usize);
            let mut cuts: Vec<usize> = drawn.chain([all]).collect();
            cuts.sort();
            cuts
        };
        let people = cuts(events.people.len());
        let (auctions, bids) = (cuts(events.auctions.len()), cuts(events.bids.len()));
        Self(
            (0..epochs)
                .map(|at| [people[at], auctions[at], bids[at]])
                .collect(),
        )
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a query shows, epoch by epoch.
struct Shown {
    run: Run,
    query: String,
    epochs: Vec<Epoch>,
}

impl Shown {
    fn of(query: &str, events: &Events, parts: &Parts, workers: usize) -> Self {
        let mut flows = nexmark::queries::flows().into_iter();
        let flow = flows
            .find(|flow| flow.name() == query)
            .expect("the query is there");
        let plan = thalweg::runtime::plan(&flow, &Default::default()).expect("a plan");
        let mut test = Harness::of(flow);
        test.workers(workers);
        let mut before = [0; 3];
        let mut epochs = Vec::new();
        for now in &parts.0 {
            for source in &plan.sources {
                match source.rules.name.as_str() {
                    "person" => test.feed("person", 0, events.people[before[0]..now[0]].to_vec()),
                    "auction" => test.feed("auction", 0, events.auctions[before[1]..now[1]].to_vec()),
                    "bid" => test.feed("bid", 0, events.bids[before[2]..now[2]].to_vec()),
                    other => panic!("a source `{other}`"),
                };
            }
            before = *now;
            epochs.push(test.epoch());
        }
        Self {
            run: test.run().expect("the dataflow runs"),
            query: query.to_owned(),
            epochs,
        }
    }

    /// The rows at the end of an epoch, counted from 0.
    fn rows(&self, at: usize) -> Vec<Value> {
        let rows = self.run.json(&self.query, self.epochs[at]);
        let rows = rows.expect("the query serves a view of its name");
        rows.iter()
            .map(|row| serde_json::from_str(row).expect("a row is JSON"))
            .collect()
    }
}

/// A row as text by which it is compared: fields in order, times in milliseconds, and numbers by their value.
fn comparable(row: &Value) -> String {
    match row {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, String> = fields
                .iter()
                .map(
                    |(name, value)| match value.as_str().filter(|_| name.starts_with("window_")) {
                        Some(time) => {
                            let time: EventTime = time.parse().expect("a time");
                            (name, time.millis().to_string())
                        }
                        None => (name, comparable(value)),
                    },
                )
                .collect();
            format!("{fields:?}")
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(comparable).collect();
            format!("{values:?}")
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.to_string(),
            None => {
                let float = number.as_f64().expect("a number");
                format!("{float}")
            }
        },
        other => other.to_string(),
    }
}

fn compare(query: &str, ours: &[Value], theirs: &[Value]) {
    let sorted = |rows: &[Value]| {
        let mut rows: Vec<String> = rows.iter().map(comparable).collect();
        rows.sort();
        rows
    };
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    if ours != theirs {
        let differ = ours.iter().zip(&theirs).find(|(our, their)| our != their);
        panic!(
            "{query}: {} rows, expected are {}; the first that differ:\n{differ:#?}",
            ours.len(),
            theirs.len()
        );
    }
}
