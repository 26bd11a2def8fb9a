//! Fraud in payments by card: four rules, and an alert as soon as one is met.
//!
//! ```text
//!   payments ─┬─ by card, a minute, every ten seconds ── more than five ─────▶ burst ──┐
//!             ├─ by card, days ── join ── above the limit of the account ────▶ limit ──┤
//!             ├─ interval join with itself ── two countries within an hour ──▶ travel ─┼─ join ─▶ view alerts
//!             └─ process_events ── a large one soon after a small one ───────▶ probe ──┤
//!   accounts ───┴──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The first three alert in the epoch of the payment. The last one looks at the payments of a card in their
//! order, and has to wait until the watermark says that none is missing.

use dataflows::Random;
use thalweg::demo::{Demo, now};
use thalweg::operator::process_events::{EventContext, EventProcessor};
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    id: i64,
    card: i32,
    country: String,
    cents: i64,
    at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    holder: String,
    limit_cents: i64,
}

/// Of a card, what was found, and the start of what it was found in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Finding {
    card: i32,
    rule: String,
    since: EventTime,
}

impl Finding {
    fn new(card: i32, rule: &str, since: EventTime) -> Self {
        let rule = rule.to_owned();
        Self { card, rule, since }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Alert {
    card: i32,
    holder: String,
    rule: String,
    since: EventTime,
}

const BURST: u64 = 5;
const HOUR: Duration = Duration::from_secs(3600);

fn fraud(flow: Dataflow) {
    let payments = Kafka::topic("cards.payments.v1")
        .avro::<Payment>()
        .event_time(|p| EventTime::from_millis(p.at_ms))
        .lateness(Duration::from_millis(300));
    let payments = flow.source("payments", payments);
    let by_card = || payments.key_by("card", |p: &Payment| p.card);
    let accounts = Kafka::topic("cards.accounts.v1").avro::<Account>().keyed::<i32>();
    let accounts = flow.table("accounts", accounts).key_named("card");

    let minute = Hopping::of(Duration::from_secs(60)).every(Duration::from_secs(10));
    let bursts = by_card()
        .window("burst", minute)
        .aggregate(|a| a.count())
        .filter(|_, payments| *payments > BURST);

    let spend = by_card()
        .window("spend", Tumbling::of(24 * HOUR))
        .aggregate(|a| a.sum(|p| p.cents));
    let above = spend
        .join("limit", &accounts, |_, spent, account| {
            spent > i128::from(account.limit_cents)
        })
        .filter(|_, is_above| *is_above);

    let travel = by_card().interval_join(
        "travel",
        &by_card(),
        Interval::before(HOUR),
        |card, now, before| {
            let since = EventTime::from_millis(before.at_ms);
            (now.country != before.country).then(|| Finding::new(*card, "travel", since))
        },
    );
    let probes = by_card().process_events("probe", Probes);

    let findings = bursts
        .rows()
        .map(|(minute, _)| Finding::new(minute.key, "burst", minute.window.start))
        .concat(
            &above
                .rows()
                .map(|(day, _)| Finding::new(day.key, "limit", day.window.start)),
        )
        .concat(&travel.flat_map(|finding| finding).changes())
        .concat(&probes.changes());
    findings
        // Several payments may have met a rule with the same beginning.
        .distinct("findings")
        .map(|finding| (finding.card, finding))
        .join(&accounts.rows(), |card, finding, account| Alert {
            card: *card,
            holder: account.holder.clone(),
            rule: finding.rule.clone(),
            since: finding.since,
        })
        .view("alerts");
}

/// Someone tries a stolen card with a dollar at most, and then takes what they can get.
struct Probes;

const PROBE_CENTS: i64 = 100;
const LARGE_CENTS: i64 = 50_000;
const PROBED_FOR: Duration = Duration::from_secs(600);

impl EventProcessor for Probes {
    type Key = i32;
    type Event = Payment;
    /// When the card was last tried.
    type State = EventTime;
    type Out = Finding;

    fn event(&self, payment: &Timed<Payment>, context: &mut EventContext<'_, Self>) {
        if payment.value.cents <= PROBE_CENTS {
            context.state = Some(payment.time);
            context.set_timer(payment.time.plus(PROBED_FOR));
        } else if payment.value.cents >= LARGE_CENTS
            && let Some(probed) = context.state.take()
        {
            context.emit(Finding::new(*context.key(), "probe", probed));
        }
    }

    fn timer(&self, time: EventTime, context: &mut EventContext<'_, Self>) {
        if context
            .state
            .is_some_and(|probed| probed.plus(PROBED_FOR) <= time)
        {
            context.state = None;
        }
    }
}

/// The dataflow, with demo data.
fn flow() -> thalweg::Flow {
    dataflow("fraud", fraud).demo(
        demo,
        &[
            "/v1/views/alerts/rows?limit=5",
            "/v1/views/alerts/rows?rule=probe&limit=5",
        ],
    )
}

fn main() -> ExitCode {
    thalweg::main([flow()])
}

const CARDS: u64 = 100_000;
const PARTITIONS: u32 = 4;
const PAYMENT: &str = include_str!("../../schemas/cards.payments.v1.avsc");
const ACCOUNT: &str = include_str!("../../schemas/cards.accounts.v1.avsc");

/// Payments by a hundred thousand cards, each from one country but for a few; now and then someone tries a
/// card, or uses one again and again.
fn demo(demo: &Demo) -> Result<()> {
    let accounts = demo.avro("cards.accounts.v1", 1, Some(r#""int""#), ACCOUNT)?;
    let payments = demo.avro("cards.payments.v1", PARTITIONS, None, PAYMENT)?;
    let rows = accounts.rows()?;
    for card in 0..CARDS {
        let account = Account {
            holder: format!("Holder {card}"),
            limit_cents: 200_000,
        };
        rows.send(&(card as i32), Some(&account))?;
    }
    let mut payments = payments.events()?;
    let mut random = Random::new(42);
    const COUNTRIES: [&str; 5] = ["AT", "CH", "DE", "FR", "IT"];
    // Of a thief's card: what is still to be paid with it.
    let mut stolen: (u64, Vec<i64>) = (0, Vec::new());
    demo.paced(|id| {
        if id % 500 == 0 {
            let probe = vec![90_000, 80];
            let burst = vec![2_000; 7];
            stolen = (random.below(CARDS), if random.one_in(2) { probe } else { burst });
        }
        let (card, cents) = match stolen.1.pop() {
            Some(cents) => (stolen.0, cents),
            None => (random.below(CARDS), 200 + random.below(20_000) as i64),
        };
        let abroad = u64::from(random.one_in(1000));
        payments.send(
            (card % u64::from(PARTITIONS)) as u32,
            &Payment {
                id: id as i64,
                card: card as i32,
                country: COUNTRIES[((card + abroad) % 5) as usize].to_owned(),
                cents,
                at_ms: now().millis(),
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::Epoch;
    use thalweg::testing::{Harness, Run};

    fn pay(card: i32, country: &str, cents: i64, seconds: i64) -> Payment {
        Payment {
            id: 0,
            card,
            country: country.into(),
            cents,
            at_ms: seconds * 1000,
        }
    }

    fn test() -> Harness {
        let mut test = Harness::of(flow());
        let account = |holder: &str| {
            Some(Account {
                holder: holder.into(),
                limit_cents: 100_000,
            })
        };
        test.feed("accounts", 0, [(1, account("Ada")), (2, account("Bob"))]);
        test
    }

    /// Rule, card and beginning in seconds of each alert.
    fn alerts(run: &Run, epoch: Epoch) -> Vec<(String, i32, i64)> {
        #[derive(Deserialize)]
        struct Row {
            card: i32,
            holder: String,
            rule: String,
            since: String,
        }
        let rows = run.rows::<Row>("alerts", epoch).unwrap();
        rows.into_iter()
            .map(|row| {
                assert_eq!(row.holder, if row.card == 1 { "Ada" } else { "Bob" });
                let since: EventTime = row.since.parse().unwrap();
                (row.rule, row.card, since.millis() / 1000)
            })
            .collect()
    }

    #[test]
    fn a_sixth_payment_in_a_minute_alerts_in_its_own_epoch() {
        let mut test = test();
        test.feed("payments", 0, (60..65).map(|second| pay(1, "CH", 500, second)));
        let five = test.epoch();
        test.feed("payments", 0, [pay(1, "CH", 500, 65), pay(2, "CH", 500, 65)]);
        let six = test.epoch();
        let run = test.workers(2).run().unwrap();
        assert_eq!(alerts(&run, five), []);
        // Every window that has all six.
        let starts: Vec<i64> = alerts(&run, six)
            .into_iter()
            .map(|(rule, card, since)| {
                assert_eq!((rule.as_str(), card), ("burst", 1));
                since
            })
            .collect();
        assert_eq!(starts, [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn an_account_has_a_limit_a_day_which_may_be_raised() {
        let mut test = test();
        test.feed(
            "payments",
            0,
            [pay(1, "CH", 60_000, 10), pay(1, "CH", 40_000, 4000)],
        );
        let at_limit = test.epoch();
        test.feed("payments", 0, [pay(1, "CH", 200, 8000)]);
        let above = test.epoch();
        let raised = Account {
            holder: "Ada".into(),
            limit_cents: 200_000,
        };
        test.feed("accounts", 0, [(1, Some(raised))]);
        let raised = test.epoch();
        let run = test.run().unwrap();
        assert_eq!(alerts(&run, at_limit), []);
        assert_eq!(alerts(&run, above), [("limit".to_owned(), 1, 0)]);
        assert_eq!(alerts(&run, raised), []);
    }

    #[test]
    fn nobody_pays_in_two_countries_within_an_hour() {
        let mut test = test();
        let payments = [
            pay(1, "CH", 500, 10),
            pay(2, "CH", 500, 20),
            pay(1, "IT", 500, 3610),
            pay(2, "IT", 500, 3621),
        ];
        test.feed("payments", 0, payments);
        let epoch = test.epoch();
        let run = test.workers(3).run().unwrap();
        assert_eq!(alerts(&run, epoch), [("travel".to_owned(), 1, 10)]);
    }

    #[test]
    fn a_large_payment_within_minutes_of_a_small_one_is_a_probe() {
        let mut test = test();
        // Out of order: by the log the large one comes first.
        test.feed("payments", 0, [pay(1, "CH", 90_000, 20), pay(2, "CH", 80, 20)]);
        test.feed("payments", 1, [pay(1, "CH", 80, 10), pay(2, "CH", 90_000, 621)]);
        test.epoch();
        // The watermark passes them.
        test.feed("payments", 0, [pay(3, "CH", 500, 1000)]);
        test.feed("payments", 1, [pay(3, "CH", 500, 1000)]);
        let epoch = test.epoch();
        let run = test.run().unwrap();
        assert_eq!(alerts(&run, epoch), [("probe".to_owned(), 1, 10)]);
    }
}
