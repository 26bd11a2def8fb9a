//! What a setting of one source is, in sections `[sources.NAME]`.

use std::time::Duration;

use super::environment::Overrides;
use crate::setting::amount;

/// A setting of one source, in the section `[sources.NAME]`.
pub struct SourceSetting {
    /// Its name in the section.
    pub name: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// What it is, and where it goes.
    pub kind: SourceKind,
    /// Which sources have it.
    pub of: Of,
}

/// What a setting of a source is.
pub enum SourceKind {
    /// From least to most.
    Time(Duration, Duration, fn(&mut Overrides, Duration)),
    /// A text of a form; `false`: it is not of that form.
    Word(&'static str, fn(&mut Overrides, &str) -> bool),
}

impl SourceKind {
    /// What is expected of a value.
    pub fn form(&self) -> String {
        let text = amount::duration_text;
        match self {
            Self::Time(min, max, _) => format!(
                "a duration such as 250ms or 5s, from {} to {}",
                text(*min),
                text(*max)
            ),
            Self::Word(form, _) => (*form).to_owned(),
        }
    }

    /// Puts a value in; `false`: it is not what is expected.
    pub fn set(&self, overrides: &mut Overrides, text: &str) -> bool {
        match self {
            Self::Time(min, max, set) => {
                let time = amount::duration(text).filter(|time| (*min..=*max).contains(time));
                time.map(|time| set(overrides, time)).is_some()
            }
            Self::Word(_, set) => set(overrides, text),
        }
    }
}

/// Which sources have a setting: of all, or of those that its connector reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// All of them.
    All,
    /// Streams alone; what is said of a table: "is a table and has no event time".
    Streams(&'static str),
    /// Tables alone; what is said of a stream.
    Tables(&'static str),
}

impl Of {
    /// What a stream (`timed`) or a table lacks to have the setting, in words.
    pub fn lack(self, timed: bool) -> Option<&'static str> {
        match self {
            Self::Streams(lack) if !timed => Some(lack),
            Self::Tables(lack) if timed => Some(lack),
            _ => None,
        }
    }
}
