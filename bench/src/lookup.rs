//! Point lookups over HTTP on the processors that also take records in.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;
use thalweg::health::Readiness;
use thalweg::http::{self, HttpSettings};
use thalweg::prelude::Result;
use thalweg::{Error, clock};

use crate::events::splitmix;
use crate::latency::{Fixture, Schedule};
use crate::measure::{Meter, record};

#[derive(clap::Args)]
pub struct Arguments {
    /// The broker.
    #[arg(long)]
    kafka: String,
    /// Events a second that come in meanwhile.
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// How long to ask.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many connections ask.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests that a connection sends before it waits for their answers: 1, and then this many.
    #[arg(long, default_value_t = 32)]
    pipelined: usize,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

const KEYS: u64 = 10_000;

/// Asks one by one, and then pipelined.
pub fn lookup(arguments: &Arguments) -> Result<()> {
    println!("| requests at once | lookups/s | p50 ms | p99 ms | max ms |");
    println!("|---|---|---|---|---|");
    for depth in [1, arguments.pipelined] {
        let fixture = Fixture::start(&arguments.kafka, "lookup", arguments.workers, &[], None)?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let state = http::ServerState {
            views: fixture.service.views().clone(),
            view_names: fixture.service.views().names(),
            recovery: Arc::new(fixture.service.recovery()),
            sources: vec!["events".into()],
            sources_now: Arc::new(fixture.service.sources()),
            sinks_now: Arc::new(fixture.service.sinks()),
            cluster_now: Arc::new(|| None),
            partitions: Arc::new(|_| None),
            bindings: None,
            metrics: fixture.service.metrics().clone(),
            readiness: Arc::new(Readiness::default()),
        };
        let settings = HttpSettings {
            address: ([127, 0, 0, 1], 0).into(),
            ..HttpSettings::default()
        };
        let server = http::serve(settings, Arc::new(state), tokio.handle())?;
        let generator = Schedule::new(arguments.rate, KEYS, arguments.seconds + 4)
            .produce(&arguments.kafka, &fixture.topic)?;
        std::thread::sleep(Duration::from_secs(3));

        let (meter, stop) = (Meter::start(), Arc::new(AtomicBool::new(false)));
        let spawn = |seed: usize| {
            let (address, stop) = (server.address(), stop.clone());
            let thread = std::thread::Builder::new().name("client".into());
            thread.spawn(move || ask(address, seed as u64, depth, &stop))
        };
        let clients = (0..arguments.connections)
            .map(spawn)
            .collect::<std::io::Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_secs(arguments.seconds));
        stop.store(true, Ordering::Relaxed);
        meter.stop();
        let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        for client in clients {
            took.add(
                client
                    .join()
                    .map_err(|_| Error::internal("a client panicked"))??,
            )?;
        }
        generator
            .join()
            .map_err(|_| Error::internal("the generator panicked"))??;
        let used = meter.used()?;
        let per_second = took.len() as f64 / used.wall.as_secs_f64();
        let ms = |q: f64| took.value_at_quantile(q) as f64 / 1e3;
        println!(
            "| {depth} | {per_second:.0} | {:.2} | {:.2} | {:.1} |",
            ms(0.5),
            ms(0.99),
            took.max() as f64 / 1e3
        );
        record(
            arguments.out.as_deref(),
            json!({
                "question": "lookup", "pipelined": depth, "connections": arguments.connections, "rate": arguments.rate,
                "workers": arguments.workers, "lookups_per_second": per_second, "p50_us": took.value_at_quantile(0.5),
                "p99_us": took.value_at_quantile(0.99), "max_us": took.max(), "threads": used.threads,
            }),
        )?;
        fixture.service.stop();
        fixture.service.join()?;
        tokio.block_on(server.shutdown(Duration::from_secs(1)));
        crate::kafka::delete_topic(&arguments.kafka, &fixture.topic)?;
    }
    Ok(())
}

/// Asks for rows until told to stop; every answer must be a row of the key asked for.
fn ask(address: SocketAddr, seed: u64, depth: usize, stop: &AtomicBool) -> Result<Histogram<u64>> {
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut round, mut requests, mut keys) = (seed << 40, Vec::new(), Vec::new());
    let mut answers = Answers {
        buffer: Vec::new(),
        at: 0,
    };
    while !stop.load(Ordering::Relaxed) {
        requests.clear();
        keys.clear();
        for _ in 0..depth {
            round += 1;
            let key = splitmix(round) % KEYS;
            keys.push(key);
            write!(
                requests,
                "GET /v1/views/spend/row?key={key}&window=open HTTP/1.1\r\nhost: bench\r\n\r\n"
            )?;
        }
        let sent = clock::instant();
        stream.write_all(&requests)?;
        for key in &keys {
            let body = answers.next(&mut stream)?;
            let expected = format!("\"key\":{key},");
            if !body
                .windows(expected.len())
                .any(|part| part == expected.as_bytes())
            {
                let body = String::from_utf8_lossy(body);
                return Err(Error::integrity(format!("asked for key {key}, got {body}")));
            }
            took.saturating_record((clock::instant() - sent).as_micros().max(1) as u64);
        }
    }
    Ok(took)
}

/// Cuts answers out of a stream: heads end in an empty line and name the length of what follows.
struct Answers {
    buffer: Vec<u8>,
    at: usize,
}

impl Answers {
    fn next(&mut self, stream: &mut TcpStream) -> Result<&[u8]> {
        loop {
            let unread = &self.buffer[self.at..];
            if let Some(head) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&unread[..head]).to_ascii_lowercase();
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
                let length =
                    length.ok_or_else(|| Error::integrity(format!("an answer without a length: {text}")))?;
                let end = self.at + head + 4 + length;
                if !text.starts_with("http/1.1 200") && self.buffer.len() >= end {
                    let body = String::from_utf8_lossy(&self.buffer[self.at..end]).into_owned();
                    return Err(Error::integrity("not a row").detail(body));
                }
                if self.buffer.len() >= end {
                    let body = self.at + head + 4..end;
                    self.at = end;
                    return Ok(&self.buffer[body]);
                }
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let (filled, room) = (self.buffer.len(), 64 << 10);
            self.buffer.resize(filled + room, 0);
            let count = stream.read(&mut self.buffer[filled..])?;
            self.buffer.truncate(filled + count);
            if count == 0 {
                return Err(Error::external("the server hung up"));
            }
        }
    }
}
