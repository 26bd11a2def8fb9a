//! When checkpoints are due, and which one a run resumes from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::fit::Fit;
use crate::checkpoint::manifest::{Base, Manifest, StepFiles, StepShape};
use crate::checkpoint::protocol::{self, Found, Policy, Refusal, Start, Steps, Why};
use crate::checkpoint::store::{Restored, Store};
use crate::error::{Error, Result};
use crate::fault;
use crate::ledger::{Bindings, Recovered};
use crate::position::SourceId;
use crate::sequencer::{Now, Sequencer};
use crate::time::Epoch;

/// Settings of checkpoints.
#[derive(Clone)]
pub struct Settings {
    /// Their location.
    pub store: Store,
    /// The schedule.
    pub due: Due,
    /// The number to keep.
    pub keep: usize,
    /// What to do with a checkpoint by another build with the same steps.
    pub on_new_build: OnNew,
    /// What to do with a checkpoint of other steps, unless that is [clear](Fit::is_clear).
    pub on_new_plan: OnNew,
}

/// What to do with the state of another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNew {
    /// Resume from it: rows in state stay as the old code computed them, and new input goes through the new
    /// code. If the steps differ, the state of removed steps is dropped, and new and changed steps start
    /// empty at the checkpoint.
    #[default]
    Accept,
    /// The same, but steps of which only the [inputs](Fit::keeping) differ keep their state, as long as their
    /// types and version are unchanged: for changes that produce the same events, such as merging two
    /// filters. Their views are rebuilt from that state.
    Keep,
    /// Refuse to start.
    Refuse,
    /// Rebuild all state from the topics.
    Rebuild,
}

impl Settings {
    /// Checkpoints in `store`, two of which are kept; another build is accepted, another plan refused.
    pub fn new(store: Store, due: Due) -> Self {
        Self {
            store,
            due,
            keep: 2,
            on_new_build: OnNew::Accept,
            on_new_plan: OnNew::Refuse,
        }
    }
}

impl OnNew {
    fn policy(self) -> Policy {
        match self {
            Self::Accept | Self::Keep => Policy::GoOn,
            Self::Refuse => Policy::Refuse,
            Self::Rebuild => Policy::Anew,
        }
    }

    /// Compares steps with those of a checkpoint.
    pub(crate) fn fit(self, held: &[StepFiles], wanted: &[StepShape], knows: impl Fn(&str) -> bool) -> Fit {
        match self {
            Self::Keep => Fit::keeping(held, wanted, knows),
            Self::Accept | Self::Refuse | Self::Rebuild => Fit::of(held, wanted, knows),
        }
    }
}

/// When checkpoints are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// This long after the previous one began, if anything was bound since.
    Every(Duration),
    /// As of these epochs, for tests.
    At(BTreeSet<Epoch>),
}

/// Tracks when the next checkpoint is due.
pub(crate) struct Clock {
    due: Due,
    begun: Option<Duration>,
}

impl Clock {
    pub(super) fn new(due: Due) -> Self {
        Self { due, begun: None }
    }

    /// Whether a checkpoint as of `epoch` is due; if so, it counts as begun.
    pub(super) fn strikes(&mut self, epoch: Epoch, now: Now) -> bool {
        match &self.due {
            Due::At(epochs) => epochs.contains(&epoch),
            Due::Every(interval) => {
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
    settings: &Settings,
    (app, dataflow, build): (&str, &str, &str),
    states: &[StepShape],
    recovered: &Recovered,
    before: Option<Epoch>,
) -> Result<Option<Arc<Restored>>> {
    let store = &settings.store;
    let (found, notes) = store.newest(app, dataflow, before)?;
    for note in notes {
        tracing::warn!(note, "skipped a checkpoint");
    }
    let Some(manifest) = found else {
        return Ok(None);
    };
    let knows = |source: &str| recovered.state.sources().contains_key(&SourceId::of(source));
    let fit = settings.on_new_plan.fit(&manifest.steps, states, knows);
    let restored = Restored::new(store.clone(), manifest, fit.held.clone());
    let manifest = &restored.manifest;
    let was = format!("it was written by {}; this is {build}", manifest.build);
    let facts = Found {
        epoch: manifest.epoch,
        last: recovered.last,
        trimmed: recovered.trimmed.is_some(),
        steps: steps(&fit),
        on_new_plan: settings.on_new_plan.policy(),
        other_build: manifest.build != build,
        on_new_build: settings.on_new_build.policy(),
    };
    let start = protocol::start(&facts);
    tell(settings.on_new_plan, &fit, start);
    match start {
        Start::GoOn => {}
        Start::Anew(Why::Build) => {
            tracing::warn!(reason = was, "rebuilding all state from the topics");
            return Ok(None);
        }
        Start::Anew(_) => return Ok(None),
        Start::Refuse(refusal) => {
            let error = refused(refusal, &fit, recovered, was);
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

fn steps(fit: &Fit) -> Steps {
    match (fit.is_clear(), fit.differences.is_empty()) {
        (true, _) => Steps::Same,
        (false, true) => Steps::Added,
        (false, false) => Steps::Changed,
    }
}

/// Logs what happens to a checkpoint whose steps differ.
fn tell(on_new_plan: OnNew, fit: &Fit, start: Start) {
    if let Start::Refuse(_) = start {
        return;
    }
    for view in &fit.views {
        tracing::info!(%view, "new view; it starts with its rows as of the checkpoint");
    }
    if fit.is_clear() {
        return;
    }
    let questions = fit.questions().join("; ");
    match (start, on_new_plan) {
        (Start::Anew(Why::Plan), _) => {
            tracing::warn!(
                changes = questions,
                "the dataflow has changed; rebuilding all state from the \
                topics"
            )
        }
        (Start::Anew(Why::Added), _) => tracing::info!(
            changes = questions,
            "new steps need the full history; rebuilding all state from the topics"
        ),
        (_, OnNew::Accept) => tracing::warn!(
            changes = questions,
            "the dataflow has changed; new and changed steps start empty at the checkpoint, and so do \
             their views"
        ),
        (_, OnNew::Keep) => tracing::warn!(
            changes = questions,
            "the dataflow has changed; steps whose inputs alone changed keep their state, and their views \
             are rebuilt from it"
        ),
        _ => {}
    }
}

/// The error for a refused start; `was` describes the builds.
fn refused(refusal: Refusal, fit: &Fit, recovered: &Recovered, was: String) -> Error {
    match refusal {
        Refusal::Ahead => {
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
        Refusal::Build => {
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
        Refusal::Trimmed => cannot_rebuild(recovered),
        Refusal::Added | Refusal::Changed => differs(fit, recovered.trimmed.is_none()),
    }
}

/// The error for a checkpoint with other steps.
fn differs(fit: &Fit, is_whole: bool) -> Error {
    let error = match fit.differences.is_empty() {
        true => Error::definition("a new step of the dataflow needs history that the ledger no longer has"),
        false => Error::definition("the dataflow differs from the one that wrote the checkpoint"),
    };
    let error = fit.questions().into_iter().fold(error, Error::detail);
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
pub(crate) struct Way {
    from: Option<Base>,
    upto: Epoch,
    chain: String,
}

impl Way {
    pub(super) fn new(restored: &Restored) -> Self {
        let manifest = &restored.manifest;
        Self {
            from: manifest.from.clone(),
            upto: manifest.epoch,
            chain: manifest.chain.clone(),
        }
    }

    /// Skips bindings up to the checkpoint, as far as the sequencer accepts them. Returns whether it has
    /// reached it.
    pub(super) fn go(
        &mut self,
        bindings: &mut Bindings,
        sequencer: &mut Sequencer,
        now: Now,
    ) -> Result<bool> {
        if sequencer.last() == Epoch::ZERO
            && let Some(base) = &self.from
        {
            sequencer.restore(base.clone(), now)?;
        }
        while sequencer.wants_replay() {
            let Some(binding) = bindings.next().transpose()? else {
                return Err(self.lost());
            };
            let epoch = binding.epoch;
            if epoch > self.upto {
                return Err(self.lost());
            }
            if epoch > sequencer.last() {
                sequencer.skip(binding, now)?;
                fault::point("restore.skipped");
            }
            if epoch == self.upto {
                return self.arrive(bindings, sequencer).map(|()| true);
            }
        }
        Ok(false)
    }

    fn arrive(&self, bindings: &Bindings, sequencer: &mut Sequencer) -> Result<()> {
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

    fn lost(&self) -> Error {
        Error::integrity(format!(
            "a checkpoint has epoch {}, but the ledger does not",
            self.upto
        ))
        .hint("restore the ledger that belongs to the checkpoints, or remove them to replay the topics")
    }
}
