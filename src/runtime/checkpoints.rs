//! When checkpoints are due, and which one a run resumes from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::compatibility::Compatibility;
use crate::checkpoint::manifest::{Base, Manifest, StepFiles, StepSignature};
use crate::checkpoint::protocol::{
    self, CheckpointFacts, MismatchPolicy, RebuildReason, StartDecision, StartRefusal, StepsMatch,
};
use crate::checkpoint::store::{CheckpointStore, RestoredCheckpoint};
use crate::error::{Error, Result};
use crate::fault;
use crate::ledger::{Bindings, Recovered};
use crate::position::SourceId;
use crate::sequencer::{ClockReading, Sequencer};
use crate::time::Epoch;

/// Settings of checkpoints.
#[derive(Clone)]
pub struct CheckpointSettings {
    /// Their location.
    pub store: CheckpointStore,
    /// The schedule.
    pub due: CheckpointSchedule,
    /// The number to keep.
    pub keep: usize,
    /// What to do with a checkpoint by another build with the same steps.
    pub on_new_build: OnNewProgram,
    /// What to do with a checkpoint of other steps, unless that is [clear](Compatibility::needs_no_decision).
    pub on_new_plan: OnNewProgram,
}

/// What to do with the state of another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNewProgram {
    /// Resume from it: rows in state stay as the old code computed them, and new input goes through the new
    /// code. If the steps differ, the state of removed steps is dropped, and new and changed steps start
    /// empty at the checkpoint.
    #[default]
    Accept,
    /// The same, but steps of which only the [inputs](Compatibility::keeping) differ keep their state, as
    /// long as their types and version are unchanged: for changes that produce the same events, such as
    /// merging two filters. Their views are rebuilt from that state.
    Keep,
    /// Refuse to start.
    Refuse,
    /// Rebuild all state from the topics.
    Rebuild,
}

impl CheckpointSettings {
    /// Checkpoints in `store`, two of which are kept; another build is accepted, another plan refused.
    pub fn new(store: CheckpointStore, due: CheckpointSchedule) -> Self {
        Self {
            store,
            due,
            keep: 2,
            on_new_build: OnNewProgram::Accept,
            on_new_plan: OnNewProgram::Refuse,
        }
    }
}

impl OnNewProgram {
    fn policy(self) -> MismatchPolicy {
        match self {
            Self::Accept | Self::Keep => MismatchPolicy::Resume,
            Self::Refuse => MismatchPolicy::Refuse,
            Self::Rebuild => MismatchPolicy::Rebuild,
        }
    }

    /// Compares steps with those of a checkpoint.
    pub(crate) fn compatibility(
        self,
        held: &[StepFiles],
        wanted: &[StepSignature],
        knows: impl Fn(&str) -> bool,
    ) -> Compatibility {
        match self {
            Self::Keep => Compatibility::keeping(held, wanted, knows),
            Self::Accept | Self::Refuse | Self::Rebuild => Compatibility::of(held, wanted, knows),
        }
    }
}

/// When checkpoints are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointSchedule {
    /// This long after the previous one began, if anything was bound since.
    Every(Duration),
    /// As of these epochs, for tests.
    At(BTreeSet<Epoch>),
}

/// Tracks when the next checkpoint is due.
pub(crate) struct CheckpointTimer {
    due: CheckpointSchedule,
    begun: Option<Duration>,
}

impl CheckpointTimer {
    pub(super) fn new(due: CheckpointSchedule) -> Self {
        Self { due, begun: None }
    }

    /// Whether a checkpoint as of `epoch` is due; if so, it counts as begun.
    pub(super) fn is_due(&mut self, epoch: Epoch, now: ClockReading) -> bool {
        match &self.due {
            CheckpointSchedule::At(epochs) => epochs.contains(&epoch),
            CheckpointSchedule::Every(interval) => {
                // The first one is due at once: so a process that is killed repeatedly makes progress.
                let since = |begun| now.mono.saturating_sub(begun) >= *interval;
                let due = self.begun.is_none_or(since);
                if due {
                    self.begun = Some(now.mono);
                }
                due
            }
        }
    }
}

/// The checkpoint to resume from: the newest intact one, before an epoch if one is given.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): its steps differ from the dataflow's.
/// [`Integrity`](crate::Kind::Integrity): it belongs to an epoch that is not in the ledger.
pub(super) fn choose(
    settings: &CheckpointSettings,
    (app, dataflow, build): (&str, &str, &str),
    states: &[StepSignature],
    recovered: &Recovered,
    before: Option<Epoch>,
) -> Result<Option<Arc<RestoredCheckpoint>>> {
    let store = &settings.store;
    let (found, notes) = store.newest(app, dataflow, before)?;
    for note in notes {
        tracing::warn!(note, "skipped a checkpoint");
    }
    let Some(manifest) = found else {
        return Ok(None);
    };
    let knows = |source: &str| recovered.state.sources().contains_key(&SourceId::of(source));
    let compatibility = settings.on_new_plan.compatibility(&manifest.steps, states, knows);
    let restored = RestoredCheckpoint::new(store.clone(), manifest, compatibility.held.clone());
    let manifest = &restored.manifest;
    let was = format!("it was written by {}; this is {build}", manifest.build);
    let facts = CheckpointFacts {
        epoch: manifest.epoch,
        last: recovered.last,
        trimmed: recovered.trimmed.is_some(),
        steps: steps(&compatibility),
        on_new_plan: settings.on_new_plan.policy(),
        other_build: manifest.build != build,
        on_new_build: settings.on_new_build.policy(),
    };
    let start = protocol::start(&facts);
    log_decision(settings.on_new_plan, &compatibility, start);
    match start {
        StartDecision::Resume => {}
        StartDecision::Rebuild(RebuildReason::Build) => {
            tracing::warn!(reason = was, "rebuilding all state from the topics");
            return Ok(None);
        }
        StartDecision::Rebuild(_) => return Ok(None),
        StartDecision::Refuse(refusal) => {
            let error = refusal_error(refusal, &compatibility, recovered, was);
            return Err(error.detail(restored.describe()));
        }
    }
    if facts.other_build {
        tracing::info!(
            reason = was,
            "resuming another build's checkpoint; its rows stay as that build \
            computed them"
        );
    }
    fault::point("restore.chosen");
    Ok(Some(restored))
}

fn steps(compatibility: &Compatibility) -> StepsMatch {
    match (
        compatibility.needs_no_decision(),
        compatibility.differences.is_empty(),
    ) {
        (true, _) => StepsMatch::Same,
        (false, true) => StepsMatch::Added,
        (false, false) => StepsMatch::Changed,
    }
}

/// Logs what happens to a checkpoint whose steps differ.
fn log_decision(on_new_plan: OnNewProgram, compatibility: &Compatibility, start: StartDecision) {
    if let StartDecision::Refuse(_) = start {
        return;
    }
    for view in &compatibility.views {
        tracing::info!(%view, "new view; it starts with its rows as of the checkpoint");
    }
    if compatibility.needs_no_decision() {
        return;
    }
    let decisions = compatibility.decisions().join("; ");
    match (start, on_new_plan) {
        (StartDecision::Rebuild(RebuildReason::Plan), _) => {
            tracing::warn!(
                changes = decisions,
                "the dataflow has changed; rebuilding all state from the \
                topics"
            )
        }
        (StartDecision::Rebuild(RebuildReason::Added), _) => tracing::info!(
            changes = decisions,
            "new steps need the full history; rebuilding all state from the topics"
        ),
        (_, OnNewProgram::Accept) => tracing::warn!(
            changes = decisions,
            "the dataflow has changed; new and changed steps start empty at the checkpoint, and so do \
             their views"
        ),
        (_, OnNewProgram::Keep) => tracing::warn!(
            changes = decisions,
            "the dataflow has changed; steps whose inputs alone changed keep their state, and their views \
             are rebuilt from it"
        ),
        _ => {}
    }
}

/// The error for a refused start; `was` describes the builds.
fn refusal_error(
    refusal: StartRefusal,
    compatibility: &Compatibility,
    recovered: &Recovered,
    was: String,
) -> Error {
    match refusal {
        StartRefusal::Ahead => {
            let last = recovered.last.map_or("it has no epochs".into(), |last| {
                format!("its last epoch is {last}")
            });
            Error::integrity("a checkpoint belongs to an epoch that is not in the ledger")
                .detail(last)
                .hint(
                    "the ledger has lost its end or is a different one: restore the ledger that belongs \
                     to the checkpoints; after a `ledger reset`, remove them with `thalweg checkpoint \
                     prune DIR --keep 0 --yes`",
                )
        }
        StartRefusal::Build => {
            let error = Error::definition("the checkpoint was written by another build").detail(was);
            error.hint(match recovered.trimmed {
                None => {
                    "choose: --set checkpoint.on_new_build=accept resumes from it, =rebuild rebuilds all \
                     state from the topics"
                }
                Some(_) => {
                    "resume from it: --set checkpoint.on_new_build=accept; or start over with what the \
                     topics hold: `ledger reset`"
                }
            })
        }
        StartRefusal::Trimmed => cannot_rebuild(recovered),
        StartRefusal::Added | StartRefusal::Changed => {
            steps_differ(compatibility, recovered.trimmed.is_none())
        }
    }
}

/// The error for a checkpoint with other steps.
fn steps_differ(compatibility: &Compatibility, is_whole: bool) -> Error {
    let error = match compatibility.differences.is_empty() {
        true => Error::definition("a new step of the dataflow needs history that the ledger no longer has"),
        false => Error::definition("the dataflow differs from the one that wrote the checkpoint"),
    };
    let error = compatibility.decisions().into_iter().fold(error, Error::detail);
    let anew = match is_whole {
        true => "--set checkpoint.on_new_plan=rebuild rebuilds all state from the topics",
        false => "`ledger reset` starts over with what the topics hold",
    };
    error.hint(format!(
        "run the dataflow that wrote it, or choose: --set checkpoint.on_new_plan=accept drops the state \
         of removed steps and starts new and changed ones empty at the checkpoint; =keep also keeps the \
         state of steps whose inputs alone changed, for changes that produce the same rows; {anew}"
    ))
}

/// The error for state that cannot be rebuilt: topics cannot restore the epochs of trimmed bindings.
fn cannot_rebuild(recovered: &Recovered) -> Error {
    let trimmed = recovered.trimmed.unwrap_or_default();
    Error::definition("state cannot be rebuilt: the beginning of the ledger was trimmed")
        .detail(format!(
            "bindings up to epoch {trimmed} are covered by checkpoints only"
        ))
        .hint(
            "resume from the checkpoint (`accept`), or start over with what the topics hold: `ledger \
             reset`; `checkpoint.trim_ledger=false` keeps a ledger complete",
        )
}

/// Checks that the ledger still has what a start from this checkpoint, or from nothing, needs.
pub(crate) fn is_whole(trimmed: Option<Epoch>, restored: Option<&Manifest>) -> Result<()> {
    let from = restored.and_then(|manifest| manifest.from.as_ref());
    match trimmed {
        Some(trimmed) if from.is_none_or(|base| base.binding.epoch < trimmed) => {
            let error =
                Error::integrity("the beginning of the ledger was trimmed, and no checkpoint covers it")
                    .detail(format!(
                        "bindings up to epoch {trimmed} are covered by checkpoints only"
                    ))
                    .hint(
                        "restore the checkpoints (next to the ledger, or in `checkpoint.store`) and set \
                 `checkpoint.interval` above 0s; or start over with what the topics hold: `ledger reset`",
                    );
            Err(match restored {
                Some(manifest) => error.detail(format!(
                    "the checkpoint of epoch {} needs earlier bindings",
                    manifest.epoch
                )),
                None => error,
            })
        }
        _ => Ok(()),
    }
}

/// The bindings from the ledger's start to the epoch that the state was restored as of.
pub(crate) struct RestoredPrefix {
    from: Option<Base>,
    upto: Epoch,
    chain: String,
}

impl RestoredPrefix {
    pub(super) fn new(restored: &RestoredCheckpoint) -> Self {
        let manifest = &restored.manifest;
        Self {
            from: manifest.from.clone(),
            upto: manifest.epoch,
            chain: manifest.chain.clone(),
        }
    }

    /// Skips bindings up to the checkpoint, as far as the sequencer accepts them. Returns whether it has
    /// reached it.
    pub(super) fn skip_bindings(
        &mut self,
        bindings: &mut Bindings,
        sequencer: &mut Sequencer,
        now: ClockReading,
    ) -> Result<bool> {
        if sequencer.last() == Epoch::ZERO
            && let Some(base) = &self.from
        {
            sequencer.restore(base.clone(), now)?;
        }
        while sequencer.wants_replay() {
            let Some(binding) = bindings.next().transpose()? else {
                return Err(self.missing_epoch());
            };
            let epoch = binding.epoch;
            if epoch > self.upto {
                return Err(self.missing_epoch());
            }
            if epoch > sequencer.last() {
                sequencer.skip(binding, now)?;
                fault::point("restore.skipped");
            }
            if epoch == self.upto {
                return self.reach_checkpoint(bindings, sequencer).map(|()| true);
            }
        }
        Ok(false)
    }

    fn reach_checkpoint(&self, bindings: &Bindings, sequencer: &mut Sequencer) -> Result<()> {
        let chain = bindings.chain_hash().map(|chain| chain.to_string());
        if chain.as_deref() != Some(&*self.chain) {
            return Err(
                Error::integrity("the checkpoint does not belong to this ledger's history")
                    .detail(format!(
                        "the ledger's hash as of epoch {} is {}",
                        self.upto,
                        chain.unwrap_or_default()
                    ))
                    .detail(format!("the checkpoint records {}", self.chain))
                    .hint(
                        "restore the ledger that belongs to the checkpoints, or remove them to replay the \
                         topics",
                    ),
            );
        }
        sequencer.restored();
        fault::point("restore.arrived");
        Ok(())
    }

    fn missing_epoch(&self) -> Error {
        Error::integrity(format!(
            "a checkpoint has epoch {}, but the ledger does not",
            self.upto
        ))
        .hint("restore the ledger that belongs to the checkpoints, or remove them to replay the topics")
    }
}
