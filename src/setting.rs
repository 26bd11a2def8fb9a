//! The definition of a setting: name, type, default, range, flag and description, written once, and the
//! target of its value.
//!
//! ```text
//!   the engine's table (config) ─┐
//!   each connector's own table ──┴─▶ flags, variables, files, `check`, docs/settings.md ──▶ values, by type (Extensions)
//! ```

pub(crate) mod amount;
pub mod extensions;
pub(crate) mod properties;

use std::time::Duration;

use self::extensions::Extensions;
use crate::secret::Secret;

/// A setting.
pub struct Setting {
    /// Its name in a file, with dots between sections: `http.address`.
    pub name: &'static str,
    /// Type, range, and target.
    pub kind: SettingKind,
    /// The default as text; empty: none.
    pub default: &'static str,
    /// A description in one line.
    pub doc: &'static str,
    /// Its own flag, if any.
    pub flag: Option<Flag>,
    /// An additional environment variable, for names known from elsewhere.
    pub also: Option<&'static str>,
}

/// A command line flag.
pub struct Flag {
    /// `http`, without the dashes.
    pub name: &'static str,
    /// The placeholder in the help; empty for a switch.
    pub value: &'static str,
    /// The commands that have it.
    pub on: FlagScope,
}

/// The commands that have a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagScope {
    /// All commands that run a dataflow or check what it would run on.
    All,
    /// `run` and `check`.
    Run,
    /// `demo`.
    Demo,
}

/// The type of a value, and its target.
pub enum SettingKind {
    /// A whole number.
    Count {
        /// Minimum.
        min: usize,
        /// Maximum.
        max: usize,
        /// The target.
        set: fn(&mut Extensions, usize),
    },
    /// A duration, as in `250ms`.
    Time {
        /// Minimum.
        min: Duration,
        /// Maximum.
        max: Duration,
        /// The target.
        set: fn(&mut Extensions, Duration),
    },
    /// A size, as in `64MiB`.
    Size {
        /// Minimum, in bytes.
        min: u64,
        /// Maximum, in bytes.
        max: u64,
        /// The target.
        set: fn(&mut Extensions, usize),
    },
    /// `true` or `false`.
    Switch(fn(&mut Extensions, bool)),
    /// Text of a certain form.
    Text {
        /// The form, for messages: "an address such as 127.0.0.1:8460".
        form: &'static str,
        /// The target; returns false if the text does not have the form.
        set: fn(&mut Extensions, &str) -> bool,
    },
    /// A secret. It may also be read from a file, named by the setting with the suffix `_file`.
    Secret(fn(&mut Extensions, Secret)),
}

impl SettingKind {
    /// The expected value, for messages, with the range.
    pub fn expected(&self) -> String {
        match self {
            Self::Count { min, max, .. } if *max == usize::MAX => format!("a whole number, {min} or more"),
            Self::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Time { min, max, .. } => format!(
                "a duration such as 250ms or 5s, from {} to {}",
                amount::duration_text(*min),
                amount::duration_text(*max)
            ),
            Self::Size { min, max, .. } => format!(
                "a size such as 64MiB, from {} to {}",
                amount::size_text(*min),
                amount::size_text(*max)
            ),
            Self::Switch(_) => "true or false".into(),
            Self::Text { form, .. } => (*form).into(),
            Self::Secret(_) => "a text".into(),
        }
    }
}

impl Setting {
    /// The environment variable: `THALWEG_` and the flag's name, or its own.
    pub fn variable(&self) -> String {
        variable(self.flag.as_ref().map_or(self.name, |flag| flag.name))
    }

    /// Whether its value is never displayed.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, SettingKind::Secret(_))
    }
}

/// `http.body_time_max` → `THALWEG_HTTP_BODY_TIME_MAX`.
pub fn variable(name: &str) -> String {
    let upper = name
        .to_uppercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("THALWEG_{upper}")
}

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const S: Duration = Duration::from_secs(1);
pub(crate) const MIN: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A flag.
pub const fn flag(name: &'static str, value: &'static str, on: FlagScope) -> Option<Flag> {
    Some(Flag { name, value, on })
}

/// A setting that is a whole number.
pub const fn count(min: usize, max: usize, set: fn(&mut Extensions, usize)) -> SettingKind {
    SettingKind::Count { min, max, set }
}

/// A setting that is a duration.
pub const fn time(min: Duration, max: Duration, set: fn(&mut Extensions, Duration)) -> SettingKind {
    SettingKind::Time { min, max, set }
}

/// A setting that is a size.
pub const fn bytes(min: u64, max: u64, set: fn(&mut Extensions, usize)) -> SettingKind {
    SettingKind::Size { min, max, set }
}

/// A setting that is text of a certain form.
pub const fn text(form: &'static str, set: fn(&mut Extensions, &str) -> bool) -> SettingKind {
    SettingKind::Text { form, set }
}

/// A setting without a flag.
pub const fn setting(
    name: &'static str,
    kind: SettingKind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        doc,
        flag: None,
        also: None,
    }
}

/// A setting with a flag.
pub const fn flagged(setting: Setting, flag: Option<Flag>) -> Setting {
    Setting { flag, ..setting }
}
