//! Configuration: what a service runs with, and where each setting comes from.
//!
//! ```text
//!   defaults ◀ thalweg.toml ◀ THALWEG_… ◀ flags          the table (table.rs): name, type, range, default, doc
//!      └────────────┴────────────┴─────────┘                 │
//!          said: name, value, origin (layers.rs) ──────▶ read by it ──▶ ServiceSettings (typed) + ResolvedSetting (shown by `check`)
//! ```
//!
//! Later layers win, setting by setting. All errors are collected and reported together, each with its
//! location, and with the nearest name if a setting is unknown. No secret gets into an [`ResolvedSetting`] or
//! an error.

pub(crate) mod cluster;
mod layers;
mod raw_value;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::cluster::ClusterSettings;
use self::layers::RawSetting;
pub(crate) use self::layers::{CliOverride, SettingOrigin};
use self::table::source_settings;
use crate::checkpoint::location::CheckpointLocation;
use crate::connect;
use crate::connect::connector::Connector;
use crate::error::{Error, Result};
use crate::http::{CertificateFiles, HttpSettings};
use crate::ingest::BufferLimits;
use crate::mesh::Cluster;
use crate::runtime::OnDifference;
use crate::runtime::checkpoints::OnNewProgram;
use crate::secret::Secret;
use crate::setting::extensions::Extensions;
use crate::source::Overrides;
use crate::source::setting::SourceSetting;
use crate::suggest;

/// The file that is read by default, if it exists.
pub(crate) const FILE_NAME: &str = "thalweg.toml";

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// The settings of logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSettings {
    /// The format.
    pub format: LogFormat,
    /// The filter, in the syntax of `tracing`.
    pub level: String,
}

/// The address of the schema registry, and the credentials.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistrySettings {
    /// The address.
    pub url: Option<String>,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A bearer token instead of a password.
    pub token: Option<Secret>,
    /// Certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a schema id may be unknown to it before its records become dead letters.
    pub unknown_wait: Duration,
}

/// All settings of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceSettings {
    /// Worker threads.
    pub workers: usize,
    /// The directory of ledgers.
    pub data_dir: PathBuf,
    /// Whether to stop at the end of the input.
    pub until_end: bool,
    /// Whether to keep serving at that end, until a signal.
    pub serve: bool,
    /// The service is ready once at most this many records are left; `None`: once everything present at the
    /// start is processed.
    pub ready_lag_max: Option<u64>,
    /// Minimum time between two epochs.
    pub epoch_interval: Duration,
    /// Maximum number of unfinished epochs.
    pub epochs_in_flight_max: usize,
    /// History of views that do not set their own.
    pub history: Duration,
    /// The time from one checkpoint to the next; zero: none are written.
    pub checkpoint_interval: Duration,
    /// The location of checkpoints.
    pub checkpoint_place: CheckpointLocation,
    /// Number of checkpoints to keep.
    pub checkpoints_kept: usize,
    /// Whether the ledger is trimmed behind them.
    pub checkpoints_trim: bool,
    /// What to do with the state of another build of the same dataflow.
    pub on_new_build: OnNewProgram,
    /// What to do with the state of a dataflow with other steps.
    pub on_new_plan: OnNewProgram,
    /// What to do if a replayed epoch has a different result.
    pub on_difference: OnDifference,
    /// The cluster, as written.
    pub cluster: ClusterSettings,
    /// This process's place in it; `None` without one.
    pub membership: Option<Cluster>,
    /// Limits on reading ahead.
    pub bounds: BufferLimits,
    /// The name of the application: a ledger belongs to one.
    pub group: String,
    /// The settings of connectors, each of its own type.
    pub connectors: Extensions,
    /// The schema registry.
    pub registry: RegistrySettings,
    /// The HTTP server.
    pub http: HttpSettings,
    /// Its certificate, and the key.
    pub http_certificate: [Option<PathBuf>; 2],
    /// The logs.
    pub log: LogSettings,
    /// Events per second of the demo.
    pub demo_rate: u64,
    /// The topic for dead letters of sources that set none of their own.
    pub dead_letters: Option<String>,
    /// Overrides of sources, by name.
    pub sources: BTreeMap<String, Overrides>,
}

/// The effective value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedSetting {
    /// Its full name: `http.address`, `kafka.properties.ssl.ca.location`, `sources.payments.lateness`.
    pub name: String,
    /// Its value as written; for a secret, only that it is set.
    pub value: String,
    /// Where the value comes from.
    pub origin: SettingOrigin,
}

/// The effective settings.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedSettings {
    /// For the program.
    pub settings: ServiceSettings,
    /// For people.
    pub entries: Vec<ResolvedSetting>,
    /// Warnings about likely typos: environment variables that match no setting.
    pub warnings: Vec<String>,
}

/// The inputs from outside of the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigInputs {
    /// A settings file: its name and contents.
    pub file: Option<(PathBuf, String)>,
    /// The environment variables.
    pub variables: Vec<(String, String)>,
    /// The flags.
    pub flags: Vec<CliOverride>,
}

impl ConfigInputs {
    /// Reads the file that is named, or [`FILE_NAME`] in the working directory if it exists and `by_itself`;
    /// the process's environment; and these flags.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn of_process(named: Option<&Path>, by_itself: bool, flags: Vec<CliOverride>) -> Result<Self> {
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
            // A variable that is not Unicode cannot be one of our settings.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags,
        })
    }
}

/// Combines the layers.
///
/// # Errors
/// [`Kind::Definition`](crate::Kind::Definition) with every mistake: what is wrong, and the line of the file,
/// the variable or the flag.
pub(crate) fn load(inputs: &ConfigInputs) -> Result<ResolvedSettings> {
    let mut mistakes = ConfigErrors::default();
    let mut warnings = Vec::new();
    let mut said: BTreeMap<String, RawSetting> = BTreeMap::new();
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
    let own: ServiceSettings = values.take();
    let mut settings = ServiceSettings {
        connectors: values,
        ..own
    };
    if let [Some(certificate), Some(key)] = settings.http_certificate.clone() {
        settings.http.tls = Some(CertificateFiles { certificate, key });
    }
    if mistakes.0.is_empty() {
        agree(&settings, &said, &mut mistakes);
        match settings.cluster.resolve() {
            Ok(membership) => settings.membership = membership,
            Err((name, wrong)) => {
                let origin = said.get(name).map(|said| &said.origin);
                mistakes.add(origin, format!("`{name}` {wrong}"));
            }
        }
    }
    mistakes.refuse()?;
    entries.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
    Ok(ResolvedSettings {
        settings,
        entries: entries.into_iter().map(|(_, entry)| entry).collect(),
        warnings,
    })
}

/// Mistakes, each with its line in the file, if any.
#[derive(Default)]
struct ConfigErrors(Vec<(usize, String)>);

impl ConfigErrors {
    fn add(&mut self, origin: Option<&SettingOrigin>, wrong: impl fmt::Display) {
        let line = match origin {
            Some(SettingOrigin::Line(_, line)) => *line,
            _ => usize::MAX,
        };
        let at = origin.map_or(String::new(), |origin| format!("{origin}: "));
        self.0.push((line, format!("{at}{wrong}")));
    }

    /// An error that lists the mistakes, if any: those of the file from top to bottom, then the others.
    fn refuse(mut self) -> Result<()> {
        self.0.sort_by_key(|(line, _)| *line);
        let many = match self.0.len() {
            0 => return Ok(()),
            1 => "a mistake".to_owned(),
            n => format!("{n} mistakes"),
        };
        let error = Error::definition(format!("the settings contain {many}"));
        let error = self
            .0
            .iter()
            .fold(error, |error, (_, mistake)| error.detail(mistake));
        Err(error.hint("docs/settings.md lists all settings; `check` prints the effective ones"))
    }
}

/// Checks settings against each other.
fn agree(settings: &ServiceSettings, said: &BTreeMap<String, RawSetting>, mistakes: &mut ConfigErrors) {
    let origin = |name: &str| said.get(name).map(|said| &said.origin);
    for connector in connect::CONNECTORS {
        if let Some((name, wrong)) = connector.conflict(&settings.connectors) {
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
    let [certificate, key] = &settings.http_certificate;
    needs(
        certificate.is_none() || key.is_some(),
        "http.tls.certificate",
        "needs `http.tls.key`",
    );
    needs(
        key.is_none() || certificate.is_some(),
        "http.tls.key",
        "needs `http.tls.certificate`",
    );
    needs(
        cfg!(feature = "tls") || certificate.is_none(),
        "http.tls.certificate",
        "is set, and this build lacks the feature `tls`",
    );
    needs(
        cfg!(feature = "object-store") || !in_bucket,
        "checkpoint.store",
        "names a bucket, and this build lacks the feature `object-store`",
    );
    needs(
        settings.until_end || !settings.serve,
        "serve",
        "needs `until_end`: without it, the service runs until it is stopped",
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
        "conflicts with `registry.password`: only one of them can be sent",
    );
}

impl ResolvedSettings {
    /// Where a setting comes from.
    pub(crate) fn origin(&self, name: &str) -> &SettingOrigin {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        entry.map_or(&SettingOrigin::Default, |entry| &entry.origin)
    }

    /// Whether a setting was set explicitly.
    pub(crate) fn is_said(&self, name: &str) -> bool {
        *self.origin(name) != SettingOrigin::Default
    }

    /// Checks that every setting in a section `[sources.NAME]` applies to that source.
    ///
    /// # Errors
    /// If a section names no source, or contains a setting that the source does not have.
    pub(crate) fn sources_fit(&self, sources: &[KnownSource]) -> Result<()> {
        let mut mistakes = ConfigErrors::default();
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
                    // Several connectors may have a setting with this name: the source's own connector
                    // counts.
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

/// What settings need to know about a source.
#[derive(Clone, Debug)]
pub(crate) struct KnownSource {
    /// Its name in the dataflow.
    pub name: String,
    /// Whether it is a stream, with event times, and not a table.
    pub timed: bool,
    /// The connector that reads it.
    pub connector: Option<&'static str>,
}

impl KnownSource {
    /// The reason why it cannot have a setting that only some sources of a connector have.
    fn lacks(&self, of: Option<&dyn Connector>, setting: &SourceSetting) -> Option<String> {
        // Settings that no table has are reported before settings that only some connectors have.
        if let Some(lack) = setting.of.lack(self.timed) {
            return Some(lack.to_owned());
        }
        let other = of.filter(|of| self.connector != Some(of.name()))?;
        Some(format!("is not read from a {}", other.log()))
    }
}

impl fmt::Display for ResolvedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}   ({})", self.name, self.value, self.origin)
    }
}

#[cfg(test)]
mod tests;
