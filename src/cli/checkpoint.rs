//! `checkpoint list | show | verify | prune`.
//!
//! ```text
//!   data/spend     its ledger says whose it is ─┐
//!   settings       `checkpoint.store` ──────────┴─▶ beside the ledger, or in the store's folder of app and dataflow
//!   s3://bucket/prefix/app/dataflow ──────────────▶ as it is; to look only
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::checkpoint::location::FOLDER;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::store::CheckpointStore;
use crate::config::{self, ConfigInputs};
use crate::error::{Error, Kind, Result};
use crate::ledger;
use crate::position::SourceId;
use crate::time::Epoch;

/// The location of a dataflow's checkpoints, a directory or a URL; and the settings file, if given.
pub(super) struct CheckpointArguments<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: Option<&'a Path>,
}

pub(super) fn list(of: &CheckpointArguments<'_>) -> Result<()> {
    let store = existing_store(of)?;
    store.is_known()?;
    let epochs = store.epochs()?;
    if epochs.is_empty() {
        eprintln!("there is no checkpoint in `{}`", store.dir.display());
    }
    for epoch in epochs {
        match store.manifest(epoch) {
            Ok(manifest) => println!("{}", line(&manifest)),
            Err(error) => println!("{:<18}damaged: {error}", epoch.0),
        }
    }
    Ok(())
}

/// The epochs of the checkpoints; having none is an error.
fn some(store: &CheckpointStore) -> Result<Vec<Epoch>> {
    let epochs = store.epochs()?;
    if epochs.is_empty() {
        store.is_known()?;
        return Err(Error::definition("there is no checkpoint").detail(store.dir.display()));
    }
    Ok(epochs)
}

pub(super) fn show(of: &CheckpointArguments<'_>, epoch: Option<u64>) -> Result<()> {
    let store = existing_store(of)?;
    let epochs = some(&store)?;
    let wanted = match (epoch.map(Epoch), epochs.last()) {
        (Some(epoch), _) if !epochs.contains(&epoch) => {
            let there: Vec<_> = epochs.iter().map(Epoch::to_string).collect();
            return Err(
                Error::definition(format!("there is no checkpoint of epoch {epoch}"))
                    .detail(format!("available: {}", there.join(", "))),
            );
        }
        (wanted, newest) => wanted.or(newest.copied()).unwrap_or_default(),
    };
    let manifest = store.manifest(wanted)?;
    println!("{}", line(&manifest));
    println!(
        "written by {}, generation {}, ledger hash {}",
        manifest.build, manifest.generation, manifest.chain
    );
    let from = manifest
        .from
        .as_ref()
        .map_or("the ledger's start".into(), |base| {
            base.binding.epoch.opened_at().to_string()
        });
    println!("views can be read from {from} on, as far as each keeps versions");
    let names = manifest.steps.iter().flat_map(|step| &step.shape.from);
    let names: BTreeMap<_, _> = names.map(|name| (SourceId::of(name), name)).collect();
    for range in &manifest.at.binding.ranges {
        let id = range.id;
        let source = match names.get(&id.source) {
            Some(name) => format!("`{name}`"),
            // What is made of it keeps no state.
            None => format!("{:08x}", id.source.0),
        };
        println!(
            "  source {source} partition {:<4} read up to offset {}",
            id.partition, range.hi
        );
    }
    for step in &manifest.steps {
        let (bytes, entries) = step.segments.iter().fold((0, 0), |(bytes, entries), segment| {
            (bytes + segment.bytes, entries + segment.entries)
        });
        println!(
            "  {:<40} {:>3} files {:>12} bytes {:>10} entries",
            step.shape.identity.to_string(),
            step.segments.len(),
            bytes,
            entries
        );
    }
    Ok(())
}

pub(super) fn verify(of: &CheckpointArguments<'_>) -> Result<bool> {
    let store = existing_store(of)?;
    let mut whole = true;
    some(&store)?;
    for (epoch, examined) in store.examine()? {
        match examined {
            Ok(manifest) => println!("{}  whole", line(&manifest)),
            Err(error) => {
                whole = false;
                println!("{:<18}damaged: {error}", epoch.0);
            }
        }
    }
    Ok(whole)
}

pub(super) fn prune(of: &CheckpointArguments<'_>, keep: usize, yes: bool) -> Result<()> {
    if url(of.dir).is_some() {
        return Err(
            Error::definition("only the ledger's owner may remove checkpoints").hint(
                "name the dataflow's directory, with `checkpoint.store` set: checkpoint prune \
                 <data_dir>/<dataflow>",
            ),
        );
    }
    let _held = ledger::hold(of.dir)?;
    let store = existing_store(of)?;
    if keep > 0 {
        // What nothing says anything of is for people to decide about.
        store.is_known()?;
    }
    let trimmed = ledger::verify(of.dir).ok().and_then(|report| report.trimmed);
    let examined = store.examine()?;
    // One of another format may be whole to another build.
    let is_damaged = |examined: &Result<Manifest>| {
        let error = examined.as_ref().err();
        error.is_some_and(|error| error.kind() == Kind::Integrity)
    };
    let whole = examined
        .iter()
        .filter(|(_, examined)| !is_damaged(examined))
        .count();
    if let Some(trimmed) = trimmed.filter(|_| keep == 0 && whole > 0) {
        return Err(Error::definition("this ledger cannot start without a checkpoint")
            .detail(format!(
                "it was trimmed: bindings up to epoch {trimmed} are covered by checkpoints only"
            ))
            .hint("keep one (--keep 1), or start over with what the topics hold: `ledger reset` first"));
    }
    for (epoch, examined) in &examined {
        if let Err(error) = examined {
            eprintln!("the checkpoint of epoch {epoch} is not usable: {error}");
        }
    }
    if !yes {
        let gone = store.prunable(keep, &BTreeSet::new())?;
        let error = Error::definition("not confirmed; nothing was changed").detail(format!(
            "would remove {} of `{}`",
            crate::error::count(gone.len() as u64, "file"),
            store.dir.display()
        ));
        let error = match keep {
            0 => error.detail("the next start then rebuilds all state from the topics"),
            _ => error,
        };
        return Err(error.hint("pass --yes to confirm"));
    }
    let gone = store.prune(keep, &BTreeSet::new())?;
    println!("removed {} files", gone.len());
    Ok(())
}

fn existing_store(of: &CheckpointArguments<'_>) -> Result<CheckpointStore> {
    let settings = config::load(&ConfigInputs::of_process(of.config, true, Vec::new())?)?.settings;
    let place = settings.checkpoint_place;
    if let Some(url) = url(of.dir) {
        return place.at(url, &std::env::temp_dir(), false);
    }
    if place.url.is_some() {
        let (app, dataflow) = ledger::whose(of.dir)?;
        return place.store(&app, &dataflow, of.dir, false);
    }
    let store = place.store("", "", of.dir, false)?;
    if store.dir.is_dir() {
        return Ok(store);
    }
    Err(
        Error::definition(format!("there are no checkpoints in `{}`", of.dir.display()))
            .detail(format!("it has no directory `{FOLDER}`"))
            .hint(
                "name the directory of one dataflow, <data_dir>/<dataflow>; if checkpoints are stored \
                 elsewhere, set `checkpoint.store`",
            ),
    )
}

fn url(dir: &Path) -> Option<&str> {
    dir.to_str().filter(|text| text.contains("://"))
}

fn line(manifest: &Manifest) -> String {
    let entries: u64 = manifest.segments().map(|segment| segment.entries).sum();
    format!(
        "{:<18}{}  {:>12} bytes {:>10} entries in {} files",
        manifest.epoch.0,
        manifest.epoch.opened_at(),
        manifest.bytes(),
        entries,
        manifest.segments().count()
    )
}
