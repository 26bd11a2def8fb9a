//! What a connector is to settings, checks and the command line.

use clap::{ArgMatches, Command};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::setting::Setting;
use crate::setting::extensions::Extensions;
use crate::setting::properties::Properties;
use crate::source::Environment;
use crate::source::setting::SourceSetting;

/// A kind of system that dataflows read, with what of it concerns others than its sources.
pub trait Connector: Sync {
    /// Its name, which is also the section of its settings: `kafka`.
    fn name(&self) -> &'static str;

    /// What one source of it reads, in the singular: `topic`.
    fn log(&self) -> &'static str;

    /// Its settings. Their values go into [`Environment::connectors`], by a type of its own.
    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    /// Properties of its client that may be set under the client's own names.
    fn properties(&self) -> Option<&'static Properties> {
        None
    }

    /// What may be set of one source of it. Values go into
    /// [`Overrides::connector`](crate::source::Overrides::connector).
    fn source_settings(&self) -> &'static [SourceSetting] {
        &[]
    }

    /// What is wrong with settings taken together: `(the setting at fault, what is wrong)`.
    fn at_odds(&self, _settings: &Extensions) -> Option<(String, String)> {
        None
    }

    /// What settings mean that is no mistake by itself: lines of `check`.
    fn doubts(&self, _settings: &Extensions) -> Vec<Finding> {
        Vec::new()
    }

    /// Its commands, without the dataflow's name and the flags of settings: they are added to each and its
    /// subcommands.
    fn commands(&self) -> Vec<Command> {
        Vec::new()
    }

    /// Runs one of them.
    ///
    /// # Errors
    /// What the command could not do.
    fn run(&self, command: &str, _arguments: &ArgMatches, _on: &Ground<'_>) -> Result<()> {
        Err(Error::internal(format!("there is no command `{command}`")))
    }
}

/// What a connector's command works on.
pub struct Ground<'a> {
    /// What the dataflows read of the connector, by name, each once.
    pub logs: &'a [String],
    /// The topics that the dataflows' dead letters are written to, each once.
    pub dead_letters: &'a [String],
    /// The settings.
    pub env: &'a Environment,
    /// For what is asynchronous.
    pub runtime: &'a Handle,
}
