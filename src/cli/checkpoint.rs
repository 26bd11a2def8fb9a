//! `checkpoint list | show | verify | prune`.
//!
//! ```text
//!   data/spend     its ledger says whose it is ─┐
//!   settings       `checkpoint.store` ──────────┴─▶ beside the ledger, or in the store's folder of app and dataflow
//!   s3://bucket/prefix/app/dataflow ──────────────▶ as it is; to look only
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::place::FOLDER;
use crate::checkpoint::store::Store;
use crate::config::{self, Inputs};
use crate::error::{Error, Result};
use crate::ledger;
use crate::time::Epoch;

/// Which dataflow's checkpoints: its folder, or a URL; and the settings file that was named.
pub(super) struct Of<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: Option<&'a Path>,
}

pub(super) fn list(of: &Of<'_>) -> Result<()> {
    let store = there(of)?;
    for epoch in store.epochs()? {
        match store.manifest(epoch) {
            Ok(manifest) => println!("{}", line(&manifest)),
            Err(error) => println!("{:<18}damaged: {error}", epoch.0),
        }
    }
    Ok(())
}

pub(super) fn show(of: &Of<'_>, epoch: Option<u64>) -> Result<()> {
    let store = there(of)?;
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

pub(super) fn verify(of: &Of<'_>) -> Result<bool> {
    let store = there(of)?;
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

pub(super) fn prune(of: &Of<'_>, keep: usize, yes: bool) -> Result<()> {
    if url(of.dir).is_some() {
        return Err(Error::definition("only whoever holds the ledger may remove checkpoints")
            .hint("name the dataflow's folder, with `checkpoint.store` set: checkpoint prune <data_dir>/<dataflow>"));
    }
    let _held = ledger::hold(of.dir)?;
    let store = there(of)?;
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

fn there(of: &Of<'_>) -> Result<Store> {
    let settings = config::load(&Inputs::of_process(of.config, true, Vec::new())?)?.settings;
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
            .detail(format!("it has no folder `{FOLDER}`"))
            .hint("name the folder of one dataflow, <data_dir>/<dataflow>; where they are elsewhere, say so: `checkpoint.store`"),
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
