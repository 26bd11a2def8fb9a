//! The health of the process for its supervisor: whether it is ready, and if not, why not.
//!
//! ```text
//!  runtime ── reasons ──► Readiness ◄── asks ── HTTP /health/ready
//!             "replay": "at 40 %, 2,100 epochs to go"        ready when no reason is left
//!             ── troubles ─►                                 told of, ready all the same
//! ```
//!
//! This module is below both, so that the runtime need not know about HTTP.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// An external dependency of the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dependency {
    /// The schema registry.
    Registry,
    /// The system that the source with this name reads.
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

/// The reasons why the process is not ready yet. One per process; a new one holds the reason `starting`.
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
    /// Not ready, because nothing has happened yet. Whoever starts the process clears `starting`.
    pub fn starting() -> Self {
        let reason = "the process has just started".to_owned();
        Self {
            reasons: Mutex::new(BTreeMap::from([("starting", reason)])),
            troubles: Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Not ready because of `what` (a fixed name such as `replay`), with details for people. Replaces
    /// previous details under the same name.
    pub fn wait_for(&self, what: &'static str, detail: impl Into<String>) {
        self.reasons.lock().insert(what, detail.into());
    }

    /// Clears the reason `what`.
    pub fn clear(&self, what: &'static str) {
        self.reasons.lock().remove(what);
    }

    /// Clears all reasons.
    pub fn ready(&self) {
        self.reasons.lock().clear();
        self.left.lock().clear();
    }

    /// Sets a problem that somebody should look at, although reads are not affected; `None` clears it.
    pub fn mention(&self, what: &'static str, trouble: Option<String>) {
        let mut troubles = self.troubles.lock();
        match trouble {
            Some(trouble) => _ = troubles.insert(what, trouble),
            None => _ = troubles.remove(what),
        }
    }

    /// The current problems, by name.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        self.troubles.lock().clone()
    }

    /// Sets how many records are left to read until the process is ready, by source; `None` if unknown.
    pub fn set_records_left(&self, left: BTreeMap<String, Option<u64>>) {
        *self.left.lock() = left;
    }

    /// The value set last.
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
