//! Half an hour at half the top rate, with a checkpoint every few seconds: does anything grow that should
//! not?
//!
//! ```text
//!   as fast as it goes, for a snapshot ─▶ top rate ─▶ half of it for --minutes ─▶ a sample every few seconds
//!                                                                             ├─▶ samples.jsonl, endurance.svg
//!                                                                             └─▶ last third against middle third
//! ```
//!
//! Windows that expire, a table whose rows change, a join of both, and two views with short histories: the
//! state is level once the first windows have gone, so whatever rises after that is a leak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;
use serde_json::{Value, json};
use thalweg::checkpoint::store::CheckpointStore;
use thalweg::demo::generator::Generator;
use thalweg::disk::HostDisk;
use thalweg::position::{Offset, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::CheckpointSchedule;
use thalweg::runtime::{self, RunSettings, Service, checkpoints};
use thalweg::view::serve::RowsQuery;
use thalweg::{Flow, clock, prelude::Result};

use crate::measure::{cpu_seconds, record};

#[derive(clap::Args)]
pub struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Records a second; left out: half of what goes through at most.
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// From one checkpoint to the next.
    #[arg(long, default_value_t = 3.0)]
    checkpoint_s: f64,
    /// Where samples and plot go; ledger and checkpoints are made there, too, and removed.
    #[arg(long, default_value = "endurance")]
    out: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Payment {
    account: u32,
    cents: i64,
    at: i64,
}

const PARTITIONS: u32 = 4;
const ACCOUNTS: u64 = 20_000;
/// Of so many payments one changes an account.
const PAYMENTS_A_CHANGE: u64 = 20;
const WINDOW: Duration = Duration::from_secs(10);
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Rates are multiples of this, so that every window holds the same number of records.
const RATE_STEP: u64 = 1_000;

/// Spreads numbers (splitmix64's last steps).
fn spread(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn flow(start: EventTime, rate: u64) -> Flow {
    dataflow("endurance", move |flow: Dataflow| {
        let payment = move |partition: u32, offset: Offset| {
            let n = offset as u64 * u64::from(PARTITIONS) + u64::from(partition);
            Payment {
                account: (spread(n) % ACCOUNTS) as u32,
                cents: (n % 10_000) as i64,
                at: start.0 + (offset as u64 * u64::from(PARTITIONS) * 1_000_000 / rate) as i64,
            }
        };
        let payments = Generator::new(PARTITIONS, payment).rate(rate).starting_at(start);
        let account = |_: u32, offset: Offset| {
            let n = spread(offset as u64 ^ 0x5eed);
            (
                (n % ACCOUNTS) as u32,
                (!n.is_multiple_of(101)).then(|| format!("account {n:x}")),
            )
        };
        let accounts = Generator::new(1, account)
            .rate(rate / PAYMENTS_A_CHANGE)
            .starting_at(start);
        let accounts = flow.table::<u32, String>("accounts", accounts);
        let payments = payments.event_time(|payment| EventTime(payment.at));
        flow.source("payments", payments.lateness(Duration::from_secs(1)))
            .key_by("account", |payment| payment.account)
            .window("spend", Tumbling::of(WINDOW))
            .keep(WINDOW * 3)
            .aggregate(|a| (a.count(), a.sum(|payment| payment.cents)))
            .view_with("spend_view", |view| view.fields(["n", "cents"]))
            .left_join("named", &accounts, |_, (_, cents), name| (cents, name.cloned()))
            .view_with("named_view", |view| view.fields(["cents", "name"]));
    })
}

fn settings(arguments: &Arguments, dir: &Path) -> RunSettings {
    let store = CheckpointStore::new(std::sync::Arc::new(HostDisk), &dir.join("checkpoints"));
    let interval = Duration::from_secs_f64(arguments.checkpoint_s);
    RunSettings {
        workers: arguments.workers,
        store: runtime::LedgerLocation::Directory(dir.to_owned()),
        history: Duration::from_secs(5),
        checkpoints: Some(checkpoints::CheckpointSettings::new(
            store,
            CheckpointSchedule::Every(interval),
        )),
        ..RunSettings::default()
    }
}

fn now() -> EventTime {
    clock::now()
}

/// Records a second when there are always more.
fn top_rate(arguments: &Arguments) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let start = EventTime(now().0 - 3_600_000_000);
    let service = Service::start(&flow(start, 20_000_000), settings(arguments, dir.path()))?;
    let counted = |service: &Service| {
        let payments = SourceId::of("payments");
        let snapshot = service.views().closed();
        let positions = snapshot.iter().flat_map(|snapshot| snapshot.positions.iter());
        let of = positions.filter(|(id, _)| id.source == payments);
        of.map(|(_, at)| *at as f64).sum::<f64>()
    };
    std::thread::sleep(Duration::from_secs(5));
    let (before, begun) = (counted(&service), clock::instant());
    std::thread::sleep(Duration::from_secs(10));
    let rate = (counted(&service) - before) / (clock::instant() - begun).as_secs_f64();
    service.stop();
    service.join()?;
    Ok(rate as u64)
}

pub fn endurance(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.out)?;
    let rate = match arguments.rate {
        Some(rate) => rate,
        None => {
            let top = top_rate(arguments)?;
            println!("top rate {top} records a second");
            top / 2
        }
    };
    let rate = (rate / RATE_STEP).max(1) * RATE_STEP;
    let temp = tempfile::tempdir_in(&arguments.out)?;
    let start = EventTime(now().0 / 10_000_000 * 10_000_000);
    let service = Service::start(&flow(start, rate), settings(arguments, temp.path()))?;
    let until = clock::instant() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let begun = clock::instant();
    let (mut samples, mut before) = (Vec::new(), Buckets::default());
    while clock::instant() < until && !service.halt().is_halted() {
        std::thread::sleep(SAMPLE_EVERY);
        let seconds = (clock::instant() - begun).as_secs_f64();
        let mut sample = sample(&service, temp.path(), &mut before);
        sample["seconds"] = json!(seconds);
        record(Some(&arguments.out.join("samples.jsonl")), sample.clone())?;
        samples.push(sample);
    }
    check(&service, rate)?;
    let cpu = cpu_seconds() / (clock::instant() - begun).as_secs_f64();
    service.stop();
    service.join()?;
    plot(&samples, &arguments.out.join("endurance.svg"))?;
    println!(
        "{rate} records a second for {:.1} minutes, {cpu:.2} cores",
        arguments.minutes
    );
    println!(
        "{:<22} {:>14} {:>14} {:>14} {:>8}",
        "", "first third", "middle third", "last third", "ratio"
    );
    for (name, _) in PLOTTED {
        let third = |n: usize| median(&samples[samples.len() * n / 3..samples.len() * (n + 1) / 3], name);
        let (first, middle, last) = (third(0), third(1), third(2));
        println!(
            "{name:<22} {first:>14.3} {middle:>14.3} {last:>14.3} {:>8.3}",
            last / middle
        );
    }
    Ok(())
}

/// What is looked at, and how it is called.
const PLOTTED: [(&str, &str); 8] = [
    ("rss_mb", "memory, MB"),
    ("fds", "open files"),
    ("threads", "threads"),
    ("ledger_mb", "ledger, MB"),
    ("checkpoints_mb", "checkpoints, MB"),
    ("checkpoint_files", "checkpoints' files"),
    ("fresh_p99_ms", "freshness, p99, ms"),
    ("records_s", "records a second"),
];

/// A histogram and a counter as they were.
#[derive(Default)]
struct Buckets {
    upto: BTreeMap<u64, f64>,
    at: Option<std::time::Instant>,
}

fn sample(service: &Service, dir: &Path, before: &mut Buckets) -> Value {
    let metrics = service.metrics().text();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    let entries = |dir: &Path| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<_>>()
    };
    let bytes = |dir: &Path| {
        let lens = entries(dir).into_iter().filter_map(|entry| entry.metadata().ok());
        lens.filter(|of| of.is_file()).map(|of| of.len()).sum::<u64>() as f64 / 1e6
    };
    let upto: BTreeMap<u64, f64> = metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("thalweg_freshness_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound: f64 = bound.replace("+Inf", "1e6").parse().ok()?;
            Some(((bound * 1e6) as u64, count.parse().ok()?))
        })
        .collect();
    let (now, was) = (clock::instant(), before.at);
    let new: Vec<(u64, f64)> = upto
        .iter()
        .map(|(bound, count)| (*bound, count - before.upto.get(bound).unwrap_or(&0.0)))
        .collect();
    let all = new.last().map_or(0.0, |(_, count)| *count);
    let p99 = new
        .iter()
        .find(|(_, count)| *count >= all * 0.99)
        .map_or(0, |(bound, _)| *bound);
    let elapsed = was.map_or(SAMPLE_EVERY, |was| now - was).as_secs_f64();
    (before.upto, before.at) = (upto, Some(now));
    let checkpoints = dir.join("checkpoints");
    json!({
        "rss_mb": pages * 4096.0 / 1e6,
        "fds": entries(Path::new("/proc/self/fd")).len(),
        "threads": entries(Path::new("/proc/self/task")).len(),
        "ledger_mb": bytes(dir),
        "checkpoints_mb": bytes(&checkpoints),
        "checkpoint_files": entries(&checkpoints).len(),
        "fresh_p99_ms": p99 as f64 / 1e3,
        "records_s": all / elapsed,
    })
}

/// Every closed window that is kept holds as many records as were made for it.
fn check(service: &Service, rate: u64) -> Result<()> {
    let view = service.views().get("spend_view").expect("it was built");
    let snapshot = service
        .views()
        .closed()
        .ok_or_else(|| Error::internal("nothing was closed"))?;
    let (mut counts, mut cursor) = (BTreeMap::<i64, u64>::new(), None);
    loop {
        let query = RowsQuery {
            limit: 1_000,
            cursor: cursor.take(),
            ..RowsQuery::default()
        };
        let page = view
            .rows(&query, &snapshot)
            .map_err(|error| Error::internal(error.to_string()))?;
        for row in &page.rows {
            let mut json = Vec::new();
            view.schema().write_row(&row.row, Default::default(), &mut json);
            let row: Value = serde_json::from_slice(&json)
                .map_err(|error| Error::internal("a row is not JSON").detail(error))?;
            let start = row["window_start"].as_str().map(str::parse::<EventTime>);
            let Some(Ok(start)) = start else {
                return Err(Error::internal(format!("a row without a window: {row}")));
            };
            *counts.entry(start.0).or_default() += row["n"].as_u64().unwrap_or(0);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let watermark = snapshot.watermark(&[SourceId::of("payments")]);
    let micros = WINDOW.as_micros() as i64;
    let closed: Vec<_> = counts
        .iter()
        .filter(|(start, _)| *start + micros <= watermark.0)
        .collect();
    let wrong = closed.iter().find(|(_, n)| **n != rate * WINDOW.as_secs());
    if let Some((start, n)) = wrong {
        let made = rate * WINDOW.as_secs();
        return Err(Error::internal(format!(
            "the window of {start} has {n} records, not {made}"
        )));
    }
    if closed.is_empty() {
        return Err(Error::internal("no window was closed"));
    }
    println!(
        "{} closed windows hold {} records each, as made",
        closed.len(),
        rate * WINDOW.as_secs()
    );
    Ok(())
}

fn median(samples: &[Value], name: &str) -> f64 {
    let mut values: Vec<f64> = samples
        .iter()
        .filter_map(|sample| sample[name].as_f64())
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn plot(samples: &[Value], path: &Path) -> Result<()> {
    let failed =
        |error: &dyn std::fmt::Display| Error::internal("the plot can't be drawn").detail(error.to_string());
    let area = SVGBackend::new(path, (1_000, 1_200)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    for (cell, (name, title)) in area.split_evenly((4, 2)).iter().zip(PLOTTED) {
        let points: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|sample| Some((sample["seconds"].as_f64()? / 60.0, sample[name].as_f64()?)))
            .collect();
        let most = points.iter().fold(1.0, |most: f64, (_, y)| most.max(*y)) * 1.1;
        let end = points.last().map_or(1.0, |(x, _)| *x);
        let mut chart = ChartBuilder::on(cell)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..most)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc("minutes")
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(&error))?;
        chart
            .draw_series(LineSeries::new(points, &BLUE))
            .map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}
