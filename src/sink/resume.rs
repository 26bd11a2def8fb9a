//! Where a shard goes on: facts in, a decision out, without I/O.
//!
//! ```text
//!   the ledger       what it recorded of the shard, its last epoch, its own age and generation ─┐
//!   the checkpoint   the epoch that state was restored as of                                    ├─▶ deliver what comes after
//!   the store        what a transactional one committed last                                    ─┘   or refuse, and say why
//! ```
//!
//! Everything at or before the epoch that a shard goes on after was delivered: it is dropped where it comes again. A shard
//! that never got anything has no such epoch, and takes all that comes, restored rows included.

use crate::error::Error;
use crate::sink::Progress;
use crate::time::Epoch;

/// What is known of a shard when it begins, or when its writer was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// When the ledger was made.
    pub ledger: u64,
    /// The generation of this service.
    pub generation: u64,
    /// The last epoch that may have been given to the shard: bound in the ledger, or given in this run.
    pub given: Option<Epoch>,
    /// The last epoch that is known to have been delivered: from the ledger, or in this run.
    pub recorded: Option<Epoch>,
    /// The checkpoint that this run began with.
    pub restored: Option<Epoch>,
}

/// Where a shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// Epochs up to here are dropped.
    pub after: Option<Epoch>,
    /// Rows that a transactional store has.
    pub rows: u64,
}

/// Why a shard can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The store has less than it was known to have.
    Lost { recorded: Epoch, found: Option<Epoch> },
    /// The store is further than the ledger.
    Ahead { found: Epoch, given: Option<Epoch> },
    /// A newer service writes to the store.
    Fenced { generation: u64 },
}

/// Of a versioned or repeating sink: what the ledger recorded is all that is known.
///
/// A checkpoint counts once no row of before waits, so a shard that has got anything has all up to there, although the ledger
/// may know less.
pub(crate) fn from_ledger(recorded: Option<Epoch>, restored: Option<Epoch>) -> Option<Epoch> {
    recorded.map(|recorded| recorded.max(restored.unwrap_or_default()))
}

/// Of a transactional sink: the store decides, as far as it can be the one that the ledger speaks of.
pub(crate) fn from_store(facts: &Facts, stored: Option<&Progress>) -> Result<Resume, Refusal> {
    // What was committed under another ledger says nothing about this one.
    let stored = stored.filter(|stored| stored.ledger == facts.ledger);
    let found = stored.map(|stored| stored.epoch);
    if let Some(recorded) = facts.recorded.filter(|recorded| found < Some(*recorded)) {
        return Err(Refusal::Lost { recorded, found });
    }
    let Some(stored) = stored else {
        return Ok(Resume { after: None, rows: 0 });
    };
    if stored.generation > facts.generation {
        return Err(Refusal::Fenced {
            generation: stored.generation,
        });
    }
    if facts.given < Some(stored.epoch) {
        return Err(Refusal::Ahead {
            found: stored.epoch,
            given: facts.given,
        });
    }
    Ok(Resume {
        after: from_ledger(found, facts.restored),
        rows: stored.rows,
    })
}

impl Refusal {
    /// For a person.
    pub(crate) fn error(self, sink: &str) -> Error {
        match self {
            Self::Lost { recorded, found } => {
                let found = found.map_or("nothing".into(), |epoch| format!("epoch {epoch}"));
                Error::integrity(format!("the store of sink `{sink}` has lost rows"))
                    .detail(format!("it had committed epoch {recorded}, and now has {found}"))
                    .hint("put the store back to where it was; or give the sink another name, and an empty store, to fill it anew")
            }
            Self::Ahead { found, given } => {
                let given = given.map_or("none".into(), |epoch| epoch.to_string());
                Error::integrity(format!("sink `{sink}` is further than the ledger"))
                    .detail(format!("its store has epoch {found}, and the ledger's last is {given}"))
                    .hint("the ledger has lost its end, or is another one: put back the one that belongs to the store")
            }
            Self::Fenced { generation } => {
                Error::integrity(format!("another process writes to sink `{sink}`"))
                    .detail(format!(
                        "it is of generation {generation} of the ledger, which is newer"
                    ))
                    .hint("only one process may run a dataflow: this one stops")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch() -> impl Strategy<Value = Option<Epoch>> {
        prop::option::of((1u64..9).prop_map(Epoch))
    }

    prop_compose! {
        fn facts()(ledger in 1u64..3, generation in 1u64..4, given in epoch(), recorded in epoch(),
                   restored in epoch()) -> Facts {
            // The ledger records and restores nothing that it has not bound.
            let upto = |epoch: Option<Epoch>| epoch.min(given);
            Facts { ledger, generation, given, recorded: upto(recorded), restored: upto(restored) }
        }
    }

    prop_compose! {
        fn progress()(ledger in 1u64..3, generation in 1u64..4, epoch in 1u64..9, rows in 0u64..50) -> Progress {
            Progress { ledger, generation, epoch: Epoch(epoch), rows }
        }
    }

    proptest! {
        /// Nothing that the store has is delivered again, and nothing is dropped that it can't have.
        #[test]
        fn a_store_goes_on_exactly_behind_what_it_has(facts in facts(), stored in prop::option::of(progress())) {
            let own = stored.clone().filter(|stored| stored.ledger == facts.ledger);
            match from_store(&facts, stored.as_ref()) {
                Ok(resume) => {
                    prop_assert_eq!(resume.after.is_some(), own.is_some(), "new exactly if the store has nothing");
                    let Some(own) = own else { return Ok(()) };
                    prop_assert!(own.generation <= facts.generation);
                    prop_assert!(Some(own.epoch) >= facts.recorded && Some(own.epoch) <= facts.given);
                    // Between what it has and the checkpoint there was nothing for it.
                    prop_assert_eq!(resume.after, Some(own.epoch).max(facts.restored));
                    prop_assert!(resume.after <= facts.given);
                    prop_assert_eq!(resume.rows, own.rows);
                }
                Err(Refusal::Lost { recorded, found }) => {
                    prop_assert_eq!(Some(recorded), facts.recorded);
                    prop_assert!(own.is_none_or(|own| own.epoch < recorded && found == Some(own.epoch)));
                }
                Err(Refusal::Ahead { found, .. }) => prop_assert!(Some(found) > facts.given),
                Err(Refusal::Fenced { generation }) => prop_assert!(generation > facts.generation),
            }
        }

        #[test]
        fn the_ledger_alone_never_drops_what_was_not_recorded(recorded in epoch(), restored in epoch()) {
            let after = from_ledger(recorded, restored);
            prop_assert_eq!(after.is_some(), recorded.is_some());
            prop_assert!(after.is_none_or(|after| Some(after) == recorded || Some(after) == restored));
            prop_assert!(after >= recorded);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refusals = [
            Refusal::Lost {
                recorded: Epoch(7),
                found: Some(Epoch(3)),
            },
            Refusal::Ahead {
                found: Epoch(9),
                given: None,
            },
            Refusal::Fenced { generation: 4 },
        ];
        for refusal in refusals {
            let text = refusal.error("audit").to_string();
            assert!(text.contains("sink `audit`") && text.contains("hint: "), "{text}");
        }
    }
}
