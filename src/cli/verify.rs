//! `verify`: replays bound epochs, next to the service if it is running, and compares their results.

use std::time::Duration;

use crate::cli::VerifyArguments;
use crate::cli::serve::{self, ServeContext};
use crate::clock;
use crate::dataflow::Flow;
use crate::error::{Error, Result, count};
use crate::runtime::{Replay, Service};
use crate::time::Epoch;

/// The interval of progress messages.
const TELL_EVERY: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// Returns false if nothing could be compared.
pub(super) fn run(flow: &Flow, arguments: &VerifyArguments) -> Result<bool> {
    let (from, to) = (arguments.from.map(Epoch), arguments.to.map(Epoch));
    if let (Some(first), Some(last)) = (from, to)
        && first > last
    {
        return Err(Error::definition("--from is after --to").detail(format!("{first} > {last}")));
    }
    let resolved = arguments.settings.load()?;
    let settings = &resolved.settings;
    serve::log_to_stderr(&resolved);
    let tokio = serve::tokio()?;
    let registry = serve::registry(&settings.registry, tokio.handle())?;
    let running = ServeContext {
        flow,
        env: serve::environment(settings, registry),
        data_dir: settings.data_dir.join(flow.name()),
        resolved: &resolved,
    };
    running.sources_fit()?;
    let mut engine = running.engine()?;
    engine.env.until_end = false;
    engine.until_end = false;
    engine.replay = Some(Replay {
        from,
        to,
        any_build: arguments.any_build,
    });
    let workers = engine.workers;
    let service = Service::start(flow, engine)?;
    let begun = service.restored().map_or("the ledger's start".into(), |epoch| {
        format!("the checkpoint of epoch {epoch}")
    });
    let mut told = clock::instant();
    while !service.is_finished() && !service.halt().is_halted() {
        if clock::instant() - told > TELL_EVERY {
            told = clock::instant();
            if let Some((Some(closed), last)) = service.replaying() {
                tracing::info!(at = %closed.opened_at(), end = %last.opened_at(), "verifying");
            }
        }
        std::thread::sleep(TICK);
    }
    let compared = service.compared();
    let views = service.join()?;
    let last = views.closed().map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
    println!(
        "replayed {} up to {last} from {begun}, on {}",
        count(compared.replayed(), "epoch"),
        count(workers as u64, "worker")
    );
    println!("  {} matched the result in the ledger", compared.alike);
    if compared.different > 0 {
        println!("  {} differed: see above", compared.different);
    }
    if compared.unknown > 0 {
        println!("  {} had no result to compare with", compared.unknown);
    }
    if compared.gave_up {
        println!("  results after a compacted topic was read were not compared: its records may be gone");
    } else if compared.replayed() == 0 {
        println!("the range contains no epoch");
    } else if compared.alike + compared.different == 0 && !arguments.any_build {
        println!("if another build ran them, pass --any-build to compare anyway");
    }
    Ok(compared.alike > 0 && compared.different == 0)
}
