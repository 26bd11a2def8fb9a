//! What a setting is: name, type, default, range, flag and meaning, written once, and where its value goes.
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

/// One setting.
pub struct Setting {
    /// Its name in a file, sections with dots: `http.address`.
    pub name: &'static str,
    /// Type, range, and where the value goes.
    pub kind: Kind,
    /// What holds where nobody says anything, as one would write it; empty: nothing.
    pub default: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// The flag, where there is one of its own.
    pub flag: Option<Flag>,
    /// A variable that is read as well, for those who know it from elsewhere.
    pub also: Option<&'static str>,
}

/// A flag of the command line.
pub struct Flag {
    /// `http`, without the dashes.
    pub name: &'static str,
    /// What stands behind it in the help; empty: nothing, it is a switch.
    pub value: &'static str,
    /// Which commands have it.
    pub on: On,
}

/// Commands that have a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// All that run a dataflow or look at what it would run on.
    All,
    /// `run` and `check`.
    Run,
    /// `demo`.
    Demo,
}

/// What a value may be, and where it goes.
pub enum Kind {
    /// A whole number.
    Count {
        /// Least.
        min: usize,
        /// Most.
        max: usize,
        /// Where it goes.
        set: fn(&mut Extensions, usize),
    },
    /// A duration, as `250ms`.
    Time {
        /// Least.
        min: Duration,
        /// Most.
        max: Duration,
        /// Where it goes.
        set: fn(&mut Extensions, Duration),
    },
    /// A size, as `64MiB`.
    Size {
        /// Least, in bytes.
        min: u64,
        /// Most, in bytes.
        max: u64,
        /// Where it goes.
        set: fn(&mut Extensions, usize),
    },
    /// `true` or `false`.
    Switch(fn(&mut Extensions, bool)),
    /// Text of some form.
    Text {
        /// The form, in words: "an address such as 127.0.0.1:8460".
        form: &'static str,
        /// Where it goes; false: it does not have the form.
        set: fn(&mut Extensions, &str) -> bool,
    },
    /// A secret. It may also be in a file, named by the setting with `_file` at its end.
    Secret(fn(&mut Extensions, Secret)),
}

impl Kind {
    /// What the setting wants, in words, with the range.
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
    /// The variable that sets it: `THALWEG_` and the flag's name, or its own.
    pub fn variable(&self) -> String {
        variable(self.flag.as_ref().map_or(self.name, |flag| flag.name))
    }

    /// Whether its value is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_))
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

/// A flag of its own.
pub const fn flag(name: &'static str, value: &'static str, on: On) -> Option<Flag> {
    Some(Flag { name, value, on })
}

/// A whole number.
pub const fn count(min: usize, max: usize, set: fn(&mut Extensions, usize)) -> Kind {
    Kind::Count { min, max, set }
}

/// A duration.
pub const fn time(min: Duration, max: Duration, set: fn(&mut Extensions, Duration)) -> Kind {
    Kind::Time { min, max, set }
}

/// A size.
pub const fn bytes(min: u64, max: u64, set: fn(&mut Extensions, usize)) -> Kind {
    Kind::Size { min, max, set }
}

/// Text of a form.
pub const fn text(form: &'static str, set: fn(&mut Extensions, &str) -> bool) -> Kind {
    Kind::Text { form, set }
}

/// A setting without a flag.
pub const fn setting(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        kind,
        default,
        doc,
        flag: None,
        also: None,
    }
}

/// The same with a flag.
pub const fn flagged(setting: Setting, flag: Option<Flag>) -> Setting {
    Setting { flag, ..setting }
}
