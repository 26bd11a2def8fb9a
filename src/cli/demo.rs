//! `demo`: a dataflow with generated data, by default entirely in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::serve::{self, ServeContext, environment, log_to_stderr, tokio};
use crate::cli::{DemoArguments, choose};
use crate::dataflow::Flow;
use crate::demo::Demo;
use crate::demo::services::DemoServices;
use crate::error::{Error, Result};

pub(super) fn run(flows: &[Flow], arguments: &DemoArguments) -> Result<()> {
    let resolved = arguments.settings.load()?;
    let settings = &resolved.settings;
    log_to_stderr(&resolved);
    let with_demo: Vec<Flow> = flows
        .iter()
        .filter(|flow| flow.demo_function().is_some())
        .cloned()
        .collect();
    if with_demo.is_empty() {
        return Err(Error::definition("no dataflow in this binary has a demo").hint(
            "add one: \
                `dataflow(..).demo(..)`",
        ));
    }
    let flow = choose(&with_demo, arguments.dataflow.as_deref())?;
    let tokio = tokio()?;

    let registry = serve::registry(&settings.registry, tokio.handle())?;
    let world = DemoServices::of(&settings.connectors, registry, tokio.handle())?;
    if resolved.is_said("data_dir") && world.is_embedded() {
        return Err(Error::definition("--data-dir needs --kafka")
            .detail("without it, the broker runs in the process and loses its topics at the end"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let given = resolved.is_said("data_dir").then(|| settings.data_dir.clone());
    let data = DemoDirectory::at(given, world.is_embedded())?;
    let mut env = environment(settings, Some(world.registry.clone()));
    env.connectors = world.settings(env.connectors);

    let writing = {
        // The dataflow needs it longer than a demo that has written all it has.
        let (world, rate) = (world.clone(), settings.demo_rate);
        let (flow, stop) = (flow.clone(), stop.clone());
        let (made, ready) = std::sync::mpsc::channel();
        let write = move || -> Result<()> {
            let demo = Demo::new(world, stop, rate, made)?;
            let function = flow.demo_function().expect("chosen among those with a demo");
            function(&demo)
        };
        let thread = std::thread::Builder::new().name("demo".into()).spawn(write);
        let thread = thread.map_err(|error| Error::internal("cannot start a thread").detail(error))?;
        // The dataflow starts once its topics are there: a missing topic is an error.
        if ready.recv().is_err() {
            return thread
                .join()
                .unwrap_or_else(|_| Err(Error::definition("the demo panicked")));
        }
        thread
    };
    let running = ServeContext {
        flow,
        env,
        data_dir: data.dir.join(flow.name()),
        resolved: &resolved,
    };
    let outcome = running.run(&tokio, |url| welcome(flow, url));
    stop.store(true, Ordering::Release);
    let written = writing
        .join()
        .unwrap_or_else(|_| Err(Error::definition("the demo panicked")));
    outcome.and(written)
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

/// The directory of the demo's ledger. An embedded broker loses its topics, so their ledger is removed as
/// well.
struct DemoDirectory {
    dir: PathBuf,
    temporary: bool,
}

impl DemoDirectory {
    fn at(given: Option<PathBuf>, embedded: bool) -> Result<Self> {
        let failed = |dir: &Path, error: std::io::Error| {
            Error::external(format!("cannot create the directory {}", dir.display())).detail(error)
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

/// Creates a new directory. A demo that was killed leaves its directory behind, and in a container every
/// process has the same id.
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

impl Drop for DemoDirectory {
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
