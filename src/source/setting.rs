//! The definition of a setting in sections `[sources.NAME]`.

use std::time::Duration;

use super::environment::Overrides;
use crate::setting::amount;

/// A setting of one source.
pub struct SourceSetting {
    /// Its name in the section.
    pub name: &'static str,
    /// A description in one line.
    pub doc: &'static str,
    /// Its type and target.
    pub kind: SourceSettingKind,
    /// Which sources have it.
    pub of: SettingScope,
}

/// The type of a source's setting.
pub enum SourceSettingKind {
    /// A duration between a minimum and a maximum.
    Time(Duration, Duration, fn(&mut Overrides, Duration)),
    /// Text of a certain form; returns false if it does not have it.
    Word(&'static str, fn(&mut Overrides, &str) -> bool),
}

impl SourceSettingKind {
    /// The expected value, for messages.
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

    /// Assigns a value; returns false if it is invalid.
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

/// Which sources have a setting: all of them, or those that its connector reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingScope {
    /// All of them.
    All,
    /// Streams only; the message for tables: "is a table and has no event time".
    Streams(&'static str),
    /// Tables only; the message for streams.
    Tables(&'static str),
}

impl SettingScope {
    /// Why a stream (`timed`) or a table cannot have the setting, as a message.
    pub fn lack(self, timed: bool) -> Option<&'static str> {
        match self {
            Self::Streams(lack) if !timed => Some(lack),
            Self::Tables(lack) if timed => Some(lack),
            _ => None,
        }
    }
}
