//! Values as written, before interpretation.

use crate::secret::HIDDEN;

/// A value as written. In a file it has a type; elsewhere it is text.
#[derive(Clone)]
pub(super) enum RawValue {
    Text(String),
    Whole(String),
    Switch(bool),
    /// A type that no setting has.
    Other(&'static str),
}

impl RawValue {
    /// The value as text, if its type may be the setting's.
    pub(super) fn text(&self, whole: bool, switch: bool) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Whole(number) => whole.then(|| number.clone()),
            Self::Switch(on) => switch.then(|| on.to_string()),
            Self::Other(_) => None,
        }
    }

    /// The value as shown in an error.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", without_login(text)),
            Self::Whole(number) => format!("the number {number}"),
            Self::Switch(on) => on.to_string(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// An address without the user name and password that it may contain.
fn without_login(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}{HIDDEN}{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}
