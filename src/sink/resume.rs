//! Where a shard goes on: facts in, a decision out, without I/O.
//!
//! ```text
//!   the ledger       what it recorded of the shard, its last epoch, its own age and generation ─┬─▶ deliver what comes after
//!   the store        what a transactional one committed last                                    ─┘   or refuse, and say why
//! ```
//!
//! Everything at or before the epoch that a shard goes on after was delivered: it is dropped where it comes
//! again. A shard that never got anything has no such epoch, and takes all that comes, restored rows
//! included.

use crate::error::Error;
use crate::sink::Progress;
use crate::time::Epoch;

/// What is known of a shard when it begins, or when its writer was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResumeFacts {
    /// When the ledger was made.
    pub ledger: u64,
    /// The generation of this service.
    pub generation: u64,
    /// The last epoch that may have been given to the shard: bound in the ledger, or given in this run.
    pub given: Option<Epoch>,
    /// The store is known to have everything up to this epoch: by the ledger, or from this run.
    pub complete: Option<Epoch>,
    /// The last epoch that is known to have brought it rows.
    pub delivered: Option<Epoch>,
}

/// Where a shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResumePoint {
    /// Epochs up to here are dropped.
    pub after: Option<Epoch>,
    /// Rows that a transactional store has.
    pub rows: u64,
}

/// Why a shard can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResumeRefusal {
    /// The store has less than it was known to have.
    Lost { delivered: Epoch, found: Option<Epoch> },
    /// The store is further than the ledger.
    Ahead { found: Epoch, given: Option<Epoch> },
    /// A newer service writes to the store.
    Fenced { generation: u64 },
    /// A service with a newer ledger does.
    Replaced,
}

/// Whether a shard begins with all rows as of the checkpoint that a start goes on from: it was not there when
/// that was made.
///
/// A checkpoint is published once the ledger says of each shard of the dataflow that it has everything up to
/// there.
pub(crate) fn is_new(complete: Option<Epoch>, restored: Option<Epoch>) -> bool {
    complete < restored
}

/// Where a shard of a transactional sink goes on: the store decides, as far as it can be the one that the
/// ledger speaks of. Of other sinks what is [known to be complete](ResumeFacts::complete) is all that is
/// known.
pub(crate) fn from_store(
    facts: &ResumeFacts,
    stored: Option<&Progress>,
) -> Result<ResumePoint, ResumeRefusal> {
    if stored.is_some_and(|stored| stored.ledger > facts.ledger) {
        return Err(ResumeRefusal::Replaced);
    }
    // What was committed under an older ledger says nothing about this one.
    let stored = stored.filter(|stored| stored.ledger == facts.ledger);
    let found = stored.map(|stored| stored.epoch);
    if let Some(delivered) = facts.delivered.filter(|delivered| found < Some(*delivered)) {
        return Err(ResumeRefusal::Lost { delivered, found });
    }
    if let Some(stored) = stored {
        let generation = stored.generation;
        if generation > facts.generation {
            return Err(ResumeRefusal::Fenced { generation });
        }
        if facts.given < found {
            return Err(ResumeRefusal::Ahead {
                found: stored.epoch,
                given: facts.given,
            });
        }
    }
    Ok(ResumePoint {
        after: found.max(facts.complete),
        rows: stored.map_or(0, |stored| stored.rows),
    })
}

impl ResumeRefusal {
    /// For a person.
    pub(crate) fn error(self, sink: &str) -> Error {
        match self {
            Self::Lost { delivered, found } => {
                let found = found.map_or("nothing".into(), |epoch| format!("epoch {epoch}"));
                Error::integrity(format!("the store of sink `{sink}` has lost rows"))
                    .detail(format!("it had committed epoch {delivered}, and now has {found}"))
                    .hint(
                        "put the store back to where it was; or give the sink another name, and an empty \
                        store, to fill it anew",
                    )
            }
            Self::Ahead { found, given } => {
                let given = given.map_or("none".into(), |epoch| epoch.to_string());
                Error::integrity(format!("sink `{sink}` is further than the ledger"))
                    .detail(format!(
                        "its store has epoch {found}, and the ledger's last is {given}"
                    ))
                    .hint(
                        "the ledger has lost its end, or is another one: put back the one that belongs to \
                        the store",
                    )
            }
            Self::Replaced => Error::integrity(format!("another ledger's rows go to sink `{sink}`"))
                .detail("what its store has was committed under a ledger that is newer than this one")
                .hint(
                    "is the dataflow running elsewhere, with another data directory? Only one may write: \
                     give \
                    the other one another `group`, or its sink another name",
                ),
            Self::Fenced { generation } => {
                Error::integrity(format!("another process writes to sink `{sink}`"))
                    .detail(format!(
                        "it is of generation {generation} of the ledger, which is newer"
                    ))
                    .hint("only one process may run a dataflow; this one stops")
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
        fn facts()(ledger in 1u64..3, generation in 1u64..4, given in epoch(), complete in epoch(),
                   delivered in epoch()) -> ResumeFacts {
            // The ledger records nothing that it has not bound.
            let complete = complete.min(given);
            ResumeFacts { ledger, generation, given, complete, delivered: delivered.min(complete) }
        }
    }

    prop_compose! {
        fn progress()(ledger in 1u64..3, generation in 1u64..4, epoch in 1u64..9, rows in 0u64..50) -> Progress {
            Progress { ledger, generation, epoch: Epoch(epoch), rows }
        }
    }

    proptest! {
        /// Nothing that the store has is delivered again, and nothing is dropped that it does not have.
        #[test]
        fn a_store_goes_on_exactly_behind_what_it_has(facts in facts(), stored in prop::option::of(progress())) {
            let own = stored.clone().filter(|stored| stored.ledger == facts.ledger);
            let found = own.as_ref().map(|own| own.epoch);
            match from_store(&facts, stored.as_ref()) {
                Ok(resume) => {
                    prop_assert!(found >= facts.delivered && found <= facts.given);
                    // Between what it committed last and what is complete there was nothing for it.
                    prop_assert!(resume.after >= found && resume.after >= facts.complete);
                    prop_assert!(resume.after == found || resume.after == facts.complete);
                    prop_assert!(resume.after <= facts.given);
                    prop_assert_eq!(resume.rows, own.as_ref().map_or(0, |own| own.rows));
                    prop_assert!(own.is_none_or(|own| own.generation <= facts.generation));
                }
                Err(ResumeRefusal::Lost { delivered, found: had }) => {
                    prop_assert_eq!((Some(delivered), found), (facts.delivered, had));
                    prop_assert!(found < facts.delivered);
                }
                Err(ResumeRefusal::Ahead { found: ahead, .. }) => {
                    prop_assert!(Some(ahead) == found && found > facts.given);
                }
                Err(ResumeRefusal::Fenced { generation }) => prop_assert!(generation > facts.generation),
                Err(ResumeRefusal::Replaced) => prop_assert!(stored.is_some_and(|stored| stored.ledger > facts.ledger)),
            }
        }

        /// Whoever was there at the checkpoint is not given its rows again; whoever was not is.
        #[test]
        fn a_shard_is_new_to_a_checkpoint_that_was_made_without_it(complete in epoch(), restored in epoch()) {
            prop_assert_eq!(is_new(complete, restored), restored.is_some_and(|epoch| complete < Some(epoch)));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refusals = [
            ResumeRefusal::Lost {
                delivered: Epoch(7),
                found: Some(Epoch(3)),
            },
            ResumeRefusal::Ahead {
                found: Epoch(9),
                given: None,
            },
            ResumeRefusal::Fenced { generation: 4 },
            ResumeRefusal::Replaced,
        ];
        for refusal in refusals {
            let text = refusal.error("audit").to_string();
            assert!(text.contains("sink `audit`") && text.contains("hint: "), "{text}");
        }
    }
}
