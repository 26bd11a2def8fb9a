//! Measurements: one subcommand a question. Each checks its own answer before it prints a figure.
//!
//! ```text
//!   bench tumble   ── child process a run: in process (1, 2 workers, with and without a view), or
//!                     drain, thalweg, drain, thalweg, … from Kafka ──▶ medians and ratios
//!   bench latency  ── open loop: scheduled produce time ──▶ visible in the view
//!   bench lookup   ── point lookups over HTTP while records come in
//!   bench checkpoint ── bytes and pauses of checkpoints at several sizes of state
//!   bench recovery ── from the start of a process to answers, from a checkpoint and from the topics
//!   bench endurance ── half an hour under load: memory, files and disk are sampled and plotted
//!   bench idle     ── what a service costs that has nothing to do
//!   bench compile  ── from an edit of a dataflow to a binary: what the library costs its users
//! ```
//!
//! Figures are written as JSON lines to `--out` (default: nowhere) and as a table to the terminal.

mod checkpoint;
mod compile;
mod endurance;
mod events;
mod idle;
mod kafka;
mod latency;
mod lookup;
mod measure;
mod tumble;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As the packages of dataflows do: librdkafka allocates on one thread, and the workers free on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures Thalweg", version)]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Windowed count and sum: events a second, and events a CPU-second.
    Tumble(tumble::Arguments),
    /// From the scheduled moment of producing to visible in the view.
    Latency(latency::Arguments),
    /// Point lookups over HTTP while records come in.
    Lookup(lookup::Arguments),
    /// What checkpoints cost: bytes, pauses, freshness meanwhile.
    Checkpoint(checkpoint::Arguments),
    /// What they save: how long until a process that was killed answers again.
    Recovery(checkpoint::Arguments),
    /// Whether anything grows that should not.
    Endurance(endurance::Arguments),
    /// What a service costs that has nothing to do.
    Idle(idle::Arguments),
    /// From an edit of a dataflow to a binary: what the library costs its users.
    Compile(compile::Arguments),
    /// One run of `tumble`, in a process of its own.
    #[command(hide = true)]
    Run(tumble::Run),
    /// One process of `checkpoint`.
    #[command(hide = true)]
    CheckpointRun(checkpoint::Run),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().question {
        Question::Tumble(arguments) => tumble::tumble(&arguments),
        Question::Latency(arguments) => latency::latency(&arguments),
        Question::Lookup(arguments) => lookup::lookup(&arguments),
        Question::Idle(arguments) => idle::idle(&arguments),
        Question::Compile(arguments) => compile::compile(&arguments),
        Question::Run(run) => tumble::run(&run),
        Question::Checkpoint(arguments) => checkpoint::checkpoint(&arguments),
        Question::Recovery(arguments) => checkpoint::recovery(&arguments),
        Question::Endurance(arguments) => endurance::endurance(&arguments),
        Question::CheckpointRun(run) => checkpoint::run(&run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
