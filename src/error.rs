//! Errors for people: what failed, where, and what to do about it.
//!
//! ```text
//! cannot read topic `payments.transactions.v1`            ← what failed
//!   partition 3 begins at offset 9120, the ledger needs 8800   ← detail: the facts
//!   hint: raise the topic's retention, or start afresh …       ← hint: the way on
//! ```

use std::fmt;

/// A `Result` with Thalweg's [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. Deliberately coarse: it determines who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The dataflow, a setting or a flag is wrong: change it and restart.
    Definition,
    /// An external system (broker, registry, disk, network) failed; retrying may help.
    External,
    /// A guarantee cannot be kept: continuing would give wrong results, so the service halts.
    Integrity,
    /// A request that cannot be answered as it is.
    Request,
    /// A bug in Thalweg.
    Internal,
}

/// An error with what failed, detail, and a hint.
#[derive(Clone)]
pub struct Error(Box<ErrorInner>);

#[derive(Clone)]
struct ErrorInner {
    kind: Kind,
    what: String,
    details: Vec<String>,
    hint: Option<String>,
}

impl Error {
    /// A new error, with one line that says what failed.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(ErrorInner {
            kind,
            what: what.into(),
            details: Vec::new(),
            hint: None,
        }))
    }

    /// [`Kind::Definition`].
    pub fn definition(what: impl Into<String>) -> Self {
        Self::new(Kind::Definition, what)
    }

    /// [`Kind::External`].
    pub fn external(what: impl Into<String>) -> Self {
        Self::new(Kind::External, what)
    }

    /// [`Kind::Integrity`].
    pub fn integrity(what: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, what)
    }

    /// [`Kind::Request`].
    pub fn request(what: impl Into<String>) -> Self {
        Self::new(Kind::Request, what)
    }

    /// [`Kind::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }

    /// Adds a line of detail: where it happened, what was expected, what was found.
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.0.details.push(detail.to_string());
        self
    }

    /// Sets the hint: what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The line that says what failed.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The hint.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        for detail in &self.0.details {
            for line in detail.lines() {
                write!(f, "\n  {line}")?;
            }
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

/// A count for messages: `1 claim`, `3 claims`.
pub(crate) fn count(n: impl Into<u64>, one: &str) -> String {
    match n.into() {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// Converts any standard error, so that a dataflow function can use `?`.
///
/// `Error` itself does not implement [`std::error::Error`], because this blanket conversion could not exist
/// otherwise.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut out = Self::external(error.to_string());
        let mut cause = error.source();
        while let Some(inner) = cause {
            out = out.detail(inner);
            cause = inner.source();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|n: u64| count(n, "claim")),
            ["0 claims", "1 claim", "2 claims"]
        );
    }

    #[test]
    fn reads_as_what_detail_hint() {
        let error = Error::external("cannot read")
            .detail("partition 3\noffset 7")
            .hint("look");
        assert_eq!(
            error.to_string(),
            "cannot read\n  partition 3\n  offset 7\n  hint: look"
        );
        assert_eq!(error.kind(), Kind::External);
    }
}
