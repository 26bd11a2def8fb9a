//! `demo`: a dataflow with data of its own, by default with everything in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::serve::{self, Running, environment, log_to_stderr, tokio};
use crate::cli::{DemoArguments, choose};
use crate::codec::registry::Registry;
use crate::dataflow::Flow;
use crate::demo::{Demo, registry};
use crate::error::{Error, Result};
use crate::source::Environment;
use crate::source::embedded::{EmbeddedBroker, LINGER, Producer, create_topic};

pub(super) fn run(flows: &[Flow], arguments: &DemoArguments) -> Result<()> {
    let force = arguments.settings.load()?;
    let settings = &force.settings;
    log_to_stderr(&force);
    let real = !settings.kafka.bootstrap.is_empty();
    if real != settings.registry.url.is_some() {
        return Err(Error::definition(
            "a demo on a Kafka takes --kafka and --registry, and one in the process neither",
        ));
    }
    if force.is_said("data_dir") && !real {
        return Err(
            Error::definition("a demo keeps its ledger in --data-dir only with --kafka")
                .detail("without it the broker is in the process, and forgets its topics at the end"),
        );
    }
    let with_demo: Vec<Flow> = flows
        .iter()
        .filter(|flow| flow.demo_function().is_some())
        .cloned()
        .collect();
    if with_demo.is_empty() {
        return Err(
            Error::definition("no dataflow here has a demo").hint("give it one: `dataflow(..).demo(..)`")
        );
    }
    let flow = choose(&with_demo, arguments.dataflow.as_deref())?;
    let tokio = tokio()?;

    let embedded = match real {
        true => None,
        false => Some(Arc::new(EmbeddedBroker::start(1)?)),
    };
    let kafka = match &embedded {
        Some(broker) => broker.bootstrap_servers(),
        None => settings.kafka.bootstrap.clone(),
    };
    let registry = match serve::registry(&settings.registry, tokio.handle())? {
        Some(registry) => registry,
        None => Registry::new(&registry::start(tokio.handle())?, tokio.handle().clone())?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let given = force.is_said("data_dir").then(|| settings.data_dir.clone());
    let data = Data::at(given, embedded.is_some())?;
    let mut env = environment(settings, kafka, Some(registry.clone()));

    let tools = Tools {
        env: env.clone(),
        registry,
        embedded: embedded.clone(),
        handle: tokio.handle().clone(),
        rate: settings.demo_rate,
        stop: stop.clone(),
    };
    let Some(writing) = tools.write(flow.clone())? else {
        return Ok(());
    };
    if embedded.is_some() {
        // The embedded broker answers a fetch that finds nothing when its time is up, even if a record comes before.
        env.kafka_properties
            .push(("fetch.wait.max.ms".into(), "25".into()));
    }
    let running = Running {
        flow,
        env,
        data_dir: data.dir.join(flow.name()),
        force: &force,
    };
    let outcome = running.run(&tokio, |url| welcome(flow, url));
    stop.store(true, Ordering::Release);
    let written = writing
        .join()
        .unwrap_or_else(|_| Err(Error::definition("the demo panicked")));
    outcome.and(written)
}

/// What a demo's data are written with.
struct Tools {
    env: Environment,
    registry: Registry,
    embedded: Option<Arc<EmbeddedBroker>>,
    handle: tokio::runtime::Handle,
    rate: u64,
    stop: Arc<AtomicBool>,
}

impl Tools {
    /// Writes on a thread of its own. Returns once the topics are there, as a dataflow takes a missing one for an error; with
    /// nothing where the demo ended before that.
    fn write(self, flow: Flow) -> Result<Option<JoinHandle<Result<()>>>> {
        let (made, ready) = std::sync::mpsc::channel();
        let write = move || -> Result<()> {
            let Self {
                env,
                registry,
                embedded,
                handle,
                rate,
                stop,
            } = self;
            // A real broker shows how fresh answers are; the embedded one has to be spared.
            let linger = embedded.as_ref().map_or(Duration::from_millis(1), |_| LINGER);
            let producer = Producer::of(&env, linger)?;
            let on = handle.clone();
            let topics = move |name: &str, partitions| match &embedded {
                Some(broker) => broker.create_topic(name, partitions),
                None => on.block_on(create_topic(&env, name, partitions)),
            };
            let demo = Demo::new(producer, registry, handle, stop, rate, topics, made);
            let function = flow.demo_function().expect("chosen among those with a demo");
            function(&demo)
        };
        let thread = std::thread::Builder::new().name("demo".into()).spawn(write);
        let thread = thread.map_err(|error| Error::internal("cannot start a thread").detail(error))?;
        if ready.recv().is_err() {
            let panicked = || Err(Error::definition("the demo panicked"));
            return thread.join().unwrap_or_else(|_| panicked()).map(|()| None);
        }
        Ok(Some(thread))
    }
}

fn welcome(flow: &Flow, url: &str) {
    println!(
        "\n`{}` is running, with demo data. It answers at {url}; Ctrl-C stops it.\n",
        flow.name()
    );
    println!("  curl {url}/v1/views");
    for path in flow.demo_queries() {
        println!("  curl '{url}{path}'");
    }
    println!();
}

/// The folder of the demo's ledger. An embedded broker forgets its topics, so what was bound to them is removed as well.
struct Data {
    dir: PathBuf,
    temporary: bool,
}

impl Data {
    fn at(given: Option<PathBuf>, embedded: bool) -> Result<Self> {
        let failed = |dir: &Path, error: std::io::Error| {
            Error::outside(format!("cannot make the folder {}", dir.display())).detail(error)
        };
        let dir = match (given, embedded) {
            (None, true) => {
                let temporary = std::env::temp_dir();
                fresh(&temporary).map_err(|error| failed(&temporary, error))?
            }
            (given, _) => {
                let dir = given.unwrap_or_else(|| "data/demo".into());
                std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, error))?;
                dir
            }
        };
        Ok(Self {
            dir,
            temporary: embedded,
        })
    }
}

/// Makes a folder that was not there. A demo that was killed leaves its own behind, and in a container every process has the
/// same number.
fn fresh(parent: &Path) -> std::io::Result<PathBuf> {
    let name = format!("thalweg-demo-{}", std::process::id());
    let mut turn = 0;
    loop {
        let dir = match turn {
            0 => parent.join(&name),
            turn => parent.join(format!("{name}-{turn}")),
        };
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => turn += 1,
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.temporary {
            let _left_behind = std::fs::remove_dir_all(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_left_behind_is_not_taken_again() {
        let parent = tempfile::tempdir().unwrap();
        let first = fresh(parent.path()).unwrap();
        std::fs::write(first.join("ledger.log"), "of another demo").unwrap();
        let second = fresh(parent.path()).unwrap();
        let third = fresh(parent.path()).unwrap();
        assert!(first != second && second != third && third != first);
        assert_eq!(std::fs::read_dir(second).unwrap().count(), 0);
        assert!(fresh(&parent.path().join("missing")).is_err());
    }
}
