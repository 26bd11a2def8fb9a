//! Decides who may write checkpoints to a location and where a start resumes: from facts, without I/O.
//!
//! ```text
//!   to take over    look: a later owner? stop ─▶ publish the own file ─▶ look: remove those that are not later
//!   to write        look: nobody else but earlier owners? write
//!   to start        the newest whole checkpoint, the ledger's last epoch, what differs, the settings ─▶ go on, anew, or refuse
//! ```

use crate::checkpoint::owner::Owner;
use crate::time::Epoch;

/// A later owner of the same ledger, which prevents `own` from taking over a location.
pub(crate) fn later_owner<'a>(own: &Owner, there: &'a [Owner]) -> Option<&'a Owner> {
    there.iter().find(|other| own.precedes(other))
}

/// The owners that `own`, whose file exists, has replaced; their files are to be removed. Between two
/// ledgers, or a ledger and its copy, the last start owns the location.
pub(crate) fn replaced_owners<'a>(own: &Owner, there: &'a [Owner]) -> Vec<&'a Owner> {
    there
        .iter()
        .filter(|other| *other != own && !own.precedes(other))
        .collect()
}

/// Another owner whose file fences `own`: it must not write any more. The file of an earlier owner may be a
/// leftover.
pub(crate) fn rival_owner<'a>(own: &Owner, there: &'a [Owner]) -> Option<&'a Owner> {
    there.iter().find(|other| *other != own && !other.precedes(own))
}

/// What to do with state that is not fully compatible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MismatchPolicy {
    /// Resume from it anyway.
    Resume,
    /// Refuse to start.
    Refuse,
    /// Rebuild all state.
    Rebuild,
}

/// The facts about the newest intact checkpoint at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFacts {
    /// Its epoch.
    pub epoch: Epoch,
    /// The ledger's last epoch.
    pub last: Option<Epoch>,
    /// Whether the beginning of the ledger was trimmed.
    pub trimmed: bool,
    /// How its steps compare with those of the dataflow.
    pub steps: StepsMatch,
    /// The policy for different steps.
    pub on_new_plan: MismatchPolicy,
    /// Whether another build wrote it.
    pub other_build: bool,
    /// The policy for another build.
    pub on_new_build: MismatchPolicy,
}

/// How the steps of a checkpoint compare with those of a dataflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepsMatch {
    /// The same, or new ones that can start from the checkpoint.
    Same,
    /// There are new steps that need history from before the checkpoint.
    Added,
    /// Steps have changed or were removed.
    Changed,
}

/// Where a start resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartDecision {
    /// From the checkpoint.
    Resume,
    /// From the topics, through the entire ledger: the steps or the settings require it.
    Rebuild(RebuildReason),
    /// Not at all.
    Refuse(StartRefusal),
}

/// Why all state is rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebuildReason {
    /// New steps need the full history, and the ledger still has it.
    Added,
    /// The settings say so for changed steps.
    Plan,
    /// The settings say so for another build.
    Build,
}

/// Why a start is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartRefusal {
    /// The ledger does not contain the checkpoint's epoch.
    Ahead,
    /// New steps need history that the ledger no longer has.
    Added,
    /// The steps differ.
    Changed,
    /// The build differs.
    Build,
    /// State was to be rebuilt, but the beginning of the ledger was trimmed.
    Trimmed,
}

/// Decides where to start.
pub(crate) fn start(found: &CheckpointFacts) -> StartDecision {
    if found.last < Some(found.epoch) {
        return StartDecision::Refuse(StartRefusal::Ahead);
    }
    let anew = |why| match found.trimmed {
        true => StartDecision::Refuse(StartRefusal::Trimmed),
        false => StartDecision::Rebuild(why),
    };
    match (found.steps, found.on_new_plan) {
        (StepsMatch::Same, _) | (_, MismatchPolicy::Resume) => {}
        (_, MismatchPolicy::Rebuild) => return anew(RebuildReason::Plan),
        (StepsMatch::Added, MismatchPolicy::Refuse) if !found.trimmed => {
            return StartDecision::Rebuild(RebuildReason::Added);
        }
        (StepsMatch::Added, MismatchPolicy::Refuse) => return StartDecision::Refuse(StartRefusal::Added),
        (StepsMatch::Changed, MismatchPolicy::Refuse) => return StartDecision::Refuse(StartRefusal::Changed),
    }
    match found.on_new_build {
        MismatchPolicy::Refuse if found.other_build => StartDecision::Refuse(StartRefusal::Build),
        MismatchPolicy::Rebuild if found.other_build => anew(RebuildReason::Build),
        _ => StartDecision::Resume,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The steps of a process that takes over a location; others may take theirs between any two.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum At {
        Begun,
        MayPublish,
        Published,
        Holds,
        Stopped,
    }

    proptest! {
        /// However the steps of a ledger's owners interleave, an owner that checks before it writes notices
        /// that a later one has taken over.
        #[test]
        fn no_earlier_owner_writes_behind_a_later_one(steps in prop::collection::vec(0usize..4, 1..60)) {
            let owners: Vec<Owner> = (1..=4).map(|n| Owner { ledger: 7, generation: n, nonce: n }).collect();
            let (mut there, mut at) = (Vec::<Owner>::new(), [At::Begun; 4]);
            for n in steps {
                let own = owners[n];
                at[n] = match at[n] {
                    At::Begun => match later_owner(&own, &there) {
                        Some(_) => At::Stopped,
                        None => At::MayPublish,
                    },
                    At::MayPublish => {
                        there.push(own);
                        At::Published
                    }
                    At::Published => {
                        let gone: Vec<Owner> = replaced_owners(&own, &there).into_iter().copied().collect();
                        there.retain(|owner| !gone.contains(owner));
                        At::Holds
                    }
                    At::Holds => match rival_owner(&own, &there) {
                        Some(_) => At::Stopped,
                        None => {
                            let later = owners.iter().zip(at).filter(|(owner, _)| own.precedes(owner));
                            let holds = later.filter(|(_, at)| matches!(at, At::Published | At::Holds)).count();
                            prop_assert_eq!(holds, 0, "{:?} of {:?}", own, there);
                            At::Holds
                        }
                    },
                    At::Stopped => At::Stopped,
                };
            }
        }

        #[test]
        fn a_start_never_guesses(
            epoch in 1u64..5, last in prop::option::of(1u64..5), trimmed in any::<bool>(), steps in 0usize..3,
            plan in 0usize..3, other_build in any::<bool>(), build in 0usize..3,
        ) {
            let policies = [MismatchPolicy::Resume, MismatchPolicy::Refuse, MismatchPolicy::Rebuild];
            let found = CheckpointFacts {
                epoch: Epoch(epoch),
                last: last.map(Epoch),
                trimmed,
                steps: [StepsMatch::Same, StepsMatch::Added, StepsMatch::Changed][steps],
                on_new_plan: policies[plan],
                other_build,
                on_new_build: policies[build],
            };
            match start(&found) {
                StartDecision::Resume => {
                    prop_assert!(last >= Some(epoch));
                    prop_assert!(found.steps == StepsMatch::Same || found.on_new_plan == MismatchPolicy::Resume);
                    prop_assert!(!other_build || found.on_new_build == MismatchPolicy::Resume);
                }
                // Topics cannot restore the epochs of trimmed bindings.
                StartDecision::Rebuild(_) => prop_assert!(!trimmed && last >= Some(epoch)),
                StartDecision::Refuse(StartRefusal::Ahead) => prop_assert!(last < Some(epoch)),
                StartDecision::Refuse(StartRefusal::Trimmed | StartRefusal::Added) => prop_assert!(trimmed),
                StartDecision::Refuse(StartRefusal::Changed) => prop_assert_eq!(found.steps, StepsMatch::Changed),
                StartDecision::Refuse(StartRefusal::Build) => prop_assert!(other_build),
            }
        }
    }
}
