//! Values as they were written, before it is known what they mean.

use crate::secret::HIDDEN;

/// A value as it was written. In a file it has a type; from elsewhere it is text.
#[derive(Clone)]
pub(super) enum Written {
    Text(String),
    Whole(String),
    Switch(bool),
    /// Of a type that no setting has.
    Other(&'static str),
}

impl Written {
    /// The value as text, if its type may be that of the setting.
    pub(super) fn text(&self, whole: bool, switch: bool) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Whole(number) => whole.then(|| number.clone()),
            Self::Switch(on) => switch.then(|| on.to_string()),
            Self::Other(_) => None,
        }
    }

    /// As it is told in an error.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", without_login(text)),
            Self::Whole(number) => format!("the number {number}"),
            Self::Switch(on) => on.to_string(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// An address without the name and password that may stand in it.
fn without_login(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}{HIDDEN}{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}
