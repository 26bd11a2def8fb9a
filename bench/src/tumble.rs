//! Windowed count and sum, in process and from Kafka.
//!
//! Every run is a process of its own, so that memory and processor time are its own, and checks its view row
//! by row.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use thalweg::checkpoint;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::disk::HostDisk;
use thalweg::position::{Offset, TopicId};
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service, checkpoints};
use thalweg::setting::extensions::Extensions;
use thalweg::source::{
    Driver, Environment, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, Source, TimeRules,
    Topology,
};
use thalweg::{Flow, prelude::Result};

use crate::events::{Answer, Event, LATENESS_MS, WINDOW_MS};
use crate::kafka;
use crate::measure::{Meter, StopAtDrop, Used, cpu_seconds_of, median, record};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many events; by default 20 M in process, 10 M from Kafka.
    #[arg(long)]
    events: Option<u64>,
    /// How many keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Reads them from this broker instead of from memory, next to a bare drain.
    #[arg(long)]
    kafka: Option<String>,
    /// The broker's process, to tell what it used.
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Runs of each kind, taking turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Numbers of workers to run with.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Runs in process also with a checkpoint every so many milliseconds.
    #[arg(long)]
    checkpoint_ms: Option<u64>,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One run.
#[derive(clap::Args)]
pub struct Run {
    /// `memory`, `kafka`, or `drain`.
    #[arg(long)]
    from: String,
    #[arg(long)]
    events: u64,
    #[arg(long)]
    keys: u64,
    #[arg(long, default_value = "")]
    kafka: String,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long)]
    no_view: bool,
    /// Properties of the reader, `name=value`.
    #[arg(long)]
    property: Vec<String>,
    /// Skips the check of the answer, for profiles.
    #[arg(long)]
    unchecked: bool,
    /// Milliseconds from one checkpoint to the next; 0: none.
    #[arg(long, default_value_t = 0)]
    checkpoint_ms: u64,
}

/// A kind of run, and what its runs came to.
struct Kind {
    name: String,
    arguments: Vec<String>,
    lines: Vec<Value>,
}

impl Kind {
    fn new(name: impl Into<String>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self {
            name: name.into(),
            arguments,
            lines: Vec::new(),
        }
    }

    fn median(&self, field: &str) -> f64 {
        median(
            self.lines
                .iter()
                .filter_map(|line| line[field].as_f64())
                .collect(),
        )
    }
}

/// Runs all kinds in turn and prints the medians.
pub fn tumble(arguments: &Arguments) -> Result<()> {
    let events = arguments.events.unwrap_or(if arguments.kafka.is_some() {
        10_000_000
    } else {
        20_000_000
    });
    let mut kinds = Vec::new();
    if let Some(servers) = &arguments.kafka {
        kafka::events_topic(servers, events, arguments.keys)?;
        kinds.push(Kind::new("drain", &["--from", "drain", "--kafka", servers]));
        for workers in &arguments.workers {
            let w = workers.to_string();
            kinds.push(Kind::new(
                format!("kafka, {w} worker(s)"),
                &["--from", "kafka", "--kafka", servers, "--workers", &w],
            ));
        }
    } else {
        for workers in &arguments.workers {
            let w = workers.to_string();
            let run = ["--from", "memory", "--workers", &w];
            kinds.push(Kind::new(format!("in process, {w} worker(s)"), &run));
            if let Some(ms) = arguments.checkpoint_ms {
                let ms = ms.to_string();
                kinds.push(Kind::new(
                    format!("in process, {w} worker(s), checkpoint every {ms} ms"),
                    &[&run[..], &["--checkpoint-ms", &ms]].concat(),
                ));
            }
            kinds.push(Kind::new(
                format!("in process, {w} worker(s), no view"),
                &[&run[..], &["--no-view"]].concat(),
            ));
        }
    }
    let (n, keys) = (events.to_string(), arguments.keys.to_string());
    for _ in 0..arguments.runs {
        for kind in &mut kinds {
            let broker = arguments.broker_pid.and_then(cpu_seconds_of);
            let mut line = child(
                &[
                    &["run", "--events", &n, "--keys", &keys].map(str::to_owned),
                    &kind.arguments[..],
                ]
                .concat(),
            )?;
            line["kind"] = json!(kind.name);
            if let (Some(before), Some(after)) = (broker, arguments.broker_pid.and_then(cpu_seconds_of)) {
                line["broker_cpu_seconds"] = json!(after - before);
            }
            eprintln!("{line}");
            record(arguments.out.as_deref(), line.clone())?;
            kind.lines.push(line);
        }
    }
    table(&kinds, events, arguments.keys);
    Ok(())
}

fn child(arguments: &[String]) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(
            Error::internal(format!("a run ended with {}", output.status)).detail(arguments.join(" "))
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn table(kinds: &[Kind], events: u64, keys: u64) {
    println!(
        "{events} events, {keys} keys, medians of {} runs",
        kinds.first().map_or(0, |kind| kind.lines.len())
    );
    println!("| what | M events/s | M events a CPU-second | of the first | peak RSS MB |");
    println!("|---|---|---|---|---|");
    let first = kinds
        .first()
        .map_or(f64::NAN, |kind| kind.median("events_per_second"));
    for kind in kinds {
        let (rate, efficiency) = (
            kind.median("events_per_second"),
            kind.median("events_per_cpu_second"),
        );
        let rss = kind.median("rss_peak_bytes") / 1e6;
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {rss:.0} |",
            kind.name,
            rate / 1e6,
            efficiency / 1e6,
            rate / first
        );
    }
}

/// Does one run and prints its figures as one line of JSON.
pub fn run(run: &Run) -> Result<()> {
    let mut line = match run.from.as_str() {
        "drain" => {
            let topic = kafka::events_topic(&run.kafka, run.events, run.keys)?;
            let (sum, used) = kafka::drain(&run.kafka, &topic, run.events)?;
            let expected: i64 = (0..run.events).map(|i| Event::nth(i, run.keys).amount).sum();
            if sum != expected {
                return Err(Error::integrity(format!(
                    "the drain came to {sum} instead of {expected}"
                )));
            }
            figures(&used, run)
        }
        "kafka" => {
            let topic = kafka::events_topic(&run.kafka, run.events, run.keys)?;
            served(run, move |_| topic_of(&topic))?
        }
        "memory" => {
            let partitions = Arc::new(Event::dealt(run.events, run.keys));
            served(run, move |_| Ready(partitions.clone()))?
        }
        other => return Err(Error::definition(format!("no source `{other}`"))),
    };
    line["question"] = json!("tumble");
    println!("{line}");
    Ok(())
}

/// The topic as a source.
pub fn topic_of(topic: &str) -> impl Source<Event> + use<> {
    let lateness = Duration::from_millis(LATENESS_MS as u64);
    Kafka::topic(topic)
        .json::<Event>()
        .event_time(|e| EventTime::from_millis(e.ts))
        .lateness(lateness)
}

/// The dataflow that is measured.
pub fn flow<S: Source<Event>>(
    source: impl Fn(()) -> S + Send + Sync + 'static,
    view: bool,
    stop: impl Fn() -> Option<StopAtDrop> + Send + Sync + 'static,
) -> Flow {
    dataflow("tumble", move |flow: Dataflow| {
        let stop = stop();
        let table = flow
            .source("events", source(()))
            .key_by("key", move |event: &Event| {
                let _dropped_with_the_dataflow = &stop;
                event.key
            })
            .window(
                "spend_by_window",
                Tumbling::of(Duration::from_millis(WINDOW_MS as u64)),
            )
            .aggregate(|a| (a.count(), a.sum(|event| event.amount)));
        if view {
            table.view_with("spend", |v| v.fields(["n", "total"]));
        }
    })
}

fn served<S: Source<Event>>(run: &Run, source: impl Fn(()) -> S + Send + Sync + 'static) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let property = |text: &String| text.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let settings = RunSettings {
        workers: run.workers,
        store: LedgerLocation::Directory(dir.path().join("ledger")),
        until_end: true,
        checkpoints: (run.checkpoint_ms > 0).then(|| {
            checkpoints::CheckpointSettings::new(
                checkpoint::store::CheckpointStore::new(Arc::new(HostDisk), &dir.path().join("checkpoints")),
                checkpoints::CheckpointSchedule::Every(Duration::from_millis(run.checkpoint_ms)),
            )
        }),
        env: Environment {
            connectors: Extensions::of(KafkaSettings {
                properties: run.property.iter().filter_map(property).collect(),
                ..KafkaSettings::at(&run.kafka)
            }),
            group: "bench".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    let meter = Meter::start();
    let stop = meter.clone();
    let flow = flow(source, !run.no_view, move || Some(StopAtDrop(stop.clone())));
    let service = Service::start(&flow, settings)?;
    let metrics = service.metrics().clone();
    let views = service.join()?;
    let used = meter.used()?;
    let mut line = figures(&used, run);
    let snapshot = views
        .closed()
        .ok_or_else(|| Error::internal("no epoch was closed"))?;
    line["epochs"] = json!(epochs(&metrics));
    if !run.unchecked {
        let answer = Answer::of((0..run.events).map(|i| Event::nth(i, run.keys)));
        answer.check(&views, &snapshot, (!run.no_view).then_some("spend"))?;
        (line["rows"], line["late"]) = (json!(answer.rows()), json!(answer.late));
    }
    Ok(line)
}

/// How many epochs there were, from the process's own metrics.
fn epochs(metrics: &thalweg::metrics::Metrics) -> Option<u64> {
    let text = metrics.text();
    let line = text.lines().find(|line| line.contains("epoch_records_count"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn figures(used: &Used, run: &Run) -> Value {
    let seconds = used.wall.as_secs_f64();
    json!({
        "from": run.from, "workers": run.workers, "view": !run.no_view && run.from != "drain",
        "events": run.events, "keys": run.keys, "seconds": seconds, "cpu_seconds": used.cpu_seconds,
        "events_per_second": run.events as f64 / seconds,
        "events_per_cpu_second": run.events as f64 / used.cpu_seconds,
        "rss_peak_bytes": used.rss_peak_bytes, "threads": used.threads,
    })
}

/// Events that lie ready in memory: what is left is the cost of everything behind a source.
struct Ready(Arc<Vec<Vec<Event>>>);

impl Source<Event> for Ready {
    fn open(self, _: &Environment) -> Result<OpenedSource<Event>> {
        Ok(OpenedSource {
            topic: "bench".to_owned(),
            description: "events in memory".into(),
            driver: Arc::new(Ready(self.0.clone())),
            rules: TimeRules {
                event_time: Some(Box::new(|event| EventTime::from_millis(event.ts))),
                lateness: Duration::from_millis(LATENESS_MS as u64),
                ..TimeRules::default()
            },
            dead_letters: None,
            reader: Box::new(move |waker| {
                waker.wake();
                Ok(Box::new(ReadyReader {
                    read: vec![0; self.0.len()],
                    partitions: self.0,
                }))
            }),
        })
    }
}

impl Driver for Ready {
    fn topology(&self) -> Result<Topology> {
        let facts = self.0.iter().zip(0..);
        let facts =
            facts.map(|(events, partition)| PartitionFacts::new(partition, 0, events.len() as Offset));
        Ok(Topology {
            topic: TopicId::default(),
            compacted: false,
            partitions: facts.collect(),
        })
    }
}

struct ReadyReader {
    partitions: Arc<Vec<Vec<Event>>>,
    read: Vec<usize>,
}

impl Reader<Event> for ReadyReader {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        self.read[partition as usize] = from as usize;
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<Event>,
    ) -> Result<ReadProgress> {
        let events = &self.partitions[partition as usize];
        let from = &mut self.read[partition as usize];
        let to = (*from + records_max).min(until as usize).min(events.len());
        for event in &events[*from..to] {
            let timestamp = EventTime::from_millis(event.ts);
            intake.value(
                Raw {
                    offset: *from as Offset,
                    timestamp,
                    key: None,
                    payload: None,
                },
                *event,
            );
            *from += 1;
        }
        Ok(ReadProgress {
            position: to as Offset,
            at_end: to == events.len(),
            more: to < events.len(),
        })
    }
}
