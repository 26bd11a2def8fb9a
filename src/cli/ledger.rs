//! `ledger show | verify | reset`.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ledger;
use crate::time::Epoch;

pub(super) fn show(dir: &Path, from: Option<u64>, to: Option<u64>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let epochs = Epoch(from.unwrap_or(0))..=Epoch(to.unwrap_or(u64::MAX));
    for line in ledger::show(dir, epochs)? {
        if writeln!(out, "{}", line?).is_err() {
            break; // Whoever read along has seen enough.
        }
    }
    Ok(())
}

pub(super) fn verify(dir: &Path) -> Result<()> {
    println!("{}", ledger::verify(dir)?);
    Ok(())
}

pub(super) fn reset(dir: &Path, yes: bool) -> Result<()> {
    if !yes {
        let target = ledger::reset_target(dir)?;
        return Err(Error::definition("nothing was done")
            .detail(format!(
                "would move the ledger `{}` to `{}`",
                dir.display(),
                target.display()
            ))
            .detail("the next start is then the first: it reads from where the sources are told to start")
            .hint("say --yes to do it"));
    }
    let aside = ledger::reset(dir)?;
    println!("the ledger was moved to {}", aside.display());
    println!("the next start is the first one; to undo this, move the folder back before it");
    Ok(())
}
