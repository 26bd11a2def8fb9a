//! `checkpoint list | show | verify | prune`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::store::Store;
use crate::disk::HostDisk;
use crate::error::{Error, Result};
use crate::ledger;
use crate::time::Epoch;

/// The checkpoints of a dataflow, in its folder.
pub(super) fn store(dir: &Path) -> Store {
    Store::new(Arc::new(HostDisk), &dir.join(FOLDER))
}

/// Where in a dataflow's folder they are.
const FOLDER: &str = "checkpoints";

pub(super) fn list(dir: &Path) -> Result<()> {
    let store = there(dir)?;
    for epoch in store.epochs()? {
        match store.manifest(epoch) {
            Ok(manifest) => println!("{}", line(&manifest)),
            Err(error) => println!("{:<18}damaged: {error}", epoch.0),
        }
    }
    Ok(())
}

pub(super) fn show(dir: &Path, epoch: Option<u64>) -> Result<()> {
    let store = there(dir)?;
    let newest = store.epochs()?.last().copied();
    let none = || Error::definition("there is no checkpoint").detail(store.dir.display().to_string());
    let manifest = store.manifest(epoch.map(Epoch).or(newest).ok_or_else(none)?)?;
    println!("{}", line(&manifest));
    println!(
        "made by {}, generation {}, under the ledger's hash {}",
        manifest.build, manifest.generation, manifest.chain
    );
    let from = manifest
        .from
        .as_ref()
        .map_or("the ledger's start".into(), |base| {
            base.binding.epoch.opened_at().to_string()
        });
    println!("views can be asked for what is after {from}, as far as each keeps it");
    for range in &manifest.at.binding.ranges {
        let id = range.id;
        println!(
            "  source {:08x} partition {:<4} read up to offset {}",
            id.source.0, id.partition, range.hi
        );
    }
    for step in &manifest.steps {
        let (bytes, entries) = step.segments.iter().fold((0, 0), |(bytes, entries), segment| {
            (bytes + segment.bytes, entries + segment.entries)
        });
        println!(
            "  {:<40} {:>3} files {:>12} bytes {:>10} entries",
            step.shape.name,
            step.segments.len(),
            bytes,
            entries
        );
    }
    Ok(())
}

pub(super) fn verify(dir: &Path) -> Result<bool> {
    let store = there(dir)?;
    let mut whole = true;
    for epoch in store.epochs()? {
        match store
            .manifest(epoch)
            .and_then(|manifest| store.verify(&manifest).map(|()| manifest))
        {
            Ok(manifest) => println!("{}  whole", line(&manifest)),
            Err(error) => {
                whole = false;
                println!("{:<18}damaged: {error}", epoch.0);
            }
        }
    }
    Ok(whole)
}

pub(super) fn prune(dir: &Path, keep: usize, yes: bool) -> Result<()> {
    let _held = ledger::hold(dir)?;
    let store = there(dir)?;
    if !yes {
        let gone = store.prunable(keep, &BTreeSet::new())?;
        let error = Error::definition("nothing was done").detail(format!(
            "would remove {} files of `{}`",
            gone.len(),
            store.dir.display()
        ));
        let error = match keep {
            0 => error.detail("the next start then makes all state anew from the topics"),
            _ => error,
        };
        return Err(error.hint("say --yes to do it"));
    }
    let gone = store.prune(keep, &BTreeSet::new())?;
    println!("removed {} files", gone.len());
    Ok(())
}

fn there(dir: &Path) -> Result<Store> {
    let store = store(dir);
    if store.dir.is_dir() {
        return Ok(store);
    }
    Err(
        Error::definition(format!("there are no checkpoints in `{}`", dir.display()))
            .detail(format!("it has no folder `{FOLDER}`"))
            .hint("name the folder of one dataflow: <data_dir>/<dataflow>"),
    )
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
