//! Passwords and tokens: they can be used, but not displayed.
//!
//! ```text
//!   a file, a variable ──▶ Secret ── reveal ──▶ the client that logs in, and nobody else
//!                            └─ Debug, Display: ***
//! ```

use std::fmt;
use std::sync::Arc;

/// Displayed in place of a secret.
pub const HIDDEN: &str = "***";

/// A text that does not appear in logs, errors, pages or debug output.
///
/// ```
/// use thalweg::secret::Secret;
/// let password = Secret::new("open sesame");
/// assert_eq!(format!("{password} {password:?}"), "*** ***");
/// assert_eq!(password.hide_in("denied: open sesame"), "denied: ***");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for sending it. Must never be formatted into anything.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Removes the secret from a text of others: a response may repeat what was sent.
    pub fn hide_in(&self, text: &str) -> String {
        match self.0.is_empty() {
            true => text.to_owned(),
            false => text.replace(&*self.0, HIDDEN),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
