//! `run`: a dataflow and its HTTP server, from start to a clean stop.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::cli::readiness::ReadinessWatcher;
use crate::cli::{RunArguments, signal, supervise};
use crate::codec::registry::Registry;
use crate::codec::registry::access::{Credentials, RegistryAccess};
use crate::config::{self, KnownSource, LogFormat, RegistrySettings, ResolvedSettings};
use crate::dataflow::Flow;
use crate::dataflow::plan::PlannedSource;
use crate::error::{Error, Result};
use crate::health::Readiness;
use crate::http;
use crate::panic_context;
use crate::runtime::checkpoints::{self, CheckpointSchedule};
use crate::runtime::progress::CaughtUp;
use crate::runtime::{self, LedgerLocation, PlanSummary, RunSettings, Service};
use crate::sequencer::Cuts;
use crate::source::Environment;
use crate::view::Views;

/// Maximum time of a stop, after which the process exits regardless. Everything bound is in the ledger, so
/// nothing is lost.
const STOP_MAX: Duration = Duration::from_secs(20);
const STOPPING: &str = "the process is about to end";
const TICK: Duration = Duration::from_millis(100);

pub(super) fn run(flow: &Flow, arguments: &RunArguments) -> Result<()> {
    let resolved = arguments.settings.load()?;
    let settings = &resolved.settings;
    log_to_stderr(&resolved);
    let tokio = tokio()?;
    if arguments.supervise && !supervise::is_child() {
        return supervise::run(&tokio);
    }
    let registry = registry(&settings.registry, tokio.handle())?;
    let env = environment(settings, registry);
    let running = ServeContext {
        flow,
        env,
        data_dir: settings.data_dir.join(flow.name()),
        resolved: &resolved,
    };
    running.run(&tokio, |_| {})
}

/// The environment of sources, from the settings.
pub(super) fn environment(settings: &config::ServiceSettings, registry: Option<Registry>) -> Environment {
    Environment {
        connectors: settings.connectors.clone(),
        registry,
        dataflow: String::new(),
        group: settings.group.clone(),
        dead_letters: settings.dead_letters.clone(),
        sources: Arc::new(settings.sources.clone()),
        overrides: Default::default(),
        until_end: settings.until_end,
    }
}

/// The facts about a source that settings need.
pub(super) fn known(source: &PlannedSource) -> KnownSource {
    KnownSource {
        name: source.rules.name.clone(),
        timed: source.rules.timed,
        connector: source.driver.connector(),
    }
}

/// The client of the registry, if one is configured.
pub(super) fn registry(settings: &RegistrySettings, handle: &Handle) -> Result<Option<Registry>> {
    let Some(url) = &settings.url else {
        return Ok(None);
    };
    let login = match (&settings.username, &settings.password, &settings.token) {
        (Some(name), Some(password), None) => Credentials::Password(name.clone(), password.clone()),
        (_, _, Some(token)) => Credentials::Token(token.clone()),
        _ => Credentials::Nobody,
    };
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            Error::definition(format!("cannot read `registry.ca_file`, {}", path.display())).detail(error)
        })
    };
    let access = RegistryAccess {
        url: url.clone(),
        login,
        ca_pem: settings.ca_file.as_ref().map(read).transpose()?,
        unknown_wait: settings.unknown_wait,
    };
    Registry::with_access(&access, handle.clone()).map(Some)
}

/// The runtime for everything asynchronous: a single thread, because the workers need the cores.
pub(super) fn tokio() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    built.map_err(|error| Error::internal("cannot start the asynchronous runtime").detail(error))
}

/// Sends log lines to standard error, beginning with warnings about the settings.
pub(super) fn log_to_stderr(resolved: &ResolvedSettings) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::prelude::*;
    let log = &resolved.settings.log;
    let info = || Targets::new().with_default(LevelFilter::INFO);
    let wanted: Targets = log.level.parse().unwrap_or_else(|_| info());
    let lines = layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second call in one process (a test) keeps the first one's settings.
    let _set = tracing_subscriber::registry()
        .with(lines.with_filter(wanted))
        .try_init();
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
}

/// What `run` and `demo` have in common.
pub(super) struct ServeContext<'a> {
    pub(super) flow: &'a Flow,
    pub(super) env: Environment,
    pub(super) data_dir: PathBuf,
    pub(super) resolved: &'a ResolvedSettings,
}

impl ServeContext<'_> {
    /// Returns the dataflow's plan, after checking that its sources are configured.
    pub(super) fn sources_fit(&self) -> Result<Arc<PlanSummary>> {
        let plan = runtime::plan(self.flow, &self.env)?;
        for source in &plan.sources {
            source.driver.configured().unwrap_or(Ok(()))?;
        }
        let known: Vec<_> = plan.sources.iter().map(known).collect();
        self.resolved.sources_fit(&known)?;
        Ok(plan)
    }

    /// The settings of the run.
    ///
    /// # Errors
    /// If the location of checkpoints is invalid.
    pub(super) fn engine(&self) -> Result<RunSettings> {
        let wanted = &self.resolved.settings;
        let checkpoints = match wanted.checkpoint_interval.is_zero() {
            true => None,
            false => {
                let (app, place) = (&self.env.group, &wanted.checkpoint_place);
                Some(checkpoints::CheckpointSettings {
                    store: place.store(app, self.flow.name(), &self.data_dir, true)?,
                    due: CheckpointSchedule::Every(wanted.checkpoint_interval),
                    keep: wanted.checkpoints_kept,
                    on_new_build: wanted.on_new_build,
                    on_new_plan: wanted.on_new_plan,
                })
            }
        };
        Ok(RunSettings {
            workers: wanted.workers,
            store: LedgerLocation::Directory(self.data_dir.clone()),
            cuts: Cuts::Clock {
                interval: wanted.epoch_interval,
            },
            epochs_in_flight_max: wanted.epochs_in_flight_max,
            bounds: wanted.bounds,
            until_end: wanted.until_end,
            env: self.env.clone(),
            history: wanted.history,
            on_difference: wanted.on_difference,
            trim_least: wanted.checkpoints_trim.then_some(runtime::TRIM_LEAST),
            checkpoints,
            cluster: wanted.membership.clone(),
            ..RunSettings::default()
        })
    }

    /// The state of the HTTP server.
    fn state(plan: &PlanSummary, service: &Service, readiness: &Arc<Readiness>) -> http::ServerState {
        let sources = plan.sources.iter();
        http::ServerState {
            views: service.views().clone(),
            view_names: plan.views.clone(),
            recovery: Arc::new(service.recovery()),
            sources: sources.map(|source| source.rules.name.clone()).collect(),
            sources_now: Arc::new(service.sources()),
            sinks_now: Arc::new(service.sinks()),
            cluster_now: Arc::new(service.cluster()),
            partitions: Arc::new(service.partitions()),
            bindings: None,
            metrics: service.metrics().clone(),
            readiness: readiness.clone(),
        }
    }

    /// Serves until a signal, the end of the input, or a halt. `ready` is called once with the server's URL.
    pub(super) fn run(self, tokio: &tokio::runtime::Runtime, ready: impl FnOnce(&str)) -> Result<()> {
        abort_on_panic();
        let signal = {
            let _inside = tokio.enter();
            signal::listen()?
        };
        let plan = self.sources_fit()?;
        let wanted = &self.resolved.settings;
        let registry = self.env.registry.clone();
        let settings = self.engine()?;
        http::bindable(&wanted.http)?;
        let service = Service::start(self.flow, settings)?;
        let readiness = Arc::new(Readiness::starting());
        let state = Self::state(&plan, &service, &readiness);
        let server = http::serve(wanted.http.clone(), Arc::new(state), tokio.handle());
        let server = match server {
            Ok(server) => server,
            Err(error) => {
                service.stop();
                let _stopped = service.join();
                return Err(error);
            }
        };
        let url = server.url();
        tracing::info!(%url, dataflow = self.flow.name(), workers = wanted.workers, "serving");

        let mut signal = tokio.spawn(signal);
        let mut ready = Some(ready);
        let mut watcher = ReadinessWatcher::new(&service, &readiness, registry.as_ref(), caught_up(wanted));
        while !signal.is_finished() && !service.is_finished() && !service.halt().is_halted() {
            if watcher.look() {
                ready.take().into_iter().for_each(|ready| ready(&url));
            }
            std::thread::sleep(TICK);
        }
        let stopped = signal.is_finished();
        if stopped {
            let name = name(tokio, &mut signal);
            tracing::info!(signal = name, "stopping; finishing the bound epochs");
        }
        let serves_on = wanted.serve && !stopped && !service.halt().is_halted();
        if !serves_on {
            readiness.wait_for("stopping", STOPPING);
        }
        if let Some(registry) = &registry {
            registry.hang_up();
        }
        let views = service.views().clone();
        let ended = end(service);
        if ended.is_ok() && wanted.until_end && !stopped {
            tell_end(&views);
        }
        if ended.is_ok() && serves_on {
            readiness.ready();
            ready.take().into_iter().for_each(|ready| ready(&url));
            tracing::info!(%url, "reading has ended; serving until stopped");
            let name = name(tokio, &mut signal);
            tracing::info!(signal = name, "stopping");
            readiness.wait_for("stopping", STOPPING);
        }
        tokio.block_on(server.shutdown(Duration::from_secs(5)));
        ended
    }
}

/// Waits for the signal and returns its name.
fn name(tokio: &tokio::runtime::Runtime, signal: &mut JoinHandle<&'static str>) -> &'static str {
    tokio.block_on(signal).unwrap_or("a signal")
}

/// When the service counts as ready.
fn caught_up(wanted: &config::ServiceSettings) -> CaughtUp {
    wanted
        .ready_lag_max
        .map_or(CaughtUp::ToFirstEnds, CaughtUp::ToLag)
}

/// Logs that a run has reached the end of its input.
fn tell_end(views: &Views) {
    match views.closed() {
        Some(snapshot) => {
            let time = snapshot.epoch.opened_at();
            tracing::info!(epoch = snapshot.epoch.0, %time, "caught up with everything present at the start");
        }
        None => tracing::info!("the sources were empty at the start"),
    }
}

fn end(service: Service) -> Result<()> {
    service.stop();
    let halted = service.halt().clone();
    let mut waited = Duration::ZERO;
    while !service.is_finished() {
        if waited >= STOP_MAX {
            tracing::warn!(
                limit = ?STOP_MAX,
                "shutdown timed out; exiting now. The ledger holds every bound epoch"
            );
            return halted.error().map_or(Ok(()), Err);
        }
        std::thread::sleep(TICK);
        waited += TICK;
    }
    service.join().map(|_| ())
}

/// A panic in any thread ends the process: continuing with some of the workers would only hang. A worker's
/// own panic is caught and halts the service in an orderly way; any other ends the process immediately. The
/// hook is set here, because crates that use this one do not inherit a cargo profile.
fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if panic_context::is_caught() {
            return;
        }
        if let Some(at) = panic_context::describe() {
            eprintln!("in {at}");
        }
        eprintln!(
            "error: a thread panicked; the process exits. Bound epochs are in the ledger and will be \
             replayed."
        );
        std::process::exit(101);
    }));
}
