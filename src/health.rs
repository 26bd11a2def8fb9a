//! What the process says of itself to whoever supervises it: is it ready to answer, and if not, why not.
//!
//! ```text
//!  runtime ── reasons ──► Readiness ◄── asks ── HTTP /health/ready
//!             "replay": "at 40 %, 2,100 epochs to go"        ready when no reason is left
//!             ── troubles ─►                                 told of, ready all the same
//! ```
//!
//! It lies below both, so that the runtime need not know that there is HTTP.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;

/// Something outside of the process that it needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// The schema registry.
    Registry,
    /// What the source of this name reads.
    Source(String),
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dependency::Registry => f.write_str("the schema registry"),
            Dependency::Source(name) => write!(f, "source `{name}`"),
        }
    }
}

/// The reasons why process not ready yet. One a process; a new one holds the reason `starting`.
#[derive(Debug)]
pub struct Readiness {
    reasons: Mutex<BTreeMap<&'static str, String>>,
    troubles: Mutex<BTreeMap<&'static str, String>>,
    left: Mutex<BTreeMap<String, Option<u64>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::starting()
    }
}

impl Readiness {
    /// Not ready, for the one reason that nothing has happened yet. Whoever starts the process clears
    /// `starting`.
    pub fn starting() -> Self {
        let reason = "the process has just started".to_owned();
        Self {
            reasons: Mutex::new(BTreeMap::from([("starting", reason)])),
            troubles: Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Not ready because of `what` (a fixed name such as `replay`), with detail for a person to read.
    /// Replaces the detail given before under the same name.
    pub fn wait_for(&self, what: &'static str, detail: impl Into<String>) {
        self.reasons.lock().insert(what, detail.into());
    }

    /// `what` holds the process up no longer.
    pub fn clear(&self, what: &'static str) {
        self.reasons.lock().remove(what);
    }

    /// Nothing is waited for any more.
    pub fn ready(&self) {
        self.reasons.lock().clear();
        self.left.lock().clear();
    }

    /// What somebody should look at, though answers are as good as ever; nothing: it is well again.
    pub fn mention(&self, what: &'static str, trouble: Option<String>) {
        let mut troubles = self.troubles.lock();
        match trouble {
            Some(trouble) => _ = troubles.insert(what, trouble),
            None => _ = troubles.remove(what),
        }
    }

    /// What was mentioned, by name.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        self.troubles.lock().clone()
    }

    /// How many records are left to be read before it is ready, by source; `None`: that is not known yet.
    pub fn set_records_left(&self, left: BTreeMap<String, Option<u64>>) {
        *self.left.lock() = left;
    }

    /// What was set last.
    pub fn records_left(&self) -> BTreeMap<String, Option<u64>> {
        self.left.lock().clone()
    }

    /// Whether no reason is left.
    pub fn is_ready(&self) -> bool {
        self.reasons.lock().is_empty()
    }

    /// The reasons by name.
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        self.reasons.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_no_reason_is_left() {
        let readiness = Readiness::starting();
        readiness.wait_for("replay", "at 40 %");
        readiness.clear("starting");
        assert!(!readiness.is_ready());
        readiness.wait_for("replay", "at 90 %");
        assert_eq!(readiness.reasons()["replay"], "at 90 %");
        readiness.clear("replay");
        readiness.set_records_left([("payments".to_owned(), Some(7)), ("merchants".to_owned(), None)].into());
        assert_eq!(readiness.records_left()["payments"], Some(7));
        readiness.mention("checkpoints", Some("the disk is full".into()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.troubles()["checkpoints"], "the disk is full");
        readiness.mention("checkpoints", None);
        assert!(readiness.troubles().is_empty());
    }
}
