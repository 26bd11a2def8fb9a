//! What a run begins with: the ledger's bindings, a checkpoint, and whose results it computes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use xxhash_rust::xxh3::xxh3_64;

use super::checkpoints::{self, Clock, Way};
use super::control::Lead;
use super::{
    BUILD, OnDifference, PlanText, REPLAY_IN_FLIGHT_MAX, Replay, Settings, Store, build_id, program,
};
use crate::checkpoint::Checkpoints;
use crate::checkpoint::job::{Identity, Writer};
use crate::checkpoint::manifest::Lineage;
use crate::checkpoint::store::Restored;
use crate::dataflow::Flow;
use crate::error::{Error, Result};
use crate::ledger::{self, Claim, Ledger, LedgerStore, MemoryLedger, Recovered};
use crate::metrics::Metrics;
use crate::position::EpochBinding;
use crate::sequencer::{self, Sequencer, results};
use crate::time::Epoch;
use crate::view::Views;

/// What the process that leads needs besides its workers.
#[derive(Default)]
pub(super) struct Begin {
    pub lead: Option<Lead>,
    /// The last epoch to be gone through again.
    pub replay_to: Option<Epoch>,
    /// For the ledger's thread. A replay has none.
    pub ledger: Option<(Box<dyn LedgerStore>, Receiver<Arc<EpochBinding>>)>,
    pub checkpoints: Option<Checkpoints>,
    pub writer: Option<Writer>,
    /// The checkpoint to begin with.
    pub restored: Option<Arc<Restored>>,
}

/// A flow and how it is to be run.
pub(super) struct Run<'a> {
    pub flow: &'a Flow,
    pub plan: &'a PlanText,
    pub settings: &'a Settings,
    pub processes: usize,
    pub views: &'a Arc<Views>,
    pub metrics: &'a Metrics,
}

impl Run<'_> {
    /// Takes the ledger over and goes on from what it and the newest checkpoint hold; or looks at them, for a replay.
    pub fn begin(&self) -> Result<Begin> {
        let Self { settings, plan, .. } = self;
        let (ledger, recovered) = self.open()?;
        let mut begin = Begin {
            replay_to: recovered.last,
            ..Begin::default()
        };
        let saves = settings
            .checkpoints
            .clone()
            .filter(|_| self.processes == 1 && plan.unsaved.is_none());
        let build = build_id();
        let names = (&*settings.env.group, self.flow.name(), &*build);
        let mut upto = None;
        if let Some(replay) = settings.replay {
            upto = Some(last(&replay, &recovered)?);
            begin.replay_to = upto;
        }
        if let Some(saves) = &saves {
            let before = settings
                .replay
                .map(|replay| first(&replay, &recovered, saves))
                .transpose()?;
            begin.restored = checkpoints::choose(saves, names, &plan.states, &recovered, before)?;
        }
        checkpoints::is_whole(&recovered, begin.restored.as_deref())?;
        let lineage = self.lineage(begin.restored.as_deref());
        let mut clock = None;
        if let Some(saves) = saves.filter(|_| settings.replay.is_none()) {
            let held = self.views.clone();
            let (own, thread) = Checkpoints::new(
                saves.store,
                Identity {
                    app: names.0.to_owned(),
                    dataflow: names.1.to_owned(),
                    build: names.2.to_owned(),
                    lineage,
                    generation: recovered.generation,
                },
                plan.states.clone(),
                (settings.workers, saves.keep),
                begin.restored.as_deref(),
                self.metrics.checkpoints.clone(),
                Arc::new(move |epoch| held.hold(epoch)),
            );
            (begin.checkpoints, begin.writer) = (Some(own), Some(thread));
            clock = Some(Clock::new(saves.due));
        }
        let (to_scribe, bindings) = channel();
        begin.lead = Some(Lead::new(
            self.sequencer(lineage),
            recovered.bindings,
            to_scribe,
            settings.until_end,
            begin.restored.as_deref().map(Way::new),
            clock,
            upto,
        ));
        begin.ledger = ledger.map(|ledger| (ledger, bindings));
        Ok(begin)
    }

    fn sequencer(&self, lineage: Lineage) -> Sequencer {
        let settings = self.settings;
        let compares = settings.on_difference != OnDifference::Ignore && lineage != Lineage::default();
        let results = compares.then(|| results::Rules {
            lineage: lineage.state,
            any_lineage: settings.replay.is_some_and(|replay| replay.any_build),
            views: self.plan.views.clone(),
            processes: self.processes,
            halts: settings.on_difference == OnDifference::Halt,
        });
        let own = sequencer::Settings {
            cuts: settings.cuts.clone(),
            epochs_in_flight_max: settings.epochs_in_flight_max,
            replay_in_flight_max: REPLAY_IN_FLIGHT_MAX,
            workers: settings.workers * self.processes,
            results,
        };
        let sources = self.plan.sources.iter();
        Sequencer::new(own, sources.map(|source| source.rules.clone()).collect())
    }

    /// The program with its plan, and what it goes on from.
    fn lineage(&self, restored: Option<&Restored>) -> Lineage {
        let Some(program) = program() else {
            return Lineage::default();
        };
        let views = self.plan.views.join("\n");
        let program = xxh3_64(format!("{program}\n{}\n{views}", self.plan.text).as_bytes());
        let state = match restored.map(|restored| &restored.manifest) {
            None => program,
            Some(manifest) if manifest.lineage.program == program => manifest.lineage.state,
            Some(manifest) => {
                let was = [manifest.lineage.state, manifest.epoch.0, program];
                xxh3_64(was.map(u64::to_le_bytes).as_flattened())
            }
        };
        Lineage { program, state }
    }

    fn open(&self) -> Result<(Option<Box<dyn LedgerStore>>, Recovered)> {
        let sources = self.plan.sources.iter();
        let claim = Claim {
            app: self.settings.env.group.clone(),
            dataflow: self.flow.name().to_owned(),
            build: BUILD.to_owned(),
            sources: sources
                .map(|source| (source.rules.id, source.rules.name.clone()))
                .collect(),
        };
        if self.settings.replay.is_some() {
            let recovered = match &self.settings.store {
                Store::Directory(dir) => ledger::look(dir, &claim)?,
                Store::Memory(log) => MemoryLedger::open(&log.copy(), claim)?.1,
                Store::Opened(open) => open(claim)?.1,
            };
            return Ok((None, recovered));
        }
        Ok(match &self.settings.store {
            Store::Directory(dir) => {
                let (ledger, recovered) = Ledger::open(dir, claim)?;
                (Some(Box::new(ledger)), recovered)
            }
            Store::Memory(log) => {
                let (ledger, recovered) = MemoryLedger::open(log, claim)?;
                (Some(Box::new(ledger)), recovered)
            }
            Store::Opened(open) => {
                let (ledger, recovered) = open(claim)?;
                (Some(ledger), recovered)
            }
        })
    }
}

/// Where a replay ends.
fn last(replay: &Replay, recovered: &Recovered) -> Result<Epoch> {
    let Some(last) = recovered.last else {
        return Err(Error::definition(
            "nothing is bound yet, so there is nothing to go through again",
        ));
    };
    match replay.to {
        Some(to) if to > last => Err(Error::definition(format!(
            "the ledger does not go as far as epoch {to}"
        ))
        .detail(format!("its last is {last} ({})", last.opened_at()))),
        to => Ok(to.unwrap_or(last)),
    }
}

/// Before which epoch a replay needs state.
fn first(replay: &Replay, recovered: &Recovered, saves: &checkpoints::Settings) -> Result<Epoch> {
    let Some(trimmed) = recovered.trimmed else {
        return Ok(replay.from.unwrap_or_default());
    };
    let oldest = saves.store.epochs()?.first().copied();
    let least = oldest.map(Epoch::next);
    match (replay.from, least) {
        (Some(from), Some(least)) if from < least => Err(Error::definition(format!(
            "epoch {from} can't be gone through again"
        ))
        .detail(format!("the ledger was trimmed up to epoch {trimmed}"))
        .hint(format!("begin after the oldest checkpoint: --from {least}"))),
        (from, least) => Ok(from.or(least).unwrap_or_default()),
    }
}
