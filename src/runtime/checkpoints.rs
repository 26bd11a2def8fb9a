//! When checkpoints are made, and which one a run begins with.

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

/// Whether and how checkpoints are made.
#[derive(Clone)]
pub struct Settings {
    /// Where they are.
    pub store: Store,
    /// When one is due.
    pub due: Due,
    /// How many are kept.
    pub keep: usize,
    /// What to do with one that another build made, of the same steps.
    pub on_new_build: OnNew,
    /// What to do with one of other steps, as far as that is not [clear](Fit::is_clear).
    pub on_new_plan: OnNew,
}

/// What to do with state that another program made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNew {
    /// Go on from it: rows in state stay as the old code made them, and what comes goes through the new code.
    /// Of a dataflow of other steps: what is gone is forgotten, what is new or changed begins behind it.
    #[default]
    Accept,
    /// The same, but what is [made of something else](Fit::keeping) than it was goes on from its state as
    /// well, as long as its types and version are what they were: for changes that come to the same events,
    /// such as two filters made one. Views of it begin anew from that state.
    Keep,
    /// Don't start.
    Refuse,
    /// Make all state anew from the topics.
    Rebuild,
}

impl Settings {
    /// Checkpoints in `store`, of which two are kept; another build is accepted, another plan refused.
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

    /// How steps meet those of a checkpoint.
    pub(crate) fn fit(self, held: &[StepFiles], wanted: &[StepShape], knows: impl Fn(&str) -> bool) -> Fit {
        match self {
            Self::Keep => Fit::keeping(held, wanted, knows),
            Self::Accept | Self::Refuse | Self::Rebuild => Fit::of(held, wanted, knows),
        }
    }
}

/// When a checkpoint is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// So long after the one before was begun, if anything was bound since.
    Every(Duration),
    /// As of these epochs: for tests.
    At(BTreeSet<Epoch>),
}

/// Tells when one is due.
pub(crate) struct Clock {
    due: Due,
    begun: Option<Duration>,
}

impl Clock {
    pub(super) fn new(due: Due) -> Self {
        Self { due, begun: None }
    }

    /// Whether one is due as of `epoch`; if so it counts as begun.
    pub(super) fn strikes(&mut self, epoch: Epoch, now: Now) -> bool {
        match &self.due {
            Due::At(epochs) => epochs.contains(&epoch),
            Due::Every(interval) => {
                // The first is due at once: a process that is killed again and again gets on all the same.
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

/// The checkpoint to begin with: the newest one that is whole, and `before` an epoch, if there is any.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): it holds other steps than the dataflow has.
/// [`Integrity`](crate::Kind::Integrity): it is of an epoch that the ledger does not know.
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
        tracing::warn!("{note}");
    }
    let Some(manifest) = found else {
        return Ok(None);
    };
    let knows = |source: &str| recovered.state.sources().contains_key(&SourceId::of(source));
    let fit = settings.on_new_plan.fit(&manifest.steps, states, knows);
    let restored = Restored::new(store.clone(), manifest, fit.held.clone());
    let manifest = &restored.manifest;
    let was = format!("it was made by {}, this is {build}", manifest.build);
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
            tracing::warn!("all state is made anew from the topics: {was}");
            return Ok(None);
        }
        Start::Anew(_) => return Ok(None),
        Start::Refuse(refusal) => {
            let error = refused(refusal, &fit, recovered, was);
            return Err(error.detail(restored.describe()));
        }
    }
    if facts.other_build {
        tracing::info!("{was}: rows in state stay as that one made them");
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

/// Says what becomes of a checkpoint of other steps than the dataflow has.
fn tell(on_new_plan: OnNew, fit: &Fit, start: Start) {
    if let Start::Refuse(_) = start {
        return;
    }
    for view in &fit.views {
        tracing::info!("{view} is new: it begins with its rows as of the checkpoint");
    }
    if fit.is_clear() {
        return;
    }
    let questions = fit.questions().join("; ");
    match (start, on_new_plan) {
        (Start::Anew(Why::Plan), _) => {
            tracing::warn!("all state is made anew from the topics, as the dataflow has changed: {questions}")
        }
        (Start::Anew(Why::Added), _) => tracing::info!(
            "all state is made anew from the topics, so that new steps count it all: {questions}"
        ),
        (_, OnNew::Accept) => tracing::warn!(
            "going on although the dataflow has changed: what is new or changed begins behind the checkpoint, and \
             its views anew: {questions}"
        ),
        (_, OnNew::Keep) => tracing::warn!(
            "going on although the dataflow has changed: what is only made of something else keeps its state, and its \
             views begin anew from that: {questions}"
        ),
        _ => {}
    }
}

/// Why there is no start from a checkpoint, made as `was` says.
fn refused(refusal: Refusal, fit: &Fit, recovered: &Recovered, was: String) -> Error {
    match refusal {
        Refusal::Ahead => {
            let last = recovered
                .last
                .map_or("it has none".into(), |last| format!("its last is {last}"));
            Error::integrity("a checkpoint is of an epoch that the ledger does not know")
                .detail(last)
                .hint(
                    "the ledger has lost its end, or is another one: find the one that belongs to the \
                    checkpoints; after a `ledger reset`, `thalweg checkpoint prune DIR --keep 0 --yes` lets \
                    go of them",
                )
        }
        Refusal::Build => {
            let error = Error::definition("the checkpoint was made by another build").detail(was);
            error.hint(match recovered.trimmed {
                None => {
                    "say what is to become of it: --set checkpoint.on_new_build=accept, or =rebuild to \
                    make all state anew from the topics"
                }
                Some(_) => {
                    "go on from it: --set checkpoint.on_new_build=accept; or begin afresh with what \
                    the topics hold: `ledger reset`"
                }
            })
        }
        Refusal::Trimmed => cannot_rebuild(recovered),
        Refusal::Added | Refusal::Changed => differs(fit, recovered.trimmed.is_none()),
    }
}

/// Why there is no start from a checkpoint of other steps.
fn differs(fit: &Fit, is_whole: bool) -> Error {
    let error = match fit.differences.is_empty() {
        true => Error::definition(
            "the dataflow has a step that would have to count what the ledger no longer has",
        ),
        false => Error::definition("the dataflow is not the one that the checkpoint was made of"),
    };
    let error = fit.questions().into_iter().fold(error, Error::detail);
    let anew = match is_whole {
        true => "--set checkpoint.on_new_plan=rebuild makes all state anew from the topics",
        false => "`ledger reset` begins afresh with what the topics hold",
    };
    error.hint(format!(
        "run the dataflow that made it; or go on: --set checkpoint.on_new_plan=accept forgets what is gone \
         and lets what is new or changed begin behind the checkpoint; =keep lets what is only made of \
         something else go on from its state, for a change that makes no other rows; {anew}"
    ))
}

/// What was trimmed from the ledger no topic brings back in its epochs.
fn cannot_rebuild(recovered: &Recovered) -> Error {
    let trimmed = recovered.trimmed.unwrap_or_default();
    Error::definition("state can't be made anew: the beginning of the ledger is gone")
        .detail(format!(
            "what was bound up to epoch {trimmed} was left to the checkpoints"
        ))
        .hint(
            "go on from the checkpoint (`accept`), or begin afresh with what the topics hold: `ledger \
            reset`; a ledger is left whole by `checkpoint.trim_ledger=false`",
        )
}

/// Whether the ledger still has what a start from this checkpoint, or from nothing, needs.
pub(crate) fn is_whole(trimmed: Option<Epoch>, restored: Option<&Manifest>) -> Result<()> {
    let from = restored.and_then(|manifest| manifest.from.as_ref());
    match trimmed {
        Some(trimmed) if from.is_none_or(|base| base.binding.epoch < trimmed) => {
            let error = Error::integrity(
                "the beginning of the ledger is gone, and no checkpoint stands for \
                it",
            )
            .detail(format!(
                "what was bound up to epoch {trimmed} was left to the checkpoints"
            ))
            .hint(
                "put the checkpoints back to where they were (beside the ledger, or in \
                    `checkpoint.store`), with a `checkpoint.interval` above 0s; or start afresh from what \
                    the topics hold: `ledger reset`",
            );
            Err(match restored {
                Some(manifest) => {
                    error.detail(format!("the checkpoint of epoch {} needs more", manifest.epoch))
                }
                None => error,
            })
        }
        _ => Ok(()),
    }
}

/// The way from the ledger's start to the epoch that state was restored as of.
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

    /// Goes through the bindings up to the checkpoint, as far as the sequencer takes them; whether that was
    /// all.
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
                Error::integrity("the checkpoint belongs to another history than the ledger's")
                    .detail(format!(
                        "up to epoch {} the ledger's hash is {}",
                        self.upto,
                        chain.unwrap_or_default()
                    ))
                    .detail(format!("the checkpoint was made under {}", self.chain))
                    .hint(
                        "find the ledger that belongs to the checkpoints, or remove them to go through the \
                    topics again",
                    ),
            );
        }
        sequencer.restored();
        fault::point("restore.arrived");
        Ok(())
    }

    fn lost(&self) -> Error {
        Error::integrity(format!(
            "the ledger does not have epoch {}, and a checkpoint does",
            self.upto
        ))
        .hint(
            "find the ledger that belongs to the checkpoints, or remove them to go through the topics again",
        )
    }
}
