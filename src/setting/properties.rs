//! Properties of a client library that can be set under its own names, in a section of their own:
//! `[kafka.properties]`.
//!
//! Only listed properties are allowed, because some properties would silently break a guarantee.

use crate::secret::Secret;
use crate::setting::extensions::Extensions;

/// The properties of one client.
pub struct Properties {
    /// The section, with a trailing dot: `kafka.properties.`.
    pub prefix: &'static str,
    /// The client's name for messages: "Kafka's client".
    pub client: &'static str,
    /// The allowed properties.
    pub known: &'static [Property],
    /// Aliases.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Properties that are refused, and why.
    pub refused: &'static [(&'static str, &'static str)],
    /// Whether the client accepts a property with this value; otherwise its message, which may contain the
    /// value.
    pub accepts: fn(&str, &str) -> Result<(), String>,
    /// The target of a value.
    pub set: fn(&mut Extensions, &'static str, PropertyValue),
    /// The head of their section in docs/settings.md, in Markdown.
    pub doc: &'static str,
}

/// A value of a property.
pub enum PropertyValue {
    /// A value that may be displayed.
    Plain(String),
    /// A secret value.
    Secret(Secret),
}

/// A property that can be set.
pub struct Property {
    /// The client's name for it.
    pub name: &'static str,
    /// Its kind.
    pub kind: PropertyKind,
}

/// The kind of a property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyKind {
    /// Anything that the client accepts.
    Plain,
    /// One of these, case-insensitive.
    OneOf(&'static [&'static str]),
    /// A file (or directory) that must exist.
    Path,
    /// Never displayed; may be read from a file, named by the property with the suffix `_file`.
    Secret,
}

impl Properties {
    /// The property with this name or alias.
    pub fn find(&self, name: &str) -> Option<&'static Property> {
        let alias = self.aliases.iter().find(|(alias, _)| *alias == name);
        let meant = alias.map_or(name, |(_, name)| name);
        self.known.iter().find(|property| property.name == meant)
    }

    /// Why a property is refused, if there is a specific reason.
    pub fn refusal(&self, name: &str) -> Option<&'static str> {
        let refused = self.refused.iter().find(|(refused, _)| *refused == name);
        refused.map(|(_, reason)| *reason)
    }

    /// The full name of the setting: `kafka.properties.sasl.password`.
    pub fn name_of(&self, property: &Property) -> String {
        format!("{}{}", self.prefix, property.name)
    }
}
