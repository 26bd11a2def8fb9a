//! Starts a run: opens the ledger, chooses a checkpoint, and determines the lineage of results.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::checkpoints::{self, CheckpointTimer, RestoredPrefix};
use super::control::{Leader, SequencerInbox};
use super::ledger_writer::{LedgerQueue, LedgerWriter};
use super::sinks;
use super::sources;
use super::watch::{self, WatchedSource};
use super::{
    BUILD, LedgerLocation, OnDifference, PlanSummary, ProcessState, REPLAY_IN_FLIGHT_MAX, Replay,
    RunSettings, build_id, program,
};
use crate::bridge::Halt;
use crate::checkpoint::Checkpoints;
use crate::checkpoint::manifest::Lineage;
use crate::checkpoint::owner::Owner;
use crate::checkpoint::pending::WriterIdentity;
use crate::checkpoint::store::RestoredCheckpoint;
use crate::checkpoint::writer::CheckpointWriter;
use crate::dataflow::Flow;
use crate::error::{Error, Result};
use crate::ledger::state::{LedgerState, SourceState};
use crate::ledger::{self, Claim, Ledger, LedgerStore, MemoryLedger, Recovered};
use crate::metrics::Metrics;
use crate::position::{Offset, PartitionId, SourceId};
use crate::sequencer::{self, Sequencer, results};
use crate::sink::process::{ProcessSinks, SinkRun};
use crate::time::Epoch;
use crate::view::Views;

/// The parts of a process before anything runs.
pub(super) struct ProcessParts {
    pub shared: Arc<ProcessState>,
    /// Set in the process with the ledger; not for a replay.
    pub leader_parts: Option<LeaderParts>,
}

/// The parts that only the process with the ledger runs.
pub(super) struct LeaderParts {
    pub ledger_writer: LedgerWriter,
    pub writer: Option<CheckpointWriter>,
    pub sources: Vec<WatchedSource>,
}

impl ProcessParts {
    /// Takes over the ledger and finds where to start; for a replay, only reads it.
    pub(super) fn of(flow: &Flow, plan: &PlanSummary, settings: RunSettings) -> Result<Self> {
        let cluster = settings.cluster.as_ref();
        let processes = cluster.map_or(1, |cluster| cluster.addresses.len());
        let leads = cluster.is_none_or(|cluster| cluster.process == 0);
        let views = Views::new(settings.workers * processes);
        let metrics = Metrics::new();
        let run = RunSetup {
            flow,
            plan,
            settings: &settings,
            processes,
            views: &views,
            metrics: &metrics,
        };
        let begun = if leads { run.begin()? } else { RunStart::default() };
        let plan_hash = run.plan_hash();
        let shared = Arc::new(ProcessState {
            flow: flow.clone(),
            views,
            sinks: Arc::new(begun.sinks),
            metrics,
            halt: Halt::default(),
            inbox: SequencerInbox::default(),
            leader: Mutex::new(begun.leader),
            replay_to: AtomicU64::new(begun.replay_to.map_or(0, |epoch| epoch.0)),
            bound_before: begun.bound_before.map_or_else(OnceLock::new, OnceLock::from),
            first_ends: Mutex::default(),
            caught_up: AtomicBool::new(false),
            live: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            troubles: Mutex::default(),
            sinks_elsewhere: Mutex::default(),
            partitions: Mutex::default(),
            sources: plan.sources.clone(),
            planned_sinks: plan.sinks.clone(),
            bound: Mutex::default(),
            idle: Mutex::default(),
            compared: Mutex::default(),
            checkpoints: begun.checkpoints.map_or_else(OnceLock::new, OnceLock::from),
            restored: begun.restored.map_or_else(OnceLock::new, OnceLock::from),
            states: plan.states.clone(),
            plan_hash,
            mesh: OnceLock::new(),
            settings,
        });
        sources::refresh_metrics(&shared);
        sinks::refresh_metrics(&shared);
        if let Some(restored) = shared.restored.get() {
            let (epoch, bytes) = (restored.manifest.epoch, restored.manifest.bytes());
            tracing::info!(epoch = epoch.0, time = %epoch.opened_at(), bytes, "resuming from a checkpoint");
            let at = &restored.manifest.at.binding;
            shared.note_bound(&at.ranges, &at.idle);
        }
        Ok(Self {
            shared,
            leader_parts: begun.leader_parts,
        })
    }
}

/// The starting state of the process with the ledger.
#[derive(Default)]
struct RunStart {
    leader: Option<Leader>,
    /// The last epoch to replay.
    replay_to: Option<Epoch>,
    /// The bound partitions: the offset from which each is read again, and the end.
    bound_before: Option<BTreeMap<PartitionId, (Offset, Offset)>>,
    leader_parts: Option<LeaderParts>,
    checkpoints: Option<Checkpoints>,
    sinks: ProcessSinks,
    /// The checkpoint to resume from.
    restored: Option<Arc<RestoredCheckpoint>>,
}

/// A flow, and how to run it.
struct RunSetup<'a> {
    flow: &'a Flow,
    plan: &'a PlanSummary,
    settings: &'a RunSettings,
    processes: usize,
    views: &'a Arc<Views>,
    metrics: &'a Metrics,
}

impl RunSetup<'_> {
    fn begin(&self) -> Result<RunStart> {
        let Self { settings, plan, .. } = self;
        // Before anything is claimed: types may be rejected.
        let saves = self.saves()?;
        let (ledger, recovered) = self.open()?;
        let mut begun = RunStart {
            replay_to: recovered.last,
            bound_before: Some(bound(&recovered.state)),
            ..RunStart::default()
        };
        let (to_ledger_writer, entries) = channel();
        begun.sinks = self.sinks(&recovered, LedgerQueue(to_ledger_writer.clone()))?;
        let build = build_id();
        let names = (&*settings.env.group, self.flow.name(), &*build);
        let mut upto = None;
        if let Some(replay) = settings.replay {
            upto = Some(last(&replay, &recovered)?);
            begun.replay_to = upto;
        }
        let owner = Owner::of(&recovered);
        begun.restored = self.restored(saves.as_ref(), names, &recovered, &owner)?;
        let lineage = self.lineage(begun.restored.as_deref());
        let (mut clock, mut writer) = (None, None);
        if let Some(saves) = saves.filter(|_| settings.replay.is_none()) {
            let held = self.views.clone();
            let (own, written) = Checkpoints::new(
                saves.store,
                WriterIdentity {
                    app: names.0.to_owned(),
                    dataflow: names.1.to_owned(),
                    build: names.2.to_owned(),
                    lineage,
                    owner,
                },
                plan.states.clone(),
                (settings.workers * self.processes, saves.keep),
                begun.restored.as_deref(),
                self.metrics.checkpoints.clone(),
                Arc::new(move |epoch| held.hold(epoch)),
            );
            (begun.checkpoints, writer) = (Some(own), Some(written));
            clock = Some(CheckpointTimer::new(saves.due));
        }
        begun.leader = Some(Leader::new(
            self.sequencer(lineage),
            recovered.bindings,
            to_ledger_writer,
            settings.until_end,
            begun.restored.as_deref().map(RestoredPrefix::new),
            clock,
            upto,
        ));
        if let Some(ledger) = &ledger {
            let bytes = i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX);
            self.metrics.ledger.bytes.set(bytes);
        }
        begun.leader_parts = ledger.map(|ledger| LeaderParts {
            ledger_writer: LedgerWriter::new(ledger, entries),
            writer,
            sources: watch::sources(&plan.sources, settings.substitutes.clone()),
        });
        Ok(begun)
    }

    /// The checkpoint that this run resumes from. Takes over its location, unless this is a replay.
    fn restored(
        &self,
        saves: Option<&checkpoints::CheckpointSettings>,
        names: (&str, &str, &str),
        recovered: &Recovered,
        owner: &Owner,
    ) -> Result<Option<Arc<RestoredCheckpoint>>> {
        let choose = |before| -> Result<_> {
            let restored = match saves {
                Some(saves) => checkpoints::choose(saves, names, &self.plan.states, recovered, before)?,
                None => None,
            };
            let manifest = restored.as_deref().map(|restored| &restored.manifest);
            checkpoints::is_whole(recovered.trimmed, manifest)?;
            Ok(restored)
        };
        let saves = match (saves, self.settings.replay) {
            (Some(saves), Some(replay)) => return choose(Some(first(&replay, recovered, saves)?)),
            (None, _) => return choose(None),
            (Some(saves), None) => saves,
        };
        let there = saves.store.epochs()?;
        let restored = choose(None)?;
        // Not before it is known that they belong to the ledger: their owner may be running.
        if let Err(error) = saves.store.take_over(names.0, names.1, owner) {
            tracing::warn!(%error, "cannot write checkpoints");
        }
        match saves.store.epochs()? == there {
            true => Ok(restored),
            // Its last checkpoint, or what it removed before it noticed.
            false => choose(None),
        }
    }

    /// The sinks with their progress; a replay writes to none.
    fn sinks(&self, recovered: &Recovered, log: LedgerQueue) -> Result<ProcessSinks> {
        if self.settings.replay.is_some() {
            return Ok(ProcessSinks::dry());
        }
        let run = SinkRun {
            ledger: recovered.made_us,
            generation: recovered.generation,
            last: recovered.last,
        };
        let known = |name: &str| recovered.state.sink(name).map(<[_]>::to_vec);
        let sinks = self.plan.sinks.iter();
        let sinks = sinks.map(|sink| (&*sink.name, sink.shards, known(&sink.name)));
        ProcessSinks::open(sinks, run, Some(Arc::new(log)))
    }

    /// The settings of checkpoints, if enabled.
    fn saves(&self) -> Result<Option<checkpoints::CheckpointSettings>> {
        let Some(saves) = self.settings.checkpoints.clone() else {
            return Ok(None);
        };
        if let Some(at) = self.plan.unsaved {
            tracing::warn!(step = %at, "checkpoints are disabled: this step may keep state that they \
                cannot capture");
            return Ok(None);
        }
        self.plan.check_state_types()?;
        Ok(Some(saves))
    }

    fn sequencer(&self, lineage: Lineage) -> Sequencer {
        let settings = self.settings;
        let compares = settings.on_difference != OnDifference::Ignore && lineage != Lineage::default();
        let results = compares.then(|| results::ResultRules {
            lineage: lineage.state,
            any_lineage: settings.replay.is_some_and(|replay| replay.any_build),
            views: self.plan.views.clone(),
            processes: self.processes,
            halts: settings.on_difference == OnDifference::Halt,
        });
        let own = sequencer::SequencerSettings {
            cuts: settings.cuts.clone(),
            epochs_in_flight_max: settings.epochs_in_flight_max,
            replay_in_flight_max: REPLAY_IN_FLIGHT_MAX,
            workers: settings.workers * self.processes,
            results,
        };
        let sources = self.plan.sources.iter();
        Sequencer::new(own, sources.map(|source| source.rules.clone()).collect())
    }

    /// The lineage: the program with its plan, and the state that it resumes from.
    fn lineage(&self, restored: Option<&RestoredCheckpoint>) -> Lineage {
        let Some(program) = program() else {
            return Lineage::default();
        };
        let plan = self.plan_text();
        let program = xxh3_64(format!("{program} {plan}").as_bytes());
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

    /// What the plan looks like, with the settings that results depend on.
    fn plan_text(&self) -> String {
        // Settings may define what happens to late events.
        let late: Vec<_> = self.plan.sources.iter().map(|source| source.late).collect();
        format!("{:?}", (&self.plan.text, &self.plan.views, late))
    }

    fn plan_hash(&self) -> u64 {
        xxh3_64(self.plan_text().as_bytes())
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
                LedgerLocation::Directory(dir) => ledger::look(dir, &claim)?,
                LedgerLocation::Memory(log) => MemoryLedger::open(&log.copy(), claim)?.1,
                LedgerLocation::Opened(open) => open(claim)?.1,
            };
            return Ok((None, recovered));
        }
        Ok(match &self.settings.store {
            LedgerLocation::Directory(dir) => {
                let (ledger, recovered) = Ledger::open(dir, claim)?;
                (Some(Box::new(ledger)), recovered)
            }
            LedgerLocation::Memory(log) => {
                let (ledger, recovered) = MemoryLedger::open(log, claim)?;
                (Some(Box::new(ledger)), recovered)
            }
            LedgerLocation::Opened(open) => {
                let (ledger, recovered) = open(claim)?;
                (Some(ledger), recovered)
            }
        })
    }
}

/// The bound partitions: their first offset, and the end.
fn bound(state: &LedgerState) -> BTreeMap<PartitionId, (Offset, Offset)> {
    let of = |(source, known): (&SourceId, &SourceState)| {
        let source = *source;
        let partitions = known.partitions.iter();
        let bound = partitions.map(move |(partition, bound)| {
            let partition = *partition;
            (PartitionId { source, partition }, (bound.first, bound.hi))
        });
        bound.collect::<Vec<_>>()
    };
    state.sources().iter().flat_map(of).collect()
}

/// The last epoch of a replay.
fn last(replay: &Replay, recovered: &Recovered) -> Result<Epoch> {
    let Some(last) = recovered.last else {
        return Err(Error::definition(
            "the ledger is empty: there is nothing to replay",
        ));
    };
    match replay.to {
        Some(to) if to > last => Err(beyond(to, last)),
        to => Ok(to.unwrap_or(last)),
    }
}

/// The epoch before which a replay needs state.
fn first(replay: &Replay, recovered: &Recovered, saves: &checkpoints::CheckpointSettings) -> Result<Epoch> {
    let last = recovered.last.unwrap_or_default();
    if let Some(from) = replay.from.filter(|from| *from > last) {
        return Err(beyond(from, last));
    }
    let Some(trimmed) = recovered.trimmed else {
        return Ok(replay.from.unwrap_or_default());
    };
    let oldest = saves.store.epochs()?.first().copied();
    let least = oldest.map(Epoch::next);
    match (replay.from, least) {
        (Some(from), Some(least)) if from < least => {
            Err(Error::definition(format!("epoch {from} cannot be replayed"))
                .detail(format!("the ledger was trimmed up to epoch {trimmed}"))
                .hint(format!("start after the oldest checkpoint: --from {least}")))
        }
        // The service may have written others since the ledger was read.
        (from, least) => Ok(from.or(least).unwrap_or_default().min(last.next())),
    }
}

fn beyond(epoch: Epoch, last: Epoch) -> Error {
    Error::definition(format!("epoch {epoch} is beyond the end of the ledger"))
        .detail(format!("its last epoch is {last} ({})", last.opened_at()))
}
