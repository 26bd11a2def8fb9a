//! What a service costs that has nothing to do: processor time, and growth of the ledger.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use thalweg::prelude::Result;

use crate::latency::{Fixture, Schedule};
use crate::measure::{Meter, cpu_seconds_of, record};

#[derive(clap::Args)]
pub struct Arguments {
    /// The broker.
    #[arg(long)]
    kafka: String,
    /// How long to watch.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Properties of the reader, `name=value`.
    #[arg(long)]
    property: Vec<String>,
    /// The broker's process, to tell what it used.
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Feeds a service for two seconds, lets it come to rest (partitions turn idle after ten), and watches it.
pub fn idle(arguments: &Arguments) -> Result<()> {
    let fixture = Fixture::start(
        &arguments.kafka,
        "idle",
        arguments.workers,
        &arguments.property,
        None,
    )?;
    let generator = Schedule::new(10_000, 1_000, 2).produce(&arguments.kafka, &fixture.topic)?;
    generator
        .join()
        .map_err(|_| thalweg::Error::internal("a thread panicked"))??;
    std::thread::sleep(Duration::from_secs(13));
    let ledger = fixture.dir.path().join("ledger/ledger.log");
    let before = std::fs::metadata(&ledger)?.len();
    let broker = arguments.broker_pid.and_then(cpu_seconds_of);
    let meter = Meter::start();
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    meter.stop();
    let used = meter.used()?;
    let seconds = used.wall.as_secs_f64();
    let broker = broker.and_then(|before| Some(cpu_seconds_of(arguments.broker_pid?)? - before));
    let grown = std::fs::metadata(&ledger)?.len() - before;
    let percent = 100.0 * used.cpu_seconds / seconds;
    let broker_percent = broker.map(|cpu| 100.0 * cpu / seconds);
    println!(
        "idle: {percent:.2} % of a core, broker {broker_percent:?} %, ledger +{grown} bytes in {seconds:.0} s"
    );
    fixture.service.stop();
    fixture.service.join()?;
    record(
        arguments.out.as_deref(),
        json!({
            "question": "idle", "workers": arguments.workers, "properties": arguments.property, "seconds": seconds,
            "core_percent": percent, "broker_core_percent": broker_percent, "ledger_bytes_grown": grown,
        }),
    )
}
