//! Properties of a client library that may be set under its own names, in a section of their own:
//! `[kafka.properties]`.
//!
//! An allow list, as some properties of a client would quietly break what is promised.

use crate::secret::Secret;
use crate::setting::extensions::Extensions;

/// The properties of one client.
pub struct Properties {
    /// The section, with a dot at its end: `kafka.properties.`.
    pub prefix: &'static str,
    /// Whose they are: "Kafka's client".
    pub client: &'static str,
    /// What may be set.
    pub known: &'static [Property],
    /// Names that stand for another one.
    pub aliases: &'static [(&'static str, &'static str)],
    /// What may not be set, and why.
    pub refused: &'static [(&'static str, &'static str)],
    /// Whether the client takes a property with this value; if not, what it says, which may repeat the value.
    pub accepts: fn(&str, &str) -> Result<(), String>,
    /// Where a value goes.
    pub set: fn(&mut Extensions, &'static str, Value),
    /// The head of their part of docs/settings.md, in Markdown.
    pub doc: &'static str,
}

/// A value of a property.
pub enum Value {
    /// Anybody may see it.
    Plain(String),
    /// Nobody may.
    Secret(Secret),
}

/// A property that may be set.
pub struct Property {
    /// The client's name of it.
    pub name: &'static str,
    /// What it may be.
    pub kind: PropertyKind,
}

/// What a property's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyKind {
    /// Anything that the client takes.
    Plain,
    /// One of these, in any case.
    OneOf(&'static [&'static str]),
    /// A file (or folder) that has to be there.
    Path,
    /// Never shown; may be in a file, named by the property with `_file` at its end.
    Secret,
}

impl Properties {
    /// The property of this name, or of the name that this one stands for.
    pub fn find(&self, name: &str) -> Option<&'static Property> {
        let alias = self.aliases.iter().find(|(alias, _)| *alias == name);
        let meant = alias.map_or(name, |(_, name)| name);
        self.known.iter().find(|property| property.name == meant)
    }

    /// Why a property may not be set, where there is more to say than that it is unknown.
    pub fn refusal(&self, name: &str) -> Option<&'static str> {
        let refused = self.refused.iter().find(|(refused, _)| *refused == name);
        refused.map(|(_, reason)| *reason)
    }

    /// The whole name of the setting: `kafka.properties.sasl.password`.
    pub fn name_of(&self, property: &Property) -> String {
        format!("{}{}", self.prefix, property.name)
    }
}
