//! Who may write checkpoints to a place, and where a start goes on: facts in, a decision out, without I/O.
//!
//! ```text
//!   to take over    look: a later owner? stop ─▶ publish the own file ─▶ look: remove those that are not later
//!   to write        look: nobody else but earlier owners? write
//!   to start        the newest whole checkpoint, the ledger's last epoch, what differs, the settings ─▶ go on, anew, or refuse
//! ```

use crate::checkpoint::owner::Owner;
use crate::time::Epoch;

/// A later owner of the same ledger, by which `own` may not take a place over.
pub(crate) fn later_owner<'a>(own: &Owner, there: &'a [Owner]) -> Option<&'a Owner> {
    there.iter().find(|other| own.precedes(other))
}

/// The owners that `own`, whose file is there, has replaced: their files go. Between two ledgers, or a ledger
/// and its copy, the last start has the place.
pub(crate) fn replaced<'a>(own: &Owner, there: &'a [Owner]) -> Vec<&'a Owner> {
    there
        .iter()
        .filter(|other| *other != own && !own.precedes(other))
        .collect()
}

/// Another owner, by whose file `own` may write nothing any more. The file of an earlier one may be a
/// leftover.
pub(crate) fn rival<'a>(own: &Owner, there: &'a [Owner]) -> Option<&'a Owner> {
    there.iter().find(|other| *other != own && !other.precedes(own))
}

/// What to do with state that does not quite fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Go on from it all the same.
    GoOn,
    /// Don't start.
    Refuse,
    /// Make all state anew.
    Anew,
}

/// What is known of the newest whole checkpoint at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its epoch.
    pub epoch: Epoch,
    /// The ledger's last epoch.
    pub last: Option<Epoch>,
    /// Whether the ledger's beginning is gone.
    pub trimmed: bool,
    /// How its steps meet those of the dataflow.
    pub steps: Steps,
    /// What to do where they differ.
    pub on_new_plan: Policy,
    /// Whether another build made it.
    pub other_build: bool,
    /// What to do then.
    pub on_new_build: Policy,
}

/// How the steps of a checkpoint meet those of a dataflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    /// They are the same, or new ones can begin with what there is.
    Same,
    /// Steps are new that would have to count what came before.
    Added,
    /// Steps have changed or are gone.
    Changed,
}

/// Where a start goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// From the checkpoint.
    GoOn,
    /// From the topics, through all of the ledger: the steps ask for it, or the settings do.
    Anew(Why),
    /// Not at all.
    Refuse(Refusal),
}

/// Why all state is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// New steps count all of it, and the ledger still has it.
    Added,
    /// The settings say so of another plan.
    Plan,
    /// The settings say so of another build.
    Build,
}

/// Why there is no start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The ledger does not know the checkpoint's epoch.
    Ahead,
    /// New steps would have to count what the ledger no longer has.
    Added,
    /// The steps are others.
    Changed,
    /// The build is another one.
    Build,
    /// State was to be made anew, and the ledger's beginning is gone.
    Trimmed,
}

/// Where to start from what was found.
pub(crate) fn start(found: &Found) -> Start {
    if found.last < Some(found.epoch) {
        return Start::Refuse(Refusal::Ahead);
    }
    let anew = |why| match found.trimmed {
        true => Start::Refuse(Refusal::Trimmed),
        false => Start::Anew(why),
    };
    match (found.steps, found.on_new_plan) {
        (Steps::Same, _) | (_, Policy::GoOn) => {}
        (_, Policy::Anew) => return anew(Why::Plan),
        (Steps::Added, Policy::Refuse) if !found.trimmed => return Start::Anew(Why::Added),
        (Steps::Added, Policy::Refuse) => return Start::Refuse(Refusal::Added),
        (Steps::Changed, Policy::Refuse) => return Start::Refuse(Refusal::Changed),
    }
    match found.on_new_build {
        Policy::Refuse if found.other_build => Start::Refuse(Refusal::Build),
        Policy::Anew if found.other_build => anew(Why::Build),
        _ => Start::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a process does to a place, a step at a time; others may take theirs between any two.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum At {
        Begun,
        MayPublish,
        Published,
        Holds,
        Stopped,
    }

    proptest! {
        /// However the steps of several owners of a ledger mix: whoever looks before it writes finds out that
        /// a later one has taken the place over.
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
                        let gone: Vec<Owner> = replaced(&own, &there).into_iter().copied().collect();
                        there.retain(|owner| !gone.contains(owner));
                        At::Holds
                    }
                    At::Holds => match rival(&own, &there) {
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
            let policies = [Policy::GoOn, Policy::Refuse, Policy::Anew];
            let found = Found {
                epoch: Epoch(epoch),
                last: last.map(Epoch),
                trimmed,
                steps: [Steps::Same, Steps::Added, Steps::Changed][steps],
                on_new_plan: policies[plan],
                other_build,
                on_new_build: policies[build],
            };
            match start(&found) {
                Start::GoOn => {
                    prop_assert!(last >= Some(epoch));
                    prop_assert!(found.steps == Steps::Same || found.on_new_plan == Policy::GoOn);
                    prop_assert!(!other_build || found.on_new_build == Policy::GoOn);
                }
                // What was trimmed no topic brings back in its epochs.
                Start::Anew(_) => prop_assert!(!trimmed && last >= Some(epoch)),
                Start::Refuse(Refusal::Ahead) => prop_assert!(last < Some(epoch)),
                Start::Refuse(Refusal::Trimmed | Refusal::Added) => prop_assert!(trimmed),
                Start::Refuse(Refusal::Changed) => prop_assert_eq!(found.steps, Steps::Changed),
                Start::Refuse(Refusal::Build) => prop_assert!(other_build),
            }
        }
    }
}
