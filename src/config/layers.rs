//! The layers of settings before interpretation: names, values, and locations.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::raw_value::RawValue;
use crate::config::table::{properties, settings, source_settings};
use crate::config::{ConfigErrors, ResolvedSetting, ServiceSettings};
use crate::secret::{HIDDEN, Secret};
use crate::setting::extensions::Extensions;
use crate::setting::properties::{Properties, Property, PropertyKind, PropertyValue};
use crate::setting::{Setting, SettingKind, amount, variable};
use crate::suggest;

const SOURCES_PREFIX: &str = "sources.";
const SOURCES_VARIABLES: &str = "THALWEG_SOURCES_";
/// Suffix of a secret's name when it is read from a file.
const IN_FILE: &str = "_file";

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingOrigin {
    /// Nowhere: it is the default.
    Default,
    /// In this line of the settings file.
    Line(PathBuf, usize),
    /// In this environment variable.
    Variable(String),
    /// By this flag.
    Flag(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A flag given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CliOverride {
    /// The name of the setting.
    pub name: String,
    /// The flag as written: `--workers`.
    pub flag: String,
    /// Its value.
    pub value: String,
}

/// The subject of a setting.
#[derive(Clone, Copy)]
enum SettingTarget {
    Setting(&'static Setting),
    /// A property of a client.
    Property(&'static Properties, &'static Property),
    /// A setting of one source, by its name.
    Source(&'static str),
}

/// A setting as set in one place.
#[derive(Clone)]
pub(super) struct RawSetting {
    subject: SettingTarget,
    /// The full name, without `_file`.
    name: String,
    in_file: bool,
    written: RawValue,
    /// Whether it must have the type of the setting.
    typed: bool,
    pub(super) origin: SettingOrigin,
}

/// Resolves a name. `Err` describes what is wrong with it.
fn subject(name: &str) -> Result<(SettingTarget, String, bool), String> {
    for properties in properties() {
        if let Some(property) = name.strip_prefix(properties.prefix) {
            return property_subject(properties, property);
        }
    }
    if let Some((source, setting)) = name
        .strip_prefix(SOURCES_PREFIX)
        .and_then(|rest| rest.rsplit_once('.'))
    {
        let mut known = source_settings().map(|(_, known)| known.name);
        return match known.find(|known| *known == setting) {
            Some(found) => Ok((SettingTarget::Source(found), name.to_owned(), false)),
            None => {
                let near = suggest::told(setting, source_settings().map(|(_, known)| known.name));
                Err(format!(
                    "sources have no setting `{setting}` (in source `{source}`){near}"
                ))
            }
        };
    }
    let find = |name: &str| settings().find(|setting| setting.name == name);
    if let Some(found) = find(name) {
        return Ok((SettingTarget::Setting(found), name.to_owned(), false));
    }
    let in_file = name.strip_suffix(IN_FILE).and_then(find);
    if let Some(found) = in_file.filter(|setting| setting.is_secret()) {
        return Ok((SettingTarget::Setting(found), found.name.to_owned(), true));
    }
    let mut inside: Vec<&str> = settings()
        .filter_map(|setting| setting.name.strip_prefix(name)?.strip_prefix('.'))
        .collect();
    inside.sort_unstable();
    if !inside.is_empty() {
        return Err(format!(
            "`{name}` is a section, not a setting; it contains: {}",
            inside.join(", ")
        ));
    }
    Err(format!(
        "unknown setting `{name}`{}",
        suggest::told(name, names())
    ))
}

/// Resolves the name of a property, without the prefix.
fn property_subject(
    properties: &'static Properties,
    property: &str,
) -> Result<(SettingTarget, String, bool), String> {
    let named = |found| SettingTarget::Property(properties, found);
    if let Some(found) = properties.find(property) {
        return Ok((named(found), properties.name_of(found), false));
    }
    let in_file = property
        .strip_suffix(IN_FILE)
        .and_then(|property| properties.find(property));
    if let Some(found) = in_file.filter(|property| property.kind == PropertyKind::Secret) {
        return Ok((named(found), properties.name_of(found), true));
    }
    let Properties { prefix, client, .. } = properties;
    if let Some(reason) = properties.refusal(property) {
        return Err(format!("`{prefix}{property}` cannot be set: {reason}"));
    }
    let near = suggest::told(property, properties.known.iter().map(|known| known.name));
    Err(format!(
        "`{property}` is not a property of {client} that can be set{near}"
    ))
}

/// Every name that a setting can have.
fn names() -> Vec<String> {
    let mut names: Vec<String> = settings().map(|setting| setting.name.to_owned()).collect();
    let secrets = settings().filter(|setting| setting.is_secret());
    names.extend(secrets.map(|setting| format!("{}{IN_FILE}", setting.name)));
    names
}

/// The layer of defaults.
pub(super) fn of_defaults() -> Vec<RawSetting> {
    let set = settings().filter(|setting| !setting.default.is_empty());
    set.map(|setting| RawSetting {
        subject: SettingTarget::Setting(setting),
        name: setting.name.to_owned(),
        in_file: false,
        written: RawValue::Text(setting.default.to_owned()),
        typed: false,
        origin: SettingOrigin::Default,
    })
    .collect()
}

/// The layer of a file.
pub(super) fn of_file(file: Option<&(PathBuf, String)>, mistakes: &mut ConfigErrors) -> Vec<RawSetting> {
    let Some((path, text)) = file else {
        return Vec::new();
    };
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let origin = |at: usize| SettingOrigin::Line(path.clone(), line(at));
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            // Its own Display quotes the line, which may contain a secret.
            let at = origin(error.span().map_or(0, |span| span.start));
            mistakes.add(Some(&at), format!("invalid TOML: {}", error.message()));
            return Vec::new();
        }
    };
    let mut leaves = Vec::new();
    flatten("", &table, &mut leaves);
    let mut said = Vec::new();
    for (name, at, written) in leaves {
        match subject(&name) {
            Ok((subject, name, in_file)) => said.push(RawSetting {
                subject,
                name,
                in_file,
                written,
                typed: true,
                origin: origin(at),
            }),
            Err(wrong) => mistakes.add(Some(&origin(at)), wrong),
        }
    }
    said
}

/// Every value with its full name and position.
fn flatten(prefix: &str, table: &DeTable<'_>, leaves: &mut Vec<(String, usize, RawValue)>) {
    for (key, value) in table.iter() {
        let name = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        let written = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&name, inner, leaves);
                continue;
            }
            DeValue::String(text) => RawValue::Text(text.to_string()),
            DeValue::Integer(whole) if whole.radix() == 10 => RawValue::Whole(whole.as_str().to_owned()),
            DeValue::Integer(_) => RawValue::Other("a non-decimal number"),
            DeValue::Boolean(on) => RawValue::Switch(*on),
            DeValue::Float(_) => RawValue::Other("a fraction"),
            DeValue::Datetime(_) => RawValue::Other("a date"),
            DeValue::Array(_) => RawValue::Other("a list"),
        };
        leaves.push((name, key.span().start, written));
    }
}

/// The layer of the environment. Empty variables count as unset.
pub(super) fn of_variables(
    variables: &[(String, String)],
    mistakes: &mut ConfigErrors,
    warnings: &mut Vec<String>,
) -> Vec<RawSetting> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for setting in settings() {
        if let Some(also) = setting.also {
            known.insert(also.to_owned(), setting.name.to_owned());
        }
        known.insert(setting.variable(), setting.name.to_owned());
        if setting.is_secret() {
            let in_file = format!("{}{IN_FILE}", setting.name);
            known.insert(variable(&in_file), in_file);
        }
    }
    for properties in properties() {
        for property in properties.known {
            let name = properties.name_of(property);
            if property.kind == PropertyKind::Secret {
                known.insert(variable(&format!("{name}{IN_FILE}")), format!("{name}{IN_FILE}"));
            }
            known.insert(variable(&name), name);
        }
    }
    let given: Vec<_> = variables.iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut said = Vec::new();
    for (variable, value) in &given {
        let Some(name) = known.get(variable) else {
            if variable.starts_with(SOURCES_VARIABLES) {
                // The variable does not show where the source's name ends.
                warnings.push(format!(
                    "the variable {variable} has no effect: set a source's settings in the file, under \
                     [sources.NAME]"
                ));
            } else if variable.starts_with("THALWEG_") {
                let near = suggest::told(variable, known.keys());
                // Other programs, and Kubernetes, set variables with this prefix, so only names similar to
                // ours are reported.
                if !near.is_empty() && !FOREIGN.iter().any(|other| variable.starts_with(other)) {
                    warnings.push(format!("the variable {variable} matches no setting{near}"));
                }
            }
            continue;
        };
        let shadowed = |setting: &Setting| {
            setting.also == Some(variable) && given.iter().any(|(other, _)| *other == setting.variable())
        };
        if settings().any(shadowed) {
            continue;
        }
        match subject(name) {
            Ok((subject, name, in_file)) => said.push(RawSetting {
                subject,
                name,
                in_file,
                written: RawValue::Text(value.clone()),
                typed: false,
                origin: SettingOrigin::Variable(variable.clone()),
            }),
            Err(wrong) => mistakes.add(Some(&SettingOrigin::Variable(variable.clone())), wrong),
        }
    }
    said
}

/// Variables of scripts and other commands, and those that Kubernetes sets for a service called `thalweg`.
const FOREIGN: &[&str] = &[
    "THALWEG_CACHE",
    "THALWEG_CONFIG",
    "THALWEG_KAFKA_JVM",
    "THALWEG_PORT",
    "THALWEG_REGISTRY_JVM",
    "THALWEG_SERVER",
    "THALWEG_SERVICE_",
    "THALWEG_START_SECONDS",
];

/// The layer of flags.
pub(super) fn of_flags(flags: &[CliOverride], mistakes: &mut ConfigErrors) -> Vec<RawSetting> {
    let mut said = Vec::new();
    for CliOverride { name, flag, value } in flags {
        match subject(name) {
            Ok((subject, name, false)) if subject.is_secret() => mistakes.add(
                Some(&SettingOrigin::Flag(flag.clone())),
                format!(
                    "`{name}` is a secret, and every user of the machine can read the command line; set \
                     {} or `{name}{IN_FILE}`",
                    variable(&name)
                ),
            ),
            Ok((subject, name, in_file)) => said.push(RawSetting {
                subject,
                name,
                in_file,
                written: RawValue::Text(value.clone()),
                typed: false,
                origin: SettingOrigin::Flag(flag.clone()),
            }),
            Err(wrong) => mistakes.add(Some(&SettingOrigin::Flag(flag.clone())), wrong),
        }
    }
    said
}

/// Applies a layer on top of previous ones.
pub(super) fn cover(
    below: &mut BTreeMap<String, RawSetting>,
    layer: Vec<RawSetting>,
    mistakes: &mut ConfigErrors,
) {
    let mut here: BTreeMap<String, RawSetting> = BTreeMap::new();
    for said in layer {
        // If a flag is repeated, the last one counts, as in most programs.
        let twice = here
            .get(&said.name)
            .filter(|_| !matches!(said.origin, SettingOrigin::Flag(_)));
        if let Some(first) = twice {
            let wrong = format!("`{}` is already set, at {}", said.name, first.origin);
            mistakes.add(Some(&said.origin), wrong);
        }
        here.insert(said.name.clone(), said);
    }
    below.append(&mut here);
}

impl SettingTarget {
    fn is_secret(self) -> bool {
        match self {
            Self::Setting(setting) => setting.is_secret(),
            Self::Property(_, property) => property.kind == PropertyKind::Secret,
            Self::Source(_) => false,
        }
    }
}

impl RawSetting {
    /// The index among all settings, in the order of display.
    pub(super) fn place(&self) -> usize {
        match self.subject {
            SettingTarget::Setting(setting) => settings()
                .position(|other| other.name == setting.name)
                .unwrap_or(0),
            SettingTarget::Property(..) => usize::MAX - 1,
            SettingTarget::Source(_) => usize::MAX,
        }
    }

    pub(super) fn entry(&self, value: String) -> ResolvedSetting {
        ResolvedSetting {
            name: self.name.clone(),
            value,
            origin: self.origin.clone(),
        }
    }

    /// Assigns the value to the settings, and returns it for display; `None` if it sets nothing. `Err`
    /// describes what is wrong with it.
    pub(super) fn read(&self, values: &mut Extensions) -> Result<Option<String>, String> {
        if self.subject.is_secret() {
            return self.read_secret(values).map(Some);
        }
        let shown = match self.subject {
            SettingTarget::Setting(setting) => self.read_setting(setting, values),
            SettingTarget::Source(setting) => self.read_source(setting, values),
            SettingTarget::Property(of, property) => {
                return self.read_property(of, property, values).map(Some);
            }
        };
        match shown {
            Ok(shown) => Ok(Some(shown)),
            Err(expected) => Err(format!(
                "`{}` must be {expected}; it is {}",
                self.name,
                self.written.told()
            )),
        }
    }

    fn read_setting(&self, setting: &Setting, values: &mut Extensions) -> Result<String, String> {
        let expected = || setting.kind.expected();
        let text = |whole, switch| self.written.text(whole, switch).ok_or_else(expected);
        match &setting.kind {
            SettingKind::Count { min, max, set } => {
                // In a file, a number is not a text.
                let number = match (&self.written, self.typed) {
                    (RawValue::Text(_), true) => return Err(expected()),
                    _ => text(true, false)?,
                };
                let count = number.parse().ok().filter(|n| (*min..=*max).contains(n));
                set(values, count.ok_or_else(expected)?);
                Ok(number)
            }
            SettingKind::Time { min, max, set } => {
                let text = text(false, false)?;
                let time = amount::duration(&text).filter(|d| (*min..=*max).contains(d));
                set(values, time.ok_or_else(expected)?);
                Ok(text)
            }
            SettingKind::Size { min, max, set } => {
                let text = text(true, false)?;
                let size = amount::size(&text).filter(|n| (*min..=*max).contains(n));
                let size = size.and_then(|n| usize::try_from(n).ok());
                set(values, size.ok_or_else(expected)?);
                Ok(text)
            }
            SettingKind::Switch(set) => {
                let on = match (&self.written, self.typed) {
                    (RawValue::Switch(on), _) => Some(*on),
                    (RawValue::Text(text), false) => text.parse().ok(),
                    _ => None,
                };
                let on = on.ok_or_else(expected)?;
                set(values, on);
                Ok(on.to_string())
            }
            SettingKind::Text { set, .. } => {
                let text = text(false, false)?;
                match set(values, &text) {
                    true => Ok(text),
                    false => Err(expected()),
                }
            }
            SettingKind::Secret(_) => Ok(HIDDEN.to_owned()),
        }
    }

    /// Connectors may have settings with the same name: each one that accepts the value takes it.
    fn read_source(&self, setting: &str, values: &mut Extensions) -> Result<String, String> {
        let alike = || source_settings().filter(|(_, known)| known.name == setting);
        let expected = || {
            alike()
                .map(|(_, known)| known.kind.form())
                .next()
                .unwrap_or_default()
        };
        let text = self.written.text(false, true).ok_or_else(expected)?;
        let name = self.name[SOURCES_PREFIX.len()..]
            .rsplit_once('.')
            .map_or("", |(name, _)| name);
        let sources = &mut values.get_mut::<ServiceSettings>().sources;
        let overrides = sources.entry(name.to_owned()).or_default();
        let taken = alike()
            .filter(|(_, known)| known.kind.set(overrides, &text))
            .count();
        match taken {
            0 => Err(expected()),
            _ => Ok(text),
        }
    }

    fn read_property(
        &self,
        of: &Properties,
        property: &'static Property,
        values: &mut Extensions,
    ) -> Result<String, String> {
        let name = &self.name;
        let Some(text) = self.written.text(true, true) else {
            return Err(format!(
                "`{name}` must be one value; it is {}",
                self.written.told()
            ));
        };
        match property.kind {
            PropertyKind::OneOf(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(&text)) => {
                let words = words.join(", ");
                return Err(format!("`{name}` must be one of {words}; it is \"{text}\""));
            }
            PropertyKind::Path if !std::path::Path::new(&text).exists() => {
                return Err(format!("`{name}` names {text}, and there is no such file"));
            }
            _ => {}
        }
        (of.accepts)(property.name, &text).map_err(|wrong| format!("`{name}`: {wrong}"))?;
        (of.set)(values, property.name, PropertyValue::Plain(text.clone()));
        Ok(text)
    }

    /// No message here may contain the value.
    fn read_secret(&self, values: &mut Extensions) -> Result<String, String> {
        let name = &self.name;
        let RawValue::Text(text) = &self.written else {
            return Err(format!("`{name}` must be a string"));
        };
        let (secret, shown) = match self.in_file {
            false => (text.clone(), HIDDEN.to_owned()),
            true => {
                let read = std::fs::read_to_string(text).map_err(|error| {
                    format!("`{name}{IN_FILE}` names {text}, which cannot be read: {error}")
                })?;
                // Editors end a file with a newline, and secrets are written with editors.
                let secret = read.strip_suffix('\n').unwrap_or(&read);
                let secret = secret.strip_suffix('\r').unwrap_or(secret);
                (secret.to_owned(), format!("{HIDDEN} from {text}"))
            }
        };
        if secret.is_empty() {
            return Err(format!("`{name}` is empty"));
        }
        let secret = Secret::new(secret);
        match self.subject {
            SettingTarget::Setting(Setting {
                kind: SettingKind::Secret(set),
                ..
            }) => set(values, secret),
            SettingTarget::Property(of, property) => {
                (of.set)(values, property.name, PropertyValue::Secret(secret))
            }
            SettingTarget::Setting(_) | SettingTarget::Source(_) => {}
        }
        Ok(shown)
    }
}
