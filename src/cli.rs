//! The command line of every binary made with [`main`].
//!
//! ```text
//!   run     a dataflow on a Kafka            query   a view of a running service
//!   demo    the same, with data of its own   plan    what a dataflow consists of
//!   check   settings and outside, looked at  ledger  show | verify | reset what a ledger holds
//!                                            checkpoint  list | show | verify | prune the state on disk
//!   topics, dead-letters  (Kafka's) and      schema  check | register a schema
//!           other connectors' commands
//!   verify  epochs gone through again come to what they came to
//! ```

mod check;
mod checkpoint;
mod connector;
mod demo;
mod flags;
mod ledger;
mod query;
mod readiness;
mod schema;
mod serve;
mod signal;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::flags::Flags;
use crate::dataflow::Flow;
use crate::error::{Error, Result};
use crate::runtime;
use crate::source::Environment;
use crate::suggest;

/// Runs dataflows: the whole `main` of a binary.
///
/// ```no_run
/// use thalweg::prelude::*;
/// fn nothing(_flow: Dataflow) {}
/// fn main() -> ExitCode {
///     thalweg::main([dataflow("nothing", nothing)])
/// }
/// ```
pub fn main(flows: impl IntoIterator<Item = Flow>) -> ExitCode {
    main_from(std::env::args_os(), flows)
}

/// The same with other arguments than the process's own; the first is the program's name.
pub fn main_from(
    arguments: impl IntoIterator<Item = OsString>,
    flows: impl IntoIterator<Item = Flow>,
) -> ExitCode {
    let flows: Vec<Flow> = flows.into_iter().collect();
    let matches = match connector::add_to(Arguments::command()).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => error.exit(),
    };
    let outcome = match connector::Called::of(&matches) {
        Some(called) => {
            end_with_the_reader();
            called.run(&flows).map(|()| true)
        }
        None => match Arguments::from_arg_matches(&matches) {
            Ok(arguments) => run(arguments.command, &flows),
            Err(error) => error.exit(),
        },
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Parser)]
#[command(
    version,
    about = "Dataflows over Kafka, kept up to date and answered over HTTP",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a dataflow on a Kafka
    Run(RunArguments),
    /// Run a dataflow with data of its own; without --kafka everything is in this process
    Demo(DemoArguments),
    /// Print the settings in force, and whether topics, schemas and ledger fit; nothing is changed
    Check(CheckArguments),
    /// Ask a running service for rows of a view
    Query(QueryArguments),
    /// Say what a dataflow consists of
    Plan {
        /// Which dataflow; may be left out where there is only one
        dataflow: Option<String>,
    },
    /// Hold a schema against the registry's rules
    Schema {
        #[command(subcommand)]
        what: schema::SchemaCommand,
    },
    /// Go through bound epochs again, beside the running service, and compare results with what the ledger
    /// says
    Verify(VerifyArguments),
    /// Look into the ledger of a dataflow that is not running
    Ledger {
        #[command(subcommand)]
        what: LedgerCommand,
    },
    /// Look at the checkpoints of a dataflow
    Checkpoint {
        /// Settings in TOML, which say where checkpoints are; left out: thalweg.toml in the working
        /// directory, if it is there
        #[arg(
            long,
            env = "THALWEG_CONFIG",
            hide_env_values = true,
            global = true,
            value_name = "FILE"
        )]
        config: Option<PathBuf>,
        #[command(subcommand)]
        what: CheckpointCommand,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Which dataflow; may be left out where there is only one
    dataflow: Option<String>,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct VerifyArguments {
    /// Which dataflow; may be left out where there is only one
    dataflow: Option<String>,
    /// First epoch: state is taken from a checkpoint of before it; left out: as far back as ledger and
    /// checkpoints reach
    #[arg(long, value_name = "EPOCH")]
    from: Option<u64>,
    /// Last epoch; left out: the last that was bound
    #[arg(long, value_name = "EPOCH")]
    to: Option<u64>,
    /// Compare with what other builds computed, too: whether a changed program comes to the same
    #[arg(long)]
    any_build: bool,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct CheckArguments {
    /// Which dataflow; may be left out where there is only one
    dataflow: Option<String>,
    /// JSON, and not text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct DemoArguments {
    /// Which dataflow; may be left out where only one has a demo
    dataflow: Option<String>,
    #[command(flatten)]
    settings: Flags<true>,
}

#[derive(Args)]
struct QueryArguments {
    /// Which view; left out: all views are listed
    view: Option<String>,
    /// Conditions and the like, as in URLs: merchant=42 window=last_closed order=-total limit=10
    #[arg(value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// JSON as the service gives it, and not a table
    #[arg(long)]
    json: bool,
    /// Where the service answers
    #[arg(
        long,
        env = "THALWEG_SERVER",
        default_value = "http://127.0.0.1:8460",
        value_name = "URL"
    )]
    server: String,
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Print what was bound, a line an epoch
    Show {
        /// The ledger's folder
        dir: PathBuf,
        /// First epoch
        #[arg(long)]
        from: Option<u64>,
        /// Last epoch
        #[arg(long)]
        to: Option<u64>,
    },
    /// Read everything, check every hash
    Verify {
        /// The ledger's folder
        dir: PathBuf,
    },
    /// Move the ledger aside, so that the next start is the first one
    Reset {
        /// The ledger's folder
        dir: PathBuf,
        /// Do it, and don't only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum CheckpointCommand {
    /// Print a line for each
    List {
        /// The dataflow's folder, `<data_dir>/<dataflow>`; or where its checkpoints are:
        /// s3://BUCKET/PREFIX/APP/DATAFLOW
        dir: PathBuf,
    },
    /// Print what one consists of
    Show {
        /// The dataflow's folder
        dir: PathBuf,
        /// Which; left out: the newest
        epoch: Option<u64>,
    },
    /// Read all files and check their hashes
    Verify {
        /// The dataflow's folder
        dir: PathBuf,
    },
    /// Remove old ones; the dataflow must not be running
    Prune {
        /// The dataflow's folder
        dir: PathBuf,
        /// How many to keep, of those that are whole; with 0 the next start makes all state anew from the
        /// topics
        #[arg(long, default_value_t = 1)]
        keep: usize,
        /// Do it, and don't only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

/// What prints and is done ends quietly when nobody reads on, as in `… | head`; Rust makes a panic of that.
fn end_with_the_reader() {
    // SAFETY: a plain system call, before any other thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Runs a command; false: it has said itself what is wrong.
fn run(command: Command, flows: &[Flow]) -> Result<bool> {
    if !matches!(command, Command::Run(_) | Command::Demo(_) | Command::Verify(_)) {
        end_with_the_reader();
    }
    match command {
        Command::Run(arguments) => serve::run(choose(flows, arguments.dataflow.as_deref())?, &arguments)?,
        Command::Demo(arguments) => demo::run(flows, &arguments)?,
        Command::Check(arguments) => {
            return check::run(choose(flows, arguments.dataflow.as_deref())?, &arguments);
        }
        Command::Verify(arguments) => {
            return verify::run(choose(flows, arguments.dataflow.as_deref())?, &arguments);
        }
        Command::Query(arguments) => query::run(&arguments)?,
        Command::Plan { dataflow } => {
            let plan = runtime::plan(choose(flows, dataflow.as_deref())?, &Environment::default())?;
            print!("{}", plan.text);
        }
        Command::Schema { what } => schema::run(&what)?,
        Command::Ledger {
            what: LedgerCommand::Show { dir, from, to },
        } => ledger::show(&dir, from, to)?,
        Command::Ledger {
            what: LedgerCommand::Reset { dir, yes },
        } => ledger::reset(&dir, yes)?,
        Command::Ledger {
            what: LedgerCommand::Verify { dir },
        } => ledger::verify(&dir)?,
        Command::Checkpoint { config, what } => {
            let config = config.as_deref();
            let of = |dir| checkpoint::Of { dir, config };
            match what {
                CheckpointCommand::List { dir } => checkpoint::list(&of(&dir))?,
                CheckpointCommand::Show { dir, epoch } => checkpoint::show(&of(&dir), epoch)?,
                CheckpointCommand::Verify { dir } => return checkpoint::verify(&of(&dir)),
                CheckpointCommand::Prune { dir, keep, yes } => checkpoint::prune(&of(&dir), keep, yes)?,
            }
        }
    }
    Ok(true)
}

fn choose<'f>(flows: &'f [Flow], name: Option<&str>) -> Result<&'f Flow> {
    let names = || flows.iter().map(Flow::name).collect::<Vec<_>>().join(", ");
    match (name, flows) {
        (None, [flow]) => Ok(flow),
        (None, []) => Err(Error::definition("this binary has no dataflow")),
        (None, _) => Err(Error::definition("which dataflow?").detail(format!("there are: {}", names()))),
        (Some(name), _) => {
            let found = flows.iter().find(|flow| flow.name() == name);
            let unknown = || {
                let error = Error::definition(format!("there is no dataflow `{name}`"))
                    .detail(format!("there are: {}", names()));
                match suggest::nearest(name, flows.iter().map(Flow::name)) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                }
            };
            found.ok_or_else(unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::{Dataflow, dataflow};

    #[test]
    fn a_slip_of_the_pen_is_told_the_name_that_was_meant() {
        let flows = ["merchant_spend", "orders"].map(|name| dataflow(name, |_: Dataflow| {}));
        let refused = |name| choose(&flows, Some(name)).err().unwrap().to_string();
        let near = refused("merchnt");
        assert!(near.contains("hint: did you mean `merchant_spend`?"), "{near}");
        let far = refused("xyz");
        assert!(
            !far.contains("did you mean") && far.contains("merchant_spend, orders"),
            "{far}"
        );
        assert_eq!(choose(&flows, Some("orders")).unwrap().name(), "orders");
    }
}
