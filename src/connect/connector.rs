//! The interface of a connector to settings, checks and the command line.

use clap::{ArgMatches, Command};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::setting::Setting;
use crate::setting::extensions::Extensions;
use crate::setting::properties::Properties;
use crate::source::Environment;
use crate::source::setting::SourceSetting;

/// A kind of system that dataflows read, with everything that concerns other parts than its sources.
pub trait Connector: Sync {
    /// The name, which is also the section of its settings: `kafka`.
    fn name(&self) -> &'static str;

    /// What one of its sources reads, in the singular: `topic`.
    fn log(&self) -> &'static str;

    /// The settings. Their values go into [`Environment::connectors`], in a type of the connector's own.
    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    /// Client properties that can be set under the client's own names.
    fn properties(&self) -> Option<&'static Properties> {
        None
    }

    /// The settings of a single source. Values go into
    /// [`Overrides::connector`](crate::source::Overrides::connector).
    fn source_settings(&self) -> &'static [SourceSetting] {
        &[]
    }

    /// A conflict between settings: `(the setting at fault, what is wrong)`.
    fn conflict(&self, _settings: &Extensions) -> Option<(String, String)> {
        None
    }

    /// Warnings about settings that are valid by themselves, as lines of `check`.
    fn warnings(&self, _settings: &Extensions) -> Vec<Finding> {
        Vec::new()
    }

    /// The commands, without the dataflow's name and the flags of settings: those are added to each command
    /// and its subcommands.
    fn commands(&self) -> Vec<Command> {
        Vec::new()
    }

    /// Runs a command.
    ///
    /// # Errors
    /// Why the command failed.
    fn run(&self, command: &str, _arguments: &ArgMatches, _on: &CommandContext<'_>) -> Result<()> {
        Err(Error::internal(format!("there is no command `{command}`")))
    }
}

/// The context of a connector's command.
pub struct CommandContext<'a> {
    /// What the dataflows read from the connector, by name, without duplicates.
    pub logs: &'a [String],
    /// The topics that the dataflows' dead letters are written to, each once.
    pub dead_letters: &'a [String],
    /// The settings.
    pub env: &'a Environment,
    /// The runtime for asynchronous calls.
    pub runtime: &'a Handle,
}
