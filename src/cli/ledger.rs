//! `ledger show | verify`.

use std::io::Write;
use std::path::Path;

use crate::error::Result;
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
