//! What the views have to hold, from the topics alone: one pass over the log, nothing clever.
//!
//! Nothing of the engine is used. What it has to agree on is written down here a second time.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::flow;
use super::load::Topics;
use crate::support::kafka::Consumed;

/// The rows of each view, in one text form: fields by name, times in microseconds.
pub type Rows = BTreeMap<String, BTreeSet<String>>;

const FAR_MS: i64 = 4_000_000_000_000;
const YEAR_1_MS: i64 = -62_135_596_800_000;

#[derive(Clone, Copy)]
struct Payment {
    id: i64,
    merchant: i64,
    cents: i64,
    at_ms: i64,
}

/// Why a record can't be counted: the cause's code, and the schema id that it named.
type Refusal = (&'static str, Option<u32>);

/// Count, sum, greatest.
type Aggregates = BTreeMap<(i64, i64), (u64, i128, i64)>;

/// The first offset of a topic's partition that does not count.
pub type Upto<'a> = &'a dyn Fn(&str, i32) -> i64;

struct Oracle<'a> {
    log: &'a Log<'a>,
    upto: Upto<'a>,
    parsed: BTreeMap<u32, Schema>,
    rows: Rows,
}

/// The topics' records, read once.
pub struct Log<'a> {
    topics: &'a Topics<'a>,
    /// Partitions of payments that never have a record, and are idle: no watermark waits for them.
    idle: usize,
    payments: Vec<Consumed>,
    merchants: Vec<Consumed>,
}

/// What every view of `flow::spend` holds once all of the topics is counted.
pub fn expected(topics: &Topics<'_>) -> Rows {
    Log::read(topics).expected(&|_, _| i64::MAX)
}

impl<'a> Log<'a> {
    /// Reads all that is in the topics now.
    pub fn read(topics: &'a Topics<'a>) -> Self {
        let records = |topic| topics.broker.records(topic);
        Self {
            topics,
            idle: 0,
            payments: records(&topics.payments),
            merchants: records(&topics.merchants),
        }
    }

    /// The same where so many partitions never have a record, and are idle.
    pub fn idle(self, idle: usize) -> Self {
        Self { idle, ..self }
    }

    /// All payments that become events, as JSON, by the partition that they are in and in its order.
    pub fn events(&self) -> BTreeMap<i32, Vec<String>> {
        let oracle = self.oracle(&|_, _| i64::MAX);
        let mut events = BTreeMap::<i32, Vec<String>>::new();
        for record in &self.payments {
            if let Ok(payment) = oracle.payment(record) {
                events.entry(record.partition).or_default().push(payment.json());
            }
        }
        events
    }

    /// What the views hold when a part of the topics is counted.
    pub fn expected(&self, upto: Upto<'_>) -> Rows {
        let mut oracle = self.oracle(upto);
        let merchants = oracle.merchants();
        oracle.payments(&merchants);
        oracle.rows
    }

    fn oracle<'b>(&'b self, upto: Upto<'b>) -> Oracle<'b> {
        let parse = |text: &&str| Schema::parse_str(text).expect("the schemas are right");
        let parsed = self
            .topics
            .schemas
            .iter()
            .map(|(id, text)| (*id, parse(text)))
            .collect();
        let rows = flow::VIEWS
            .iter()
            .map(|view| ((*view).to_owned(), BTreeSet::new()))
            .collect();
        Oracle {
            log: self,
            upto,
            parsed,
            rows,
        }
    }
}

impl Payment {
    fn json(self) -> String {
        let Self {
            id,
            merchant,
            cents,
            at_ms,
        } = self;
        format!(r#"{{"id":{id},"merchant":{merchant},"cents":{cents},"at_ms":{at_ms}}}"#)
    }
}

impl<'a> Oracle<'a> {
    fn counted(
        &self,
        topic: &'a str,
        records: &'a [Consumed],
    ) -> impl Iterator<Item = &'a Consumed> + use<'a> {
        let upto = self.upto;
        records
            .iter()
            .filter(move |record| record.offset < upto(topic, record.partition))
    }

    fn add(&mut self, view: &str, row: Value) {
        let new = self
            .rows
            .get_mut(view)
            .expect("all views are known")
            .insert(row.to_string());
        assert!(new, "the oracle itself has a row twice");
    }

    /// The schema's id and the datum, or the cause why not.
    fn split<'b>(&self, bytes: &'b [u8]) -> Result<(u32, &'b [u8]), Refusal> {
        if bytes.is_empty() || (bytes[0] == 0 && bytes.len() < 5) {
            return Err(("wire_truncated", None));
        }
        if bytes[0] != 0 {
            return Err(("wire_magic", None));
        }
        let id = u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes"));
        if !self.parsed.contains_key(&id) {
            return Err(("schema_unknown", Some(id)));
        }
        Ok((id, &bytes[5..]))
    }

    fn datum(&self, bytes: &[u8]) -> Result<(u32, Avro), Refusal> {
        let (id, mut datum) = self.split(bytes)?;
        let reader = GenericDatumReader::builder(&self.parsed[&id])
            .build()
            .expect("the schemas are right");
        // The library takes a text that was cut off for a null, hence the second look.
        match reader.read_value(&mut datum) {
            Ok(value) if datum.is_empty() && value.validate(&self.parsed[&id]) => Ok((id, value)),
            _ => Err(("avro_invalid", Some(id))),
        }
    }

    fn letter(&mut self, view: &str, topic: &str, step: &str, record: &Consumed, cause: (&str, Option<u32>)) {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        self.add(
            view,
            json!({
                "partition": record.partition, "offset": record.offset, "step": step, "topic": topic,
                "cause": cause.0, "detail": null, "schema": cause.1, "timestamp": record.ts_ms.map(|ms| ms * 1000),
                "key": bytes(&record.key), "payload": bytes(&record.value),
            }),
        );
    }

    fn merchants(&mut self) -> BTreeMap<i64, (String, String)> {
        let log = self.log;
        let topic = &log.topics.merchants;
        let mut table = BTreeMap::new();
        for record in self.counted(topic, &log.merchants) {
            match self.merchant(record) {
                Ok((key, Some(row))) => _ = table.insert(key, row),
                Ok((key, None)) => _ = table.remove(&key),
                Err(cause) => self.letter("merchants.dead_letters", topic, "merchants", record, cause),
            }
        }
        for (key, (name, country)) in &table {
            self.add(
                "merchants_now",
                json!({ "merchant": key, "name": name, "country": country }),
            );
        }
        table
    }

    fn merchant(&self, record: &Consumed) -> Result<(i64, Option<(String, String)>), Refusal> {
        let key = record.key.as_ref().ok_or(("key_missing", None))?;
        let (id, key) = self.datum(key).map_err(|(_, schema)| ("key_invalid", schema))?;
        let key = match key {
            Avro::Int(key) if key >= 0 => i64::from(key),
            _ => return Err(("key_invalid", Some(id))),
        };
        let Some(payload) = &record.value else {
            return Ok((key, None));
        };
        let (id, value) = self.datum(payload)?;
        match (field(&value, "name"), field(&value, "country")) {
            (Some(Avro::String(name)), Some(Avro::String(country))) => Ok((key, Some((name, country)))),
            _ => Err(("schema_incompatible", Some(id))),
        }
    }

    fn payment(&self, record: &Consumed) -> Result<Payment, Refusal> {
        let payload = record.value.as_ref().ok_or(("payload_missing", None))?;
        let (id, value) = self.datum(payload)?;
        let number = |name: &str| match field(&value, name) {
            Some(Avro::Long(n)) => Some(n),
            Some(Avro::Int(n)) => Some(i64::from(n)),
            _ => None,
        };
        let read = || {
            Some(Payment {
                id: number("id")?,
                merchant: number("merchant").filter(|id| *id >= 0)?,
                cents: number("cents")?,
                at_ms: number("at_ms")?,
            })
        };
        let payment = read().ok_or(("schema_incompatible", Some(id)))?;
        match payment.at_ms {
            FAR_MS.. => Err(("event_time_far_future", None)),
            ..YEAR_1_MS => Err(("event_time_invalid", None)),
            _ => Ok(payment),
        }
    }

    fn payments(&mut self, merchants: &BTreeMap<i64, (String, String)>) {
        let log = self.log;
        let topic = &log.topics.payments;
        let lateness = flow::LATENESS.as_millis() as i64;
        let steps =
            [("spend", flow::SPEND), ("lanes", flow::LANES)].map(|(n, size)| (n, size.as_millis() as i64));
        let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
        let (mut spend, mut lanes) = (Aggregates::new(), Aggregates::new());
        for record in self.counted(topic, &log.payments) {
            let payment = match self.payment(record) {
                Ok(payment) => payment,
                Err(cause) => {
                    self.letter("payments.dead_letters", topic, "payments", record, cause);
                    continue;
                }
            };
            let Payment {
                merchant,
                cents,
                at_ms,
                ..
            } = payment;
            // The partition's own watermark as of the record before.
            let horizon = newest.get(&record.partition).map(|newest| newest - lateness);
            for (step, size) in steps {
                let start = at_ms.div_euclid(size) * size;
                if horizon.is_some_and(|horizon| start + size <= horizon) {
                    let value = payment.json().into_bytes();
                    let late = Consumed {
                        key: None,
                        value: Some(value),
                        ts_ms: Some(at_ms),
                        ..record.clone()
                    };
                    self.letter("payments.dead_letters", topic, step, &late, ("late", None));
                    continue;
                }
                let (into, key) = match step {
                    "spend" => (&mut spend, merchant),
                    _ => (&mut lanes, merchant % i64::from(flow::LANES_MAX)),
                };
                let (n, total, top) = into.entry((key, start)).or_insert((0, 0, i64::MIN));
                (*n, *total, *top) = (*n + 1, *total + i128::from(cents), cents.max(*top));
            }
            let newest = newest.entry(record.partition).or_insert(at_ms);
            *newest = at_ms.max(*newest);
        }
        let partitions = 4 - log.idle;
        let watermark = (newest.len() == partitions).then(|| newest.values().min().expect("some") - lateness);
        self.windows(&spend, &lanes, merchants, watermark);
    }

    fn windows(
        &mut self,
        spend: &Aggregates,
        lanes: &Aggregates,
        merchants: &BTreeMap<i64, (String, String)>,
        watermark: Option<i64>,
    ) {
        let us = |ms: i64| ms * 1000;
        let size = flow::SPEND.as_millis() as i64;
        for ((merchant, start), (n, total, top)) in spend {
            let kept_until = start + size + flow::SPEND_KEEP.as_millis() as i64;
            if watermark.is_some_and(|watermark| kept_until <= watermark) {
                continue;
            }
            let (start, end, total) = (us(*start), us(start + size), *total as i64);
            let row = json!({ "merchant": merchant, "window_start": start, "window_end": end, "n": n, "total": total, "top": top });
            if let Some((name, country)) = merchants.get(merchant) {
                let mut named = row.clone();
                (named["name"], named["country"]) = (json!(name), json!(country));
                self.add("merchant_spend", named);
            }
            self.add("minute_spend", row);
        }
        let size = flow::LANES.as_millis() as i64;
        for ((lane, start), (n, total, _)) in lanes {
            let (start, end, total) = (us(*start), us(start + size), *total as i64);
            self.add(
                "lane_spend",
                json!({ "lane": lane, "window_start": start, "window_end": end, "n": n, "total": total }),
            );
        }
    }
}

fn field(value: &Avro, name: &str) -> Option<Avro> {
    let Avro::Record(fields) = value else { return None };
    fields
        .iter()
        .find(|(field, _)| field == name)
        .map(|(_, value)| value.clone())
}

/// A view's row in the oracle's form.
pub fn normal(row: &str) -> String {
    let mut row: Value =
        serde_json::from_str(row).unwrap_or_else(|error| panic!("{row} is no JSON: {error}"));
    for name in ["window_start", "window_end", "timestamp"] {
        if let Some(Value::String(text)) = row.get(name) {
            let time: jiff::Timestamp = text
                .parse()
                .unwrap_or_else(|error| panic!("{text} is no time: {error}"));
            row[name] = json!(time.as_microsecond());
        }
    }
    row.to_string()
}

/// Fails with the first rows that differ.
pub fn compare(expected: &Rows, found: &Rows) {
    let mut differences = Vec::new();
    for (view, rows) in expected {
        let none = BTreeSet::new();
        let found = found.get(view).unwrap_or(&none);
        let (missing, odd) = (rows.difference(found), found.difference(rows));
        let counts = (
            rows.len(),
            found.len(),
            missing.clone().count(),
            odd.clone().count(),
        );
        if (counts.2, counts.3) != (0, 0) {
            differences.push(format!(
                "{view}: {} rows expected, {} found, {} missing, {} odd",
                counts.0, counts.1, counts.2, counts.3
            ));
            differences.extend(missing.take(5).map(|row| format!("  missing {row}")));
            differences.extend(odd.take(5).map(|row| format!("  odd     {row}")));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
