//! [`Method`]: how a dataflow gives rows to a sink.

use std::fmt;

/// The method by which a dataflow gives rows to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Events, each of them once.
    AppendTo,
    /// The newest row of each key.
    UpsertTo,
    /// Every change.
    ChangesTo,
    /// Epochs, to a function.
    ForEachEpoch,
}

impl Method {
    /// Its name, as it stands in the code of a dataflow.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppendTo => "append_to",
            Self::UpsertTo => "upsert_to",
            Self::ChangesTo => "changes_to",
            Self::ForEachEpoch => "for_each_epoch",
        }
    }

    /// Whether its rows carry what was before, too.
    pub(crate) fn has_old(self) -> bool {
        self != Self::UpsertTo
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
