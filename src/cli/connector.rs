//! Commands provided by connectors, such as Kafka's `topics`.
//!
//! ```text
//!   Connector::commands ─▶ + [DATAFLOW] and the flags of settings, on each and its subcommands ─▶ the command line
//!   ArgMatches ─▶ dataflows ─▶ what they read of the connector ─┬─▶ Connector::run
//!              └▶ settings ──▶ Environment ─────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::cli::choose;
use crate::cli::flags::Flags;
use crate::cli::serve::{environment, tokio};
use crate::config::ServiceSettings;
use crate::connect::CONNECTORS;
use crate::connect::connector::{CommandContext, Connector};
use crate::dataflow::Flow;
use crate::error::Result;
use crate::runtime;
use crate::source::Environment;

#[derive(Args)]
struct ConnectorArguments {
    /// The dataflow. Default: all of them
    dataflow: Option<String>,
    #[command(flatten)]
    settings: Flags<false>,
}

/// Adds the commands of all connectors.
pub(super) fn add_to(command: Command) -> Command {
    let commands = CONNECTORS.iter().flat_map(|connector| connector.commands());
    command.subcommands(commands.map(|command| {
        let command = ConnectorArguments::augment_args(command);
        command.mut_subcommands(ConnectorArguments::augment_args)
    }))
}

/// A call of a connector's command.
pub(super) struct ConnectorCall<'a> {
    connector: &'static dyn Connector,
    command: &'a str,
    arguments: &'a ArgMatches,
}

impl<'a> ConnectorCall<'a> {
    /// `None` if it is not a connector's command.
    pub(super) fn of(matches: &'a ArgMatches) -> Option<Self> {
        let (command, arguments) = matches.subcommand()?;
        let has = |connector: &&&dyn Connector| {
            let mut commands = connector.commands().into_iter();
            commands.any(|own| own.get_name() == command)
        };
        let connector = *CONNECTORS.iter().find(has)?;
        Some(Self {
            connector,
            command,
            arguments,
        })
    }

    pub(super) fn run(&self, flows: &[Flow]) -> Result<()> {
        let inner = self.arguments.subcommand();
        let common = ConnectorArguments::from_arg_matches(inner.map_or(self.arguments, |(_, inner)| inner))?;
        let resolved = common.settings.load()?;
        let (logs, dead_letters) = self.logs(flows, common.dataflow.as_deref(), &resolved.settings)?;
        let tokio = tokio()?;
        let ground = CommandContext {
            logs: &logs,
            dead_letters: &dead_letters,
            env: &environment(&resolved.settings, None),
            runtime: tokio.handle(),
        };
        self.connector.run(self.command, self.arguments, &ground)
    }

    /// Returns the names of what the dataflows read from the connector, and of the topics that their dead
    /// letters are written to.
    fn logs(
        &self,
        flows: &[Flow],
        dataflow: Option<&str>,
        settings: &ServiceSettings,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let chosen = match dataflow {
            Some(name) => std::slice::from_ref(choose(flows, Some(name))?),
            None => flows,
        };
        let env = Environment {
            dead_letters: settings.dead_letters.clone(),
            sources: Arc::new(settings.sources.clone()),
            ..Environment::default()
        };
        let (mut logs, mut dead_letters) = (BTreeSet::new(), BTreeSet::new());
        for flow in chosen {
            let plan = runtime::plan(flow, &env)?;
            let of_it = plan
                .sources
                .iter()
                .filter(|source| source.driver.connector() == Some(self.connector.name()));
            logs.extend(of_it.map(|source| source.topic.clone()));
            dead_letters.extend(
                plan.sources
                    .iter()
                    .filter_map(|source| source.dead_letters.clone()),
            );
        }
        Ok((logs.into_iter().collect(), dead_letters.into_iter().collect()))
    }
}
