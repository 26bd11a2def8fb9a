//! The dataflow of all runs, and what its views must hold by the ledger's bindings: a plain loop over the
//! log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stores::SimStore;
use super::topic::{Topic, TopicRecord};
use super::{Checked, Draws};
use crate::codec::Cause;
use crate::connect::kafka::Kafka;
use crate::dataflow::window::Tumbling;
use crate::dataflow::{Dataflow, Flow, dataflow};
use crate::position::{EpochBinding, Offset, PartitionRange, SourceId};
use crate::sink::Contract;
use crate::time::{Epoch, EventTime};

/// A record of the topic `sales`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Sale {
    pub shop: u32,
    pub cents: i64,
    pub at_us: i64,
}

/// A record of the topic `names`: of a shop, or nothing where it has none any more.
pub(super) type Naming = (u32, Option<String>);

const LATENESS_US: i64 = 5;
const WINDOW_US: i64 = 20;
const KEEP_US: i64 = 60;
/// Partitions turn idle after so long.
pub(super) const IDLE_AFTER: Duration = Duration::from_millis(30);
/// How far back the view of names reaches, whatever others do.
pub(super) const NAMES_HISTORY: Duration = Duration::from_millis(25);

/// Sales by shop: counted in windows that expire and get names by a join, summed up for ever, and turned
/// down.
pub(super) fn flow() -> Flow {
    fn build(flow: Dataflow<'_>) {
        let us = |us: i64| Duration::from_micros(us as u64);
        let names = flow.table("names", Kafka::topic("names").json::<String>().keyed::<u32>());
        let sales = Kafka::topic("sales").json::<Sale>();
        let sales = sales
            .event_time(|sale| EventTime(sale.at_us))
            .lateness(us(LATENESS_US))
            .idle_after(IDLE_AFTER);
        let sales = flow.source("sales", sales);
        sales.append_to("sales_log", SimStore(Contract::Transactional));
        names.upsert_to("names_mirror", SimStore(Contract::Versioned));
        names.changes_to("names_log", SimStore(Contract::Transactional));
        names.changes_to("names_told", SimStore(Contract::Repeating));
        sales
            .clone()
            .key_by("shop", |sale| sale.shop)
            .window("spans", Tumbling::of(us(WINDOW_US)))
            .keep(us(KEEP_US))
            .aggregate(|a| (a.count(), a.sum(|sale| sale.cents), a.max(|sale| sale.cents)))
            .view_with("spans_now", |view| view.fields(["n", "sum", "max"]))
            .left_join("named", &names, |_, (n, _, _), name| (n, name.cloned()))
            .view_with("named_now", |view| view.fields(["n", "name"]));
        sales
            .changes()
            .group_by("shop", |sale| sale.shop)
            .aggregate("totals", |a| (a.count(), a.sum(|sale| sale.cents)))
            .view_with("totals_now", |view| view.fields(["n", "sum"]));
        names.view_with("names_now", |view| view.fields(["name"]).history(NAMES_HISTORY));
    }
    dataflow("simulated", build)
}

/// Sales of about now, in event time; few of them late, far in the future or not to be read.
pub(super) fn sale(draws: &mut Draws, now_us: i64) -> TopicRecord<Sale> {
    if draws.chance(1, 25) {
        return Err(Cause::JsonSyntax);
    }
    let at_us = match draws.below(40) {
        0 => 4_000_000_000_000_000,
        1 => now_us - 200,
        2..6 => now_us - 40 - draws.below(30) as i64,
        _ => now_us - draws.below(8) as i64,
    };
    Ok(Sale {
        shop: draws.below(6) as u32,
        cents: draws.below(1000) as i64 - 200,
        at_us,
    })
}

pub(super) fn naming(draws: &mut Draws) -> TopicRecord<Naming> {
    let shop = draws.below(6) as u32;
    match draws.below(12) {
        0 => Err(Cause::JsonSyntax),
        1..4 => Ok((shop, None)),
        _ => Ok((shop, Some(format!("n{}", draws.below(50))))),
    }
}

/// The rows of every view, by its name, as JSON in the order of keys.
pub(super) type Rows = BTreeMap<&'static str, Vec<String>>;

/// Goes through the bindings one by one.
#[derive(Default)]
pub(super) struct Oracle {
    /// What was bound and closed, in all runs.
    pub bindings: Vec<EpochBinding>,
    pub rows: BTreeMap<Epoch, Rows>,
    /// By source and partition: where it stands, the highest event time, whether it is idle.
    partitions: BTreeMap<(SourceId, u32), Stands>,
    /// W of the sales.
    watermark: Option<i64>,
    names: BTreeMap<u32, String>,
    /// By shop and start.
    windows: BTreeMap<(u32, i64), (i64, i64, i64)>,
    totals: BTreeMap<u32, (i64, i64)>,
    letters: [BTreeMap<(u32, Offset, &'static str), &'static str>; 2],
}

#[derive(Clone, Copy, Default)]
struct Stands {
    hi: Offset,
    max: Option<i64>,
    idle: bool,
}

impl Oracle {
    pub(super) fn last(&self) -> Epoch {
        self.bindings.last().map_or(Epoch::ZERO, |binding| binding.epoch)
    }

    /// Whether anything of a partition is bound.
    pub(super) fn is_bound(&self, source: SourceId, partition: u32) -> bool {
        self.partitions.contains_key(&(source, partition))
    }

    /// The next binding: it follows on the one before, and says of the log what stands there.
    pub(super) fn next(
        &mut self,
        binding: &EpochBinding,
        sales: &Topic<Sale>,
        names: &Topic<Naming>,
    ) -> Checked {
        let epoch = binding.epoch;
        if epoch <= self.last() {
            return Err(format!("epoch {epoch} is bound after {}", self.last()));
        }
        let mut ranges = binding.ranges.clone();
        ranges.sort_by_key(|range| range.id);
        for range in &ranges {
            let stands = self.stands(range);
            if stands.hi != range.lo || range.hi < range.lo {
                return Err(format!(
                    "epoch {epoch}: {range:?}, and it was bound up to {}",
                    stands.hi
                ));
            }
            for offset in range.lo..range.hi {
                if range.id.source == SourceId::of("sales") {
                    let given = sales.at(range.id.partition, offset);
                    let given =
                        given.ok_or_else(|| format!("epoch {epoch}: nothing at {offset} of {range:?}"))?;
                    self.sold(range, offset, given);
                } else {
                    let given = names.at(range.id.partition, offset);
                    let given =
                        given.ok_or_else(|| format!("epoch {epoch}: nothing at {offset} of {range:?}"))?;
                    self.named(range, offset, given);
                }
            }
            let stands = self.stands(range);
            (stands.hi, stands.idle) = (range.hi, range.idle);
            let max = stands.max.map_or(EventTime::MIN, EventTime);
            if range.id.source == SourceId::of("sales") && range.event_time_max != max {
                return Err(format!(
                    "epoch {epoch}: {range:?}, and its highest event time is {max:?}"
                ));
            }
        }
        self.close(binding)?;
        self.rows.insert(epoch, self.now());
        self.bindings.push(binding.clone());
        Ok(())
    }

    fn stands(&mut self, range: &PartitionRange) -> &mut Stands {
        let at = (range.id.source, range.id.partition);
        self.partitions.entry(at).or_default()
    }

    fn sold(&mut self, range: &PartitionRange, offset: Offset, given: TopicRecord<Sale>) {
        let at = |step| (range.id.partition, offset, step);
        let sale = match given {
            Err(cause) => {
                self.letters[0].insert(at("sales"), cause.code());
                return;
            }
            Ok(sale) if EventTime(sale.at_us) > range.limit => {
                self.letters[0].insert(at("sales"), Cause::EventTimeFarFuture.code());
                return;
            }
            Ok(sale) => sale,
        };
        let before = self.watermark;
        let stands = self.stands(range);
        let horizon = stands.max.map(|max| max - LATENESS_US).max(before);
        stands.max = stands.max.max(Some(sale.at_us));
        let total = self.totals.entry(sale.shop).or_default();
        (total.0, total.1) = (total.0 + 1, total.1 + sale.cents);
        let start = sale.at_us.div_euclid(WINDOW_US) * WINDOW_US;
        if horizon.is_some_and(|horizon| start + WINDOW_US <= horizon) {
            self.letters[0].insert(at("spans"), Cause::Late.code());
            return;
        }
        let window = self.windows.entry((sale.shop, start));
        let window = window.or_insert((0, 0, i64::MIN));
        *window = (window.0 + 1, window.1 + sale.cents, window.2.max(sale.cents));
    }

    fn named(&mut self, range: &PartitionRange, offset: Offset, given: TopicRecord<Naming>) {
        match given {
            Err(cause) => {
                let at = (range.id.partition, offset, "names");
                self.letters[1].insert(at, cause.code());
            }
            Ok((shop, Some(name))) => _ = self.names.insert(shop, name),
            Ok((shop, None)) => _ = self.names.remove(&shop),
        }
    }

    /// The watermark rises as the rules have it, and windows go.
    fn close(&mut self, binding: &EpochBinding) -> Checked {
        let before = self.watermark;
        let of_sales = self
            .partitions
            .iter()
            .filter(|((source, _), _)| *source == SourceId::of("sales"));
        let counting = of_sales.filter(|(_, stands)| !stands.idle && stands.max.is_some());
        let low = counting.filter_map(|(_, stands)| stands.max).min();
        let bound = binding
            .watermarks
            .iter()
            .find(|(source, _)| *source == SourceId::of("sales"));
        match bound.map(|(_, watermark)| watermark.micros()) {
            None => {}
            Some(bound) if Some(bound) <= before || low.is_none_or(|low| low - LATENESS_US != bound) => {
                return Err(format!(
                    "epoch {}: watermark {bound}, after {before:?}, and the least of those that count is \
                        {low:?}",
                    binding.epoch
                ));
            }
            Some(bound) => self.watermark = Some(bound),
        }
        if let Some(watermark) = self.watermark {
            self.windows
                .retain(|(_, start), _| start + WINDOW_US + KEEP_US > watermark);
        }
        Ok(())
    }

    fn now(&self) -> Rows {
        let window = |shop: u32, start: i64| {
            let (start, end) = (EventTime(start), EventTime(start + WINDOW_US));
            format!("\"shop\":{shop},\"window_start\":\"{start}\",\"window_end\":\"{end}\"")
        };
        let spans = self.windows.iter().map(|((shop, start), (n, sum, max))| {
            format!(
                "{{{},\"n\":{n},\"sum\":{sum},\"max\":{max}}}",
                window(*shop, *start)
            )
        });
        let named = self.windows.iter().map(|((shop, start), (n, ..))| {
            let name = self.names.get(shop);
            let name = name.map_or("null".to_owned(), |name| format!("\"{name}\""));
            format!("{{{},\"n\":{n},\"name\":{name}}}", window(*shop, *start))
        });
        let totals = self.totals.iter();
        let totals = totals.map(|(shop, (n, sum))| format!("{{\"shop\":{shop},\"n\":{n},\"sum\":{sum}}}"));
        let names = self.names.iter();
        let names = names.map(|(shop, name)| format!("{{\"key\":{shop},\"name\":\"{name}\"}}"));
        let letters = |of: usize| -> Vec<String> {
            let letters = self.letters[of].iter();
            letters
                .map(|((partition, offset, step), cause)| format!("{partition}/{offset} {step} {cause}"))
                .collect()
        };
        BTreeMap::from([
            ("spans_now", spans.collect()),
            ("named_now", named.collect()),
            ("totals_now", totals.collect()),
            ("names_now", names.collect()),
            ("sales.dead_letters", letters(0)),
            ("names.dead_letters", letters(1)),
        ])
    }
}
