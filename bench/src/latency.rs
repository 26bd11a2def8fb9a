//! Freshness, open loop: the generator keeps its schedule whatever the service does, and the age of a record
//! counts from the moment at which it was to be produced to the moment at which a reader of the view can see
//! it.
//!
//! ```text
//!   schedule ─▶ generator ─▶ Kafka ─▶ Thalweg ─▶ closed snapshot ─▶ follower: every offset newly covered, now − scheduled
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::producer::{BaseProducer, Producer as _};
use serde_json::{Value, json};
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::Result;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;
use thalweg::view::Views;
use thalweg::{Error, clock};

use crate::events::{Answer, Event, PARTITIONS, splitmix};
use crate::kafka;
use crate::measure::{Meter, cpu_seconds_of, record};
use crate::tumble::{flow, topic_of};

#[derive(clap::Args)]
pub struct Arguments {
    /// The broker.
    #[arg(long)]
    kafka: String,
    /// Events a second.
    #[arg(long, value_delimiter = ',', default_value = "20000,200000")]
    rates: Vec<u64>,
    /// How long to measure, after the warm-up.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Not counted.
    #[arg(long, default_value_t = 3)]
    warm_up_seconds: u64,
    /// How many keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Properties of the reader, `name=value`.
    #[arg(long)]
    property: Vec<String>,
    /// Where the ledger lies. On a file system in memory, what the disk adds is left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Without the service: a bare consumer in its place, for what producer, broker and fetch take.
    #[arg(long)]
    bare: bool,
    /// The broker's process, to tell what it used.
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// When which event is to be produced.
#[derive(Clone, Copy)]
pub struct Schedule {
    start: Instant,
    start_ms: i64,
    rate: u64,
    keys: u64,
    events: u64,
}

impl Schedule {
    /// Begins a moment from now.
    pub fn new(rate: u64, keys: u64, seconds: u64) -> Self {
        let ahead = Duration::from_millis(200);
        let start_ms = clock::now().plus(ahead).millis();
        Self {
            start: clock::instant() + ahead,
            start_ms,
            rate,
            keys,
            events: rate * seconds,
        }
    }

    /// Notes the age of a record that became visible at `now`, unless it was due before `warm_up` was over.
    fn note_age(
        &self,
        (partition, offset): (usize, u64),
        now: Instant,
        warm_up: Duration,
        ages: &mut Histogram<u64>,
    ) {
        let after = self.after(offset * PARTITIONS as u64 + partition as u64);
        if after >= warm_up {
            let age = now.saturating_duration_since(self.start + after);
            ages.saturating_record(age.as_micros().max(1) as u64);
        }
    }

    fn after(&self, i: u64) -> Duration {
        Duration::from_nanos((u128::from(i) * 1_000_000_000 / u128::from(self.rate)) as u64)
    }

    fn event(&self, i: u64) -> Event {
        let draw = splitmix(i);
        let ts = self.start_ms + self.after(i).as_millis() as i64;
        Event {
            ts,
            key: draw % self.keys,
            amount: (draw >> 50) as i64 % 1_000,
        }
    }

    /// Starts producing.
    pub fn produce(self, servers: &str, topic: &str) -> Result<JoinHandle<Result<()>>> {
        // librdkafka sends a request for each partition. With more of them under way, or sent sooner, the
        // broker has more requests than it keeps up with on a core or two, or the producer spins meanwhile:
        // then both are measured, and not the service. `--bare` shows what is left.
        let producer: BaseProducer = kafka::config(servers)
            .set("linger.ms", "2")
            .set("max.in.flight.requests.per.connection", "2")
            .set("queue.buffering.max.messages", "1000000")
            .set("enable.idempotence", "true")
            .set("socket.nagle.disable", "true")
            .create()?;
        let topic = topic.to_owned();
        let thread = std::thread::Builder::new().name("generator".into());
        Ok(thread.spawn(move || {
            let (mut i, mut payload) = (0, Vec::new());
            while i < self.events {
                let due = self.start + self.after(i);
                let now = clock::instant();
                if due > now {
                    std::thread::sleep((due - now).max(Duration::from_micros(300)));
                    producer.poll(Duration::ZERO);
                    continue;
                }
                payload.clear();
                serde_json::to_writer(&mut payload, &self.event(i))?;
                kafka::send(&producer, &topic, i, &payload)?;
                i += 1;
            }
            producer.flush(Duration::from_secs(30))?;
            Ok(())
        })?)
    }
}

/// A service on a topic of its own.
pub struct Fixture {
    pub service: Service,
    pub topic: String,
    pub dir: tempfile::TempDir,
}

impl Fixture {
    /// Makes the topic and waits until the service reads it.
    pub fn start(
        servers: &str,
        what: &str,
        workers: usize,
        properties: &[String],
        dir: Option<&Path>,
    ) -> Result<Self> {
        let topic = format!("bench.{what}.{:x}", clock::nonce());
        kafka::make_topic(servers, &topic)?;
        let dir = match dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let property = |text: &String| text.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let settings = RunSettings {
            workers,
            store: LedgerLocation::Directory(dir.path().join("ledger")),
            env: Environment {
                connectors: Extensions::of(KafkaSettings {
                    properties: properties.iter().filter_map(property).collect(),
                    ..KafkaSettings::at(servers)
                }),
                group: "bench".into(),
                ..Environment::default()
            },
            ..RunSettings::default()
        };
        let of = topic.clone();
        let service = Service::start(&flow(move |()| topic_of(&of), true, || None), settings)?;
        let asked = clock::instant();
        while !service.is_live() {
            if let Some(error) = service.halt().error() {
                return Err(error);
            }
            if clock::instant() - asked > Duration::from_secs(20) {
                return Err(Error::external("the service does not become live"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { service, topic, dir })
    }
}

/// Measures at each rate.
pub fn latency(arguments: &Arguments) -> Result<()> {
    println!(
        "| events/s | p50 ms | p99 ms | p99.9 ms | max ms | epochs/s | an epoch, open to closed, ms | a ledger \
            flush, ms | flushes over {} ms | CPU of a core: all | of it the broker |",
        STALL_SECONDS * 1e3
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for rate in &arguments.rates {
        let line = measure(arguments, *rate)?;
        let ms = |field: &str| line[field].as_f64().unwrap_or(f64::NAN) / 1e3;
        println!(
            "| {rate} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {:.1} | {} | {:.2} | {:.2} |",
            ms("p50_us"),
            ms("p99_us"),
            ms("p999_us"),
            ms("max_us"),
            line["epochs_per_s"].as_f64().unwrap_or(f64::NAN),
            ms("epoch_us"),
            ms("flush_us"),
            line["flushes_stalled"],
            line["cores_used"].as_f64().unwrap_or(f64::NAN)
                + line["cores_used_broker"].as_f64().unwrap_or(0.0),
            line["cores_used_broker"].as_f64().unwrap_or(f64::NAN)
        );
        eprintln!("{line}");
        record(arguments.out.as_deref(), line)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, rate: u64) -> Result<Value> {
    if arguments.bare {
        return measure_bare(arguments, rate);
    }
    let servers = &arguments.kafka;
    let fixture = Fixture::start(
        servers,
        "latency",
        arguments.workers,
        &arguments.property,
        arguments.dir.as_deref(),
    )?;
    let schedule = Schedule::new(
        rate,
        arguments.keys,
        arguments.warm_up_seconds + arguments.seconds,
    );
    let warm_up = Duration::from_secs(arguments.warm_up_seconds);
    let meter = Meter::start();
    let broker = arguments.broker_pid.and_then(cpu_seconds_of);
    let given_up = Arc::new(AtomicBool::new(false));
    let follower = follow(
        fixture.service.views().clone(),
        schedule,
        warm_up,
        given_up.clone(),
    )?;
    let generator = schedule.produce(servers, &fixture.topic)?;
    let joined = |_| Error::internal("a thread panicked");
    generator.join().map_err(joined)??;
    let ages = follower.join().map_err(joined)??;
    meter.stop();
    let used = meter.used()?;
    let broker = Some(arguments.broker_pid.and_then(cpu_seconds_of).unwrap_or(0.0) - broker.unwrap_or(0.0));

    let views = fixture.service.views().clone();
    let snapshot = views
        .closed()
        .ok_or_else(|| Error::internal("no epoch was closed"))?;
    Answer::of((0..schedule.events).map(|i| schedule.event(i))).check(&views, &snapshot, Some("spend"))?;
    let stages = Stages::of(&fixture.service.metrics().text());
    fixture.service.stop();
    fixture.service.join()?;
    kafka::delete_topic(servers, &fixture.topic)?;
    let seconds = used.wall.as_secs_f64();
    Ok(json!({
        "question": "latency", "rate": rate, "workers": arguments.workers, "keys": arguments.keys,
        "properties": arguments.property, "seconds": arguments.seconds, "counted": ages.len(),
        "p50_us": ages.value_at_quantile(0.5), "p99_us": ages.value_at_quantile(0.99),
        "p999_us": ages.value_at_quantile(0.999), "max_us": ages.max(),
        "cores_used": used.cpu_seconds / seconds, "cores_used_broker": broker.map(|cpu| cpu / seconds),
        "threads": used.threads, "dir": arguments.dir, "flushes": stages.flushes,
        "flushes_stalled": stages.flushes_stalled, "flush_us": stages.flush_us,
        "epochs_per_s": stages.epochs as f64 / seconds, "epoch_us": stages.epoch_us,
    }))
}

/// As [`measure`], with a bare consumer that decodes nothing.
fn measure_bare(arguments: &Arguments, rate: u64) -> Result<Value> {
    let servers = &arguments.kafka;
    let topic = format!("bench.bare.{:x}", clock::nonce());
    kafka::make_topic(servers, &topic)?;
    let schedule = Schedule::new(
        rate,
        arguments.keys,
        arguments.warm_up_seconds + arguments.seconds,
    );
    let warm_up = Duration::from_secs(arguments.warm_up_seconds);
    let meter = Meter::start();
    let broker = arguments.broker_pid.and_then(cpu_seconds_of);
    let generator = schedule.produce(servers, &topic)?;
    let mut ages = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    kafka::follow(servers, &topic, schedule.events, |partition, offset| {
        schedule.note_age((partition, offset), clock::instant(), warm_up, &mut ages);
    })?;
    let joined = |_| Error::internal("a thread panicked");
    generator.join().map_err(joined)??;
    meter.stop();
    let used = meter.used()?;
    let broker = Some(arguments.broker_pid.and_then(cpu_seconds_of).unwrap_or(0.0) - broker.unwrap_or(0.0));
    kafka::delete_topic(servers, &topic)?;
    let seconds = used.wall.as_secs_f64();
    Ok(json!({
        "question": "latency", "bare": true, "rate": rate, "seconds": arguments.seconds, "counted": ages.len(),
        "p50_us": ages.value_at_quantile(0.5), "p99_us": ages.value_at_quantile(0.99),
        "p999_us": ages.value_at_quantile(0.999), "max_us": ages.max(),
        "cores_used": used.cpu_seconds / seconds, "cores_used_broker": broker.map(|cpu| cpu / seconds),
    }))
}

/// A flush of the ledger that takes longer than this is the disk's doing, and reaches whoever waits for the
/// epoch.
const STALL_SECONDS: f64 = 0.025;

/// Where time goes between a record's being read and its being visible, from the service's own metrics.
struct Stages {
    epochs: u64,
    /// The mean, from opened to closed.
    epoch_us: f64,
    flushes: u64,
    flushes_stalled: u64,
    /// The mean.
    flush_us: f64,
}

impl Stages {
    fn of(metrics: &str) -> Self {
        let of = |name: String| {
            let line = metrics.lines().find(|line| line.contains(&name));
            let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            value.unwrap_or(0.0)
        };
        let histogram = |name: &str| {
            let (sum, count) = (of(format!("{name}_sum")), of(format!("{name}_count")));
            (count as u64, 1e6 * sum / count)
        };
        let (epochs, epoch_us) = histogram("epoch_duration_seconds");
        let (flushes, flush_us) = histogram("ledger_append_duration_seconds");
        let quick = of(format!(
            "ledger_append_duration_seconds_bucket{{le=\"{STALL_SECONDS}\""
        ));
        Self {
            epochs,
            epoch_us,
            flushes,
            flushes_stalled: flushes - quick as u64,
            flush_us,
        }
    }
}

/// Follows the closed moments until all events are in.
fn follow(
    views: Arc<Views>,
    schedule: Schedule,
    warm_up: Duration,
    given_up: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<Histogram<u64>>>> {
    let thread = std::thread::Builder::new().name("follower".into());
    Ok(thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async move {
            let mut ages = Histogram::new_with_bounds(1, 600_000_000, 3)?;
            let mut covered = [0u64; PARTITIONS];
            let mut snapshots = views.subscribe();
            while covered.iter().sum::<u64>() < schedule.events && !given_up.load(Ordering::Relaxed) {
                let wait = Duration::from_secs(30);
                match tokio::time::timeout(wait, snapshots.changed()).await {
                    Ok(changed) => changed?,
                    Err(_) => {
                        return Err(Error::external(format!(
                            "nothing new for {wait:?}, {covered:?} are in"
                        )));
                    }
                }
                let snapshot = snapshots.borrow_and_update().clone();
                let (Some(snapshot), now) = (snapshot, clock::instant()) else {
                    continue;
                };
                for (partition, covered) in covered.iter_mut().enumerate() {
                    let id = PartitionId {
                        source: SourceId::of("events"),
                        partition: partition as u32,
                    };
                    let upto = snapshot.position(id).unwrap_or(0) as u64;
                    for offset in *covered..upto {
                        schedule.note_age((partition, offset), now, warm_up, &mut ages);
                    }
                    *covered = upto.max(*covered);
                }
            }
            Ok(ages)
        })
    })?)
}
