//! Balances of accounts from transfers between them: their sum is zero in every answer.
//!
//! ```text
//!   transfers ─ dedup by id ─▶ two entries each ─▶ sum by account ─┬─▶ view balances
//!                                                                  └─▶ sum of all ─▶ view total
//! ```
//!
//! A transfer is one record, and takes effect in one epoch: no answer has the half of it.

use dataflows::Random;
use thalweg::demo::{Demo, now};
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Transfer {
    id: i64,
    payer: i32,
    payee: i32,
    cents: i64,
    at_ms: i64,
}

fn balances(flow: Dataflow) {
    let transfers = Kafka::topic("bank.transfers.v1")
        .avro::<Transfer>()
        .event_time(|t| EventTime::from_millis(t.at_ms))
        .lateness(Duration::from_secs(5));
    let balances = flow
        .source("transfers", transfers)
        .key_by("id", |t| t.id)
        // A producer that did not hear of its success writes a transfer twice.
        .dedup("once", Duration::from_secs(3600))
        .flat_map(|t| [(t.payer, -t.cents), (t.payee, t.cents)])
        .key_by("account", |(account, _)| *account)
        .aggregate_all("balances", |a| (a.count(), a.sum(|(_, cents)| *cents)));
    balances.view_with("balances", |view| view.fields(["entries", "cents"]));
    balances
        .group_by("bank", |_, _| "all".to_owned())
        .aggregate("total", |a| (a.count(), a.sum(|(_, (_, cents))| *cents)))
        .view_with("total", |view| view.fields(["accounts", "cents"]));
}

/// The dataflow, with demo data.
fn flow() -> thalweg::Flow {
    dataflow("balances", balances).demo(
        demo,
        &[
            "/v1/views/total/row?bank=all",
            "/v1/views/balances/rows?order=-cents&limit=3",
            "/v1/views/balances/row?account=42",
        ],
    )
}

fn main() -> ExitCode {
    thalweg::main([flow()])
}

const ACCOUNTS: u64 = 1000;
const PARTITIONS: u32 = 4;
const TRANSFER: &str = include_str!("../../schemas/bank.transfers.v1.avsc");

/// Transfers between a thousand accounts; one of a hundred is written twice.
fn demo(demo: &Demo) -> Result<()> {
    let topic = demo.avro("bank.transfers.v1", PARTITIONS, None, TRANSFER)?;
    let mut transfers = topic.events()?;
    let mut random = Random::new(42);
    demo.paced(|id| {
        let transfer = Transfer {
            id: id as i64,
            payer: random.below(ACCOUNTS) as i32,
            payee: random.skewed(ACCOUNTS) as i32,
            cents: 100 + random.below(100_000) as i64,
            at_ms: now().millis(),
        };
        transfers.send(id as u32, &transfer)?;
        match random.one_in(100) {
            true => transfers.send(id as u32, &transfer),
            false => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use thalweg::testing::Harness;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Balance {
        account: i32,
        entries: u64,
        cents: i64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Total {
        bank: String,
        accounts: u64,
        cents: i64,
    }

    /// The balances after some transfers, computed one by one.
    fn naive(transfers: &[Transfer]) -> Vec<Balance> {
        let mut balances = BTreeMap::<i32, (u64, i64)>::new();
        for transfer in transfers {
            for (account, cents) in [
                (transfer.payer, -transfer.cents),
                (transfer.payee, transfer.cents),
            ] {
                let balance = balances.entry(account).or_default();
                *balance = (balance.0 + 1, balance.1 + cents);
            }
        }
        balances
            .into_iter()
            .map(|(account, (entries, cents))| Balance {
                account,
                entries,
                cents,
            })
            .collect()
    }

    #[test]
    fn the_sum_is_zero_in_every_epoch_on_any_number_of_workers() {
        for workers in 1..=3 {
            let mut random = Random::new(workers);
            let mut test = Harness::of(flow());
            test.workers(workers as usize);
            let (mut sent, mut epochs) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                for _ in 0..=random.below(10) {
                    let transfer = Transfer {
                        id: sent.len() as i64,
                        payer: random.below(9) as i32,
                        payee: random.below(9) as i32,
                        cents: random.below(1000) as i64,
                        at_ms: sent.len() as i64,
                    };
                    let times = 1 + random.below(3) as usize / 2;
                    let partition = random.below(3) as u32;
                    test.feed("transfers", partition, vec![transfer.clone(); times]);
                    sent.push(transfer);
                }
                epochs.push((test.epoch(), sent.clone()));
            }
            let run = test.run().unwrap();
            for (epoch, sent) in epochs {
                let expected = naive(&sent);
                let total = Total {
                    bank: "all".into(),
                    accounts: expected.len() as u64,
                    cents: 0,
                };
                assert_eq!(run.rows::<Balance>("balances", epoch).unwrap(), expected);
                assert_eq!(run.rows::<Total>("total", epoch).unwrap(), [total]);
            }
        }
    }
}
