//! What a look at the outside found, before anything runs: the lines of `check`.

use serde::Serialize;

/// How something stands to what is expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Ok,
    /// It runs, and a person should know something about it.
    Warning,
    /// It can't run so, or its answers would not be what is promised.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, and where.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// As expected.
    pub fn ok(what: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, what)
    }

    /// To be known.
    pub fn warning(what: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, what)
    }

    /// To be changed.
    pub fn error(what: impl Into<String>) -> Self {
        Self::new(Verdict::Error, what)
    }

    fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            verdict,
            what: what.into(),
            hint: None,
        }
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
