//! The queries, by what they show, and their demo data.

pub mod join;
pub mod last;
pub mod report;
pub mod select;
pub mod window;
pub mod winning;

use thalweg::Flow;
use thalweg::demo::{Demo, now};
use thalweg::prelude::*;

use crate::generator::Generator;
use crate::model::{AUCTION, Auction, BID, Bid, Event, PERSON, Person};

/// All queries, with demo data.
pub fn flows() -> Vec<Flow> {
    vec![
        dataflow("q0", select::q0).demo(demo, &["/v1/views/q0/rows?limit=3"]),
        dataflow("q1", select::q1).demo(demo, &["/v1/views/q1/rows?limit=3"]),
        dataflow("q2", select::q2).demo(demo, &["/v1/views/q2/rows?limit=3"]),
        dataflow("q3", join::q3).demo(demo, &["/v1/views/q3/rows?limit=3"]),
        dataflow("q4", winning::q4).demo(demo, &["/v1/views/q4/rows"]),
        dataflow("q5", window::q5).demo(demo, &["/v1/views/q5/rows?order=-window_end&limit=3"]),
        dataflow("q6", winning::q6).demo(demo, &["/v1/views/q6/rows?limit=3"]),
        dataflow("q7", window::q7).demo(demo, &["/v1/views/q7/rows?window=last_closed"]),
        dataflow("q8", join::q8).demo(demo, &["/v1/views/q8/rows?window=last_closed&limit=3"]),
        dataflow("q9", winning::q9).demo(demo, &["/v1/views/q9/rows?limit=3"]),
        dataflow("q11", window::q11).demo(demo, &["/v1/views/q11/rows?order=-bids&limit=3"]),
        dataflow("q14", select::q14).demo(demo, &["/v1/views/q14/rows?limit=3"]),
        dataflow("q15", report::q15).demo(demo, &["/v1/views/q15/rows"]),
        dataflow("q16", report::q16).demo(demo, &["/v1/views/q16/rows?order=-last_bid&limit=3"]),
        dataflow("q17", report::q17).demo(demo, &["/v1/views/q17/rows?order=-total_bids&limit=3"]),
        dataflow("q18", last::q18).demo(demo, &["/v1/views/q18/rows?limit=3"]),
        dataflow("q19", last::q19).demo(demo, &["/v1/views/q19/rows?limit=10"]),
        dataflow("q20", join::q20).demo(demo, &["/v1/views/q20/rows?limit=3"]),
        dataflow("q21", select::q21).demo(demo, &["/v1/views/q21/rows?limit=3"]),
        dataflow("q22", select::q22).demo(demo, &["/v1/views/q22/rows?limit=3"]),
    ]
}

const PARTITIONS: u32 = 4;

fn demo(demo: &Demo) -> Result<()> {
    let people = demo.json(PERSON, PARTITIONS)?;
    let auctions = demo.json(AUCTION, PARTITIONS)?;
    let bids = demo.json(BID, PARTITIONS)?;
    let mut people = people.events::<Person>()?;
    let mut auctions = auctions.events::<Auction>()?;
    let mut bids = bids.events::<Bid>()?;
    let generator = Generator::new(42).starting_at(now()).rate(demo.rate());
    demo.paced(|number| {
        // A round to a partition, so that every topic has events in each.
        let partition = (number / 50 % u64::from(PARTITIONS)) as u32;
        match generator.event(number) {
            Event::Person(person) => people.send(partition, &person),
            Event::Auction(auction) => auctions.send(partition, &auction),
            Event::Bid(bid) => bids.send(partition, &bid),
        }
    })
}
