//! The command line of every binary made with [`main`].
//!
//! ```text
//!   run     a dataflow on a Kafka          query   a view of a running service
//!   demo    the same, with data of its own plan    what a dataflow consists of
//!   ledger  show | verify what a ledger holds  topics  that are read: listed, linted, made
//!   schema  check | register a schema
//! ```

mod demo;
mod ledger;
mod query;
mod schema;
mod serve;
mod signal;
mod topics;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::dataflow::Flow;
use crate::error::{Error, Result};
use crate::runtime;
use crate::source::Environment;

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
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments.command, &flows) {
        Ok(()) => ExitCode::SUCCESS,
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
    /// Ask a running service for rows of a view
    Query(QueryArguments),
    /// Say what a dataflow consists of
    Plan {
        /// Which dataflow; may be left out where there is only one
        dataflow: Option<String>,
    },
    /// List the topics that dataflows read: whether they are there, well named, and have partitions enough
    Topics(topics::TopicsArguments),
    /// Hold a schema against the registry's rules
    Schema {
        #[command(subcommand)]
        what: schema::SchemaCommand,
    },
    /// Look into the ledger of a dataflow that is not running
    Ledger {
        #[command(subcommand)]
        what: LedgerCommand,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Which dataflow; may be left out where there is only one
    dataflow: Option<String>,
    /// Bootstrap servers of Kafka; a dataflow that reads files alone needs none
    #[arg(
        long,
        env = "THALWEG_KAFKA",
        value_name = "HOST:PORT",
        default_value = "",
        hide_default_value = true
    )]
    kafka: String,
    /// Schema registry (the Confluent-compatible API)
    #[arg(long, env = "THALWEG_REGISTRY", value_name = "URL")]
    registry: Option<String>,
    /// Where the ledger is kept; one folder a dataflow is made in it
    #[arg(long, env = "THALWEG_DATA_DIR", value_name = "DIR", default_value = "data")]
    data_dir: PathBuf,
    /// Stop when everything that is in the topics at the start has been counted
    #[arg(long)]
    until_end: bool,
    #[command(flatten)]
    service: ServiceArguments,
}

#[derive(Args)]
struct DemoArguments {
    /// Which dataflow; may be left out where only one has a demo
    dataflow: Option<String>,
    /// Use this Kafka instead of one in the process
    #[arg(long, env = "THALWEG_KAFKA", value_name = "HOST:PORT", requires = "registry")]
    kafka: Option<String>,
    /// Schema registry for --kafka
    #[arg(long, env = "THALWEG_REGISTRY", value_name = "URL", requires = "kafka")]
    registry: Option<String>,
    /// Where the ledger is kept; without --kafka a temporary folder, as the broker forgets its topics too
    #[arg(long, value_name = "DIR", requires = "kafka")]
    data_dir: Option<PathBuf>,
    /// Events a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=2_000))]
    rate: u64,
    #[command(flatten)]
    service: ServiceArguments,
}

#[derive(Args)]
struct ServiceArguments {
    /// Worker threads
    #[arg(long, env = "THALWEG_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Where answers are given: a loopback address; port 0 takes any that is free
    #[arg(long, env = "THALWEG_HTTP", default_value = "127.0.0.1:8460")]
    http: SocketAddr,
    /// How log lines are written
    #[arg(long, env = "THALWEG_LOG", value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
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
}

fn run(command: Command, flows: &[Flow]) -> Result<()> {
    match command {
        Command::Run(arguments) => serve::run(choose(flows, arguments.dataflow.as_deref())?, &arguments),
        Command::Demo(arguments) => demo::run(flows, &arguments),
        Command::Query(arguments) => query::run(&arguments),
        Command::Plan { dataflow } => {
            let plan = runtime::plan(choose(flows, dataflow.as_deref())?, &Environment::default())?;
            print!("{}", plan.text);
            Ok(())
        }
        Command::Topics(arguments) => topics::run(flows, &arguments),
        Command::Schema { what } => schema::run(&what),
        Command::Ledger {
            what: LedgerCommand::Show { dir, from, to },
        } => ledger::show(&dir, from, to),
        Command::Ledger {
            what: LedgerCommand::Verify { dir },
        } => ledger::verify(&dir),
    }
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
                Error::definition(format!("there is no dataflow `{name}`"))
                    .detail(format!("there are: {}", names()))
            };
            found.ok_or_else(unknown)
        }
    }
}
