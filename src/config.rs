//! Settings: what a service runs with, and where each of it was said.
//!
//! ```text
//!   defaults ◀ thalweg.toml ◀ THALWEG_… ◀ flags          the table (table.rs): name, type, range, default, doc
//!      └────────────┴────────────┴─────────┘                 │
//!          said: name, value, origin (layers.rs) ──────▶ read by it ──▶ Settings (typed) + Entry (shown by `check`)
//! ```
//!
//! Later layers win, setting by setting. All mistakes are collected and told together, each with its place,
//! and with the nearest name where there is no setting of that one. Nothing that is secret gets into an
//! [`Entry`] or an error.

mod layers;
pub(crate) mod table;
mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::layers::Said;
pub(crate) use self::layers::{Origin, Spoken};
use self::table::source_settings;
use crate::checkpoint::place::Place;
use crate::connect;
use crate::connect::connector::Connector;
use crate::error::{Error, Result};
use crate::http::HttpSettings;
use crate::ingest::Bounds;
use crate::runtime::OnDifference;
use crate::runtime::checkpoints::OnNew;
use crate::secret::Secret;
use crate::setting::extensions::Extensions;
use crate::source::Overrides;
use crate::source::setting::SourceSetting;
use crate::suggest;

/// The file that is read where none is named, if it is there.
pub(crate) const FILE_NAME: &str = "thalweg.toml";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

/// Which log lines are written, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSettings {
    /// How.
    pub format: LogFormat,
    /// Which, as `tracing`'s filters are written.
    pub level: String,
}

/// Where the schema registry is and how to log in.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistrySettings {
    /// Its address.
    pub url: Option<String>,
    /// Who logs in.
    pub username: Option<String>,
    /// With what.
    pub password: Option<Secret>,
    /// Or with what instead.
    pub token: Option<Secret>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long it may not know a schema id before it is believed.
    pub unknown_wait: Duration,
}

/// Everything that can be set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// Where ledgers are kept.
    pub data_dir: PathBuf,
    /// Stop at the end of what is there.
    pub until_end: bool,
    /// Go on answering at that end, until a signal.
    pub serve: bool,
    /// The service is ready once no more records than these are left; nothing: once everything is counted
    /// that was there at the start.
    pub ready_lag_max: Option<u64>,
    /// Shortest time between two epochs.
    pub epoch_interval: Duration,
    /// How many may be unfinished.
    pub epochs_in_flight_max: usize,
    /// How far back views reach that don't say so themselves.
    pub history: Duration,
    /// From one checkpoint to the next; zero: none are made.
    pub checkpoint_interval: Duration,
    /// Where they are kept.
    pub checkpoint_place: Place,
    /// How many checkpoints are kept.
    pub checkpoints_kept: usize,
    /// Whether the ledger is trimmed behind them.
    pub checkpoints_trim: bool,
    /// What to do with state that another build of the same dataflow made.
    pub on_new_build: OnNew,
    /// What to do with state of another dataflow's steps.
    pub on_new_plan: OnNew,
    /// What to do when an epoch comes to another result than it did at first.
    pub on_difference: OnDifference,
    /// What may be read ahead.
    pub bounds: Bounds,
    /// Name of the application: a ledger belongs to one.
    pub group: String,
    /// Those of connectors, each of a type of its own.
    pub connectors: Extensions,
    /// The registry.
    pub registry: RegistrySettings,
    /// The server.
    pub http: HttpSettings,
    /// Logs.
    pub log: LogSettings,
    /// Events a second of the demo.
    pub demo_rate: u64,
    /// The topic of dead letters of sources without one of their own.
    pub dead_letters: Option<String>,
    /// What is said of sources, by name, in place of what the dataflow says.
    pub sources: BTreeMap<String, Overrides>,
}

/// A setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its whole name: `http.address`, `kafka.properties.ssl.ca.location`, `sources.payments.lateness`.
    pub name: String,
    /// Its value, as it was written; of a secret only that there is one.
    pub value: String,
    /// Where that was said.
    pub origin: Origin,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    /// For the program.
    pub settings: Settings,
    /// For people.
    pub entries: Vec<Entry>,
    /// What looks like a slip of the pen and may be none: variables that belong to nobody.
    pub warnings: Vec<String>,
}

/// What is said outside of the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    /// A settings file: its name and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// Flags.
    pub flags: Vec<Spoken>,
}

impl Inputs {
    /// The file that is named, or [`FILE_NAME`] in the working directory if it is there and `by_itself`; the
    /// process's environment; these flags.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn of_process(named: Option<&Path>, by_itself: bool, flags: Vec<Spoken>) -> Result<Self> {
        let path = match named {
            Some(path) => Some(path),
            None => Some(Path::new(FILE_NAME)).filter(|path| by_itself && path.exists()),
        };
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok((path.to_owned(), text)),
            Err(error) => Err(
                Error::definition(format!("cannot read the settings in {}", path.display())).detail(error),
            ),
        };
        Ok(Self {
            file: path.map(read).transpose()?,
            // What is no text can't be a setting of ours.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags,
        })
    }
}

/// Puts the layers together.
///
/// # Errors
/// [`Kind::Definition`](crate::Kind::Definition) with every mistake: what is wrong, and in which line of
/// which file, which variable or which flag.
pub(crate) fn load(inputs: &Inputs) -> Result<InForce> {
    let mut mistakes = Mistakes::default();
    let mut warnings = Vec::new();
    let mut said: BTreeMap<String, Said> = BTreeMap::new();
    for layer in [
        layers::of_defaults(),
        layers::of_file(inputs.file.as_ref(), &mut mistakes),
        layers::of_variables(&inputs.variables, &mut mistakes, &mut warnings),
        layers::of_flags(&inputs.flags, &mut mistakes),
    ] {
        layers::cover(&mut said, layer, &mut mistakes);
    }
    let mut values = Extensions::default();
    let mut entries = Vec::new();
    for said in said.values() {
        match said.read(&mut values) {
            Ok(Some(value)) => entries.push((said.place(), said.entry(value))),
            Ok(None) => {}
            Err(wrong) => mistakes.add(Some(&said.origin), wrong),
        }
    }
    let own: Settings = values.take();
    let settings = Settings {
        connectors: values,
        ..own
    };
    if mistakes.0.is_empty() {
        agree(&settings, &said, &mut mistakes);
    }
    mistakes.refuse()?;
    entries.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
    Ok(InForce {
        settings,
        entries: entries.into_iter().map(|(_, entry)| entry).collect(),
        warnings,
    })
}

/// What is wrong, each with the line of the file where it was said.
#[derive(Default)]
struct Mistakes(Vec<(usize, String)>);

impl Mistakes {
    fn add(&mut self, origin: Option<&Origin>, wrong: impl fmt::Display) {
        let line = match origin {
            Some(Origin::Line(_, line)) => *line,
            _ => usize::MAX,
        };
        let at = origin.map_or(String::new(), |origin| format!("{origin}: "));
        self.0.push((line, format!("{at}{wrong}")));
    }

    /// An error that lists them, if there are any: the file's from top to bottom, then the others.
    fn refuse(mut self) -> Result<()> {
        self.0.sort_by_key(|(line, _)| *line);
        let many = match self.0.len() {
            0 => return Ok(()),
            1 => "a mistake".to_owned(),
            n => format!("{n} mistakes"),
        };
        let error = Error::definition(format!("the settings have {many}"));
        let error = self
            .0
            .iter()
            .fold(error, |error, (_, mistake)| error.detail(mistake));
        Err(error.hint("docs/settings.md lists all settings; `check` prints those in force"))
    }
}

/// What is wrong with settings taken together.
fn agree(settings: &Settings, said: &BTreeMap<String, Said>, mistakes: &mut Mistakes) {
    let origin = |name: &str| said.get(name).map(|said| &said.origin);
    for connector in connect::CONNECTORS {
        if let Some((name, wrong)) = connector.at_odds(&settings.connectors) {
            mistakes.add(origin(&name), format!("`{name}` {wrong}"));
        }
    }
    let place = &settings.checkpoint_place;
    let in_bucket = place.url.as_ref().is_some_and(|url| url.starts_with("s3://"));
    let registry = &settings.registry;
    let mut needs = |holds: bool, name: &str, wrong: &str| {
        if !holds {
            mistakes.add(origin(name), format!("`{name}` {wrong}"));
        }
    };
    needs(
        cfg!(feature = "object-store") || !in_bucket,
        "checkpoint.store",
        "names a bucket, and this build was made without the feature `object-store`",
    );
    needs(
        settings.until_end || !settings.serve,
        "serve",
        "needs `until_end`: without that the service answers until it is stopped in any case",
    );
    needs(
        registry.username.is_none() || registry.password.is_some(),
        "registry.username",
        "needs `registry.password`, or `registry.password_file`",
    );
    needs(
        registry.password.is_none() || registry.username.is_some(),
        "registry.password",
        "needs `registry.username`",
    );
    needs(
        registry.password.is_none() || registry.token.is_none(),
        "registry.token",
        "stands beside `registry.password`: only one of them can be sent",
    );
}

impl InForce {
    /// Where a setting was said.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        entry.map_or(&Origin::Default, |entry| &entry.origin)
    }

    /// Whether anybody said it.
    pub(crate) fn is_said(&self, name: &str) -> bool {
        *self.origin(name) != Origin::Default
    }

    /// Looks whether every setting of a section `[sources.NAME]` is of a source that has it.
    ///
    /// # Errors
    /// A section of no source, or a setting that the source does not have.
    pub(crate) fn sources_fit(&self, sources: &[SourceKnown]) -> Result<()> {
        let mut mistakes = Mistakes::default();
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.name.starts_with("sources."))
        {
            let Some((name, setting)) = entry.name["sources.".len()..].rsplit_once('.') else {
                continue;
            };
            match sources.iter().find(|known| known.name == name) {
                Some(known) => {
                    let alike = source_settings().filter(|(_, known)| known.name == setting);
                    // Connectors may have settings of one name: the source's own counts.
                    let lacks: Vec<_> = alike.map(|(of, setting)| known.lacks(of, setting)).collect();
                    if let Some(Some(lack)) = lacks.iter().min() {
                        mistakes.add(Some(&entry.origin), format!("`{name}` {lack}"));
                    }
                }
                None => {
                    let near = suggest::told(name, sources.iter().map(|known| &known.name));
                    let wrong = format!("the dataflow has no source `{name}`{near}");
                    mistakes.add(Some(&entry.origin), wrong);
                }
            }
        }
        mistakes.refuse()
    }
}

/// What settings need to know of a source.
#[derive(Clone, Debug)]
pub(crate) struct SourceKnown {
    /// Its name in the dataflow.
    pub name: String,
    /// Whether it is a stream, with event times; a table is none.
    pub timed: bool,
    /// The connector that reads it.
    pub connector: Option<&'static str>,
}

impl SourceKnown {
    /// What it lacks to have a setting, which only sources of a connector may have.
    fn lacks(&self, of: Option<&dyn Connector>, setting: &SourceSetting) -> Option<String> {
        // What no table has is said before what only some systems have.
        if let Some(lack) = setting.of.lack(self.timed) {
            return Some(lack.to_owned());
        }
        let other = of.filter(|of| self.connector != Some(of.name()))?;
        Some(format!("is not read from a {}", other.log()))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}   ({})", self.name, self.value, self.origin)
    }
}

#[cfg(test)]
mod tests;
