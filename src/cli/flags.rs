//! Command line flags of settings, derived from the table, so that none is missing.
//!
//! ```text
//!   table ──▶ Arg (long, help with default and variable) ──▶ ArgMatches ──▶ CliOverride ──▶ config::load
//! ```

use std::path::PathBuf;

use clap::builder::ValueHint;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::config::{self, CliOverride, ConfigInputs, ResolvedSettings, table};
use crate::error::{Error, Result};
use crate::setting::{FlagScope, Setting};

/// The flags of a command; `DEMO` selects `demo`.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags<const DEMO: bool> {
    /// The settings file given on the command line.
    file: Option<PathBuf>,
    spoken: Vec<CliOverride>,
    /// Arguments of `--set` that are not `NAME=VALUE`.
    unclear: Vec<String>,
}

impl<const DEMO: bool> Flags<DEMO> {
    /// Resolves the settings. A demo reads a file only if one is named: the one in the working directory may
    /// belong to a production service, and the demo would write to its topics.
    pub(super) fn load(&self) -> Result<ResolvedSettings> {
        if let Some(unclear) = self.unclear.first() {
            return Err(
                Error::definition(format!("--set takes NAME=VALUE, but `{unclear}` has no `=`"))
                    .hint("as in --set epoch_interval=10ms"),
            );
        }
        let inputs = ConfigInputs::of_process(self.file.as_deref(), !DEMO, self.spoken.clone())?;
        config::load(&inputs)
    }

    fn has(setting: &Setting) -> bool {
        setting.flag.as_ref().is_some_and(|flag| match flag.on {
            FlagScope::All => true,
            FlagScope::Run => !DEMO,
            FlagScope::Demo => DEMO,
        })
    }
}

impl<const DEMO: bool> Args for Flags<DEMO> {
    fn augment_args(command: Command) -> Command {
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .env("THALWEG_CONFIG")
                    .hide_env_values(true)
                    .value_hint(ValueHint::FilePath)
                    .value_parser(value_parser!(PathBuf))
                    .help(match DEMO {
                        true => "Settings in TOML",
                        false => {
                            "Settings in TOML. Default: thalweg.toml in the working directory, if it exists"
                        }
                    }),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("NAME=VALUE")
                    .action(ArgAction::Append)
                    .help(
                        "Any setting of docs/settings.md, as in --set epoch_interval=10ms; may be repeated",
                    ),
            );
        table::settings().filter(|setting| Self::has(setting)).fold(
            command,
            |command, setting| match &setting.flag {
                Some(flag) => {
                    let arg = Arg::new(setting.name).long(flag.name).help(help(setting));
                    command.arg(match flag.value {
                        "" => arg.action(ArgAction::SetTrue),
                        value => arg.value_name(value),
                    })
                }
                None => command,
            },
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn help(setting: &Setting) -> String {
    let default = match setting.default {
        "" | "false" => String::new(),
        default => format!(" [default: {default}]"),
    };
    format!("{}{default} [env: {}]", setting.doc, setting.variable())
}

impl<const DEMO: bool> FromArgMatches for Flags<DEMO> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for text in matches.get_many::<String>("set").into_iter().flatten() {
            match text.split_once('=') {
                Some((name, value)) => self.spoken.push(CliOverride {
                    name: name.trim().to_owned(),
                    flag: "--set".to_owned(),
                    value: value.to_owned(),
                }),
                None => self.unclear.push(text.clone()),
            }
        }
        for setting in table::settings().filter(|setting| Self::has(setting)) {
            let Some(flag) = &setting.flag else { continue };
            let value = match flag.value {
                "" => matches.get_flag(setting.name).then(|| "true".to_owned()),
                _ => matches.get_one::<String>(setting.name).cloned(),
            };
            self.spoken.extend(value.map(|value| CliOverride {
                name: setting.name.to_owned(),
                flag: format!("--{}", flag.name),
                value,
            }));
        }
        Ok(())
    }
}
