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
mod cluster;
mod connector;
mod demo;
mod flags;
mod ledger;
mod query;
mod readiness;
mod schema;
mod serve;
mod signal;
mod supervise;
mod token;
mod verify;
mod why;

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

/// Runs dataflows: the complete `main` function of a binary.
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

/// Like [`main`], with other arguments than the process's own; the first is the program's name.
pub fn main_from(
    arguments: impl IntoIterator<Item = OsString>,
    flows: impl IntoIterator<Item = Flow>,
) -> ExitCode {
    let flows: Vec<Flow> = flows.into_iter().collect();
    let matches = match connector::add_to(Arguments::command()).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => error.exit(),
    };
    let outcome = match connector::ConnectorCall::of(&matches) {
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
    about = "Incremental dataflows over Kafka, served over HTTP",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a dataflow on Kafka or files
    Run(RunArguments),
    /// Run a dataflow with demo data; without --kafka, everything runs in this process
    Demo(DemoArguments),
    /// Print the effective settings, and check topics, schemas and the ledger; changes nothing
    Check(CheckArguments),
    /// Query a view of a running service
    Query(QueryArguments),
    /// Print the plan of a dataflow
    Plan {
        /// The dataflow; optional if there is only one
        dataflow: Option<String>,
    },
    /// Check a schema against the registry's rules, or register it
    Schema {
        #[command(subcommand)]
        what: schema::SchemaCommand,
    },
    /// Replay bound epochs next to the running service, and compare the results with the ledger
    Verify(VerifyArguments),
    /// Inspect or reset the ledger of a dataflow
    Ledger {
        #[command(subcommand)]
        what: LedgerCommand,
    },
    /// Tell why windows of a view are not closed: which partition, source or sink holds them
    Why {
        /// The view
        view: String,
        /// Print the service's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: ServerArguments,
    },
    /// Look at a running cluster
    Cluster {
        #[command(subcommand)]
        what: cluster::ClusterCommand,
    },
    /// Make tokens for clients of the HTTP API
    Token {
        #[command(subcommand)]
        what: token::TokenCommand,
    },
    /// Inspect or prune the checkpoints of a dataflow
    Checkpoint {
        /// Settings in TOML, for the location of checkpoints. Default: thalweg.toml in the working directory,
        /// if it exists
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
    /// The dataflow; optional if there is only one
    dataflow: Option<String>,
    /// Run as a child process, and start it again whenever it fails, after 0.25 to 30 seconds
    #[arg(long)]
    supervise: bool,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct VerifyArguments {
    /// The dataflow; optional if there is only one
    dataflow: Option<String>,
    /// First epoch; state is restored from a checkpoint before it. Default: as early as ledger and
    /// checkpoints allow
    #[arg(long, value_name = "EPOCH")]
    from: Option<u64>,
    /// Last epoch. Default: the last bound one
    #[arg(long, value_name = "EPOCH")]
    to: Option<u64>,
    /// Also compare with results of other builds, to see whether a changed program has the same results
    #[arg(long)]
    any_build: bool,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct CheckArguments {
    /// The dataflow; optional if there is only one
    dataflow: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Flags<false>,
}

#[derive(Args)]
struct DemoArguments {
    /// The dataflow; optional if only one has a demo
    dataflow: Option<String>,
    #[command(flatten)]
    settings: Flags<true>,
}

#[derive(Args)]
struct QueryArguments {
    /// The view. Default: list all views
    view: Option<String>,
    /// Conditions and parameters as in URLs: merchant=42 window=last_closed order=-total limit=10
    #[arg(value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// Print the service's JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: ServerArguments,
}

/// A running service, and how to reach it.
#[derive(Args)]
struct ServerArguments {
    /// Address of the service
    #[arg(
        long,
        env = "THALWEG_SERVER",
        default_value = "http://127.0.0.1:8460",
        value_name = "URL"
    )]
    server: String,
    /// A token for the service, where it wants one
    #[arg(long, env = "THALWEG_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// CA certificates (PEM) to trust, in addition to the system's
    #[arg(long, env = "THALWEG_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Print the ledger's claims, and its epochs one per line
    Show {
        /// The ledger's directory
        dir: PathBuf,
        /// First epoch
        #[arg(long)]
        from: Option<u64>,
        /// Last epoch
        #[arg(long)]
        to: Option<u64>,
    },
    /// Read everything and verify every hash
    Verify {
        /// The ledger's directory
        dir: PathBuf,
    },
    /// Move the ledger aside, so that the next start counts as the first
    Reset {
        /// The ledger's directory
        dir: PathBuf,
        /// Do it; without this, only print what would be done
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum CheckpointCommand {
    /// List the checkpoints
    List {
        /// The dataflow's directory, `<data_dir>/<dataflow>`; or the URL of its checkpoints:
        /// s3://BUCKET/PREFIX/APP/DATAFLOW
        dir: PathBuf,
    },
    /// Print the contents of a checkpoint
    Show {
        /// The dataflow's directory
        dir: PathBuf,
        /// The checkpoint's epoch. Default: the newest
        epoch: Option<u64>,
    },
    /// Read all files and verify their hashes
    Verify {
        /// The dataflow's directory
        dir: PathBuf,
    },
    /// Remove old checkpoints; the dataflow must not be running
    Prune {
        /// The dataflow's directory
        dir: PathBuf,
        /// Number of intact checkpoints to keep; with 0, the next start rebuilds all state from the topics
        #[arg(long, default_value_t = 1)]
        keep: usize,
        /// Do it; without this, only print what would be done
        #[arg(long)]
        yes: bool,
    },
}

/// Ends quietly when the reader of standard output closes it, as in `… | head`; Rust would panic.
fn end_with_the_reader() {
    // SAFETY: a plain system call, before any other thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Runs a command. Returns false if it has already reported an error.
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
        Command::Why { view, json, at } => why::run(&view, json, &at)?,
        Command::Cluster { what } => cluster::run(&what)?,
        Command::Token { what } => token::run(&what)?,
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
            let of = |dir| checkpoint::CheckpointArguments { dir, config };
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
        (None, _) => Err(Error::definition("which dataflow?").detail(format!("available: {}", names()))),
        (Some(name), _) => {
            let found = flows.iter().find(|flow| flow.name() == name);
            let unknown = || {
                let error = Error::definition(format!("unknown dataflow `{name}`"))
                    .detail(format!("available: {}", names()));
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
