//! `ledger show | verify | reset`.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::ledger;
use crate::time::Epoch;

/// The name of the file in a dataflow's directory.
const FILE_NAME: &str = "ledger.log";

pub(super) fn show(dir: &Path, from: Option<u64>, to: Option<u64>) -> Result<()> {
    is_there(dir)?;
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
    is_there(dir)?;
    println!("{}", ledger::verify(dir)?);
    Ok(())
}

/// The error for a directory without a ledger, or with an empty one: neither is damage.
fn is_there(dir: &Path) -> Result<()> {
    let file = dir.join(FILE_NAME);
    match std::fs::metadata(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::definition(format!(
            "there is no ledger in `{}`",
            dir.display()
        ))
        .detail(format!("it has no file `{FILE_NAME}`"))
        .hint("name the directory of one dataflow: <data_dir>/<dataflow>")),
        Ok(about) if about.is_file() && about.len() == 0 => Err(Error::definition(format!(
            "the ledger `{}` is empty",
            file.display()
        ))
        .detail("nothing was ever written to it, or it was truncated")
        .hint("restore the file from a copy; without one, move the directory away to start over")),
        _ => Ok(()),
    }
}

pub(super) fn reset(dir: &Path, yes: bool) -> Result<()> {
    if !yes {
        let target = ledger::reset_target(dir)?;
        return Err(Error::definition("not confirmed; nothing was changed")
            .detail(format!(
                "would move the ledger `{}` to `{}`",
                dir.display(),
                target.display()
            ))
            .detail(
                "the next start then counts as the first: it reads from where the sources are told to \
                start",
            )
            .hint("pass --yes to confirm"));
    }
    let aside = ledger::reset(dir)?;
    println!("the ledger was moved to {}", aside.display());
    println!("the next start counts as the first one; to undo this, move the directory back before then");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_too_high_and_an_empty_ledger_are_told_apart_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let commands: [fn(&Path) -> Result<()>; 2] = [|dir| show(dir, None, None), verify];
        let refused = || commands.map(|command| command(dir.path()).unwrap_err().to_string());
        let put_aside = reset(dir.path(), false).unwrap_err().to_string();
        assert_eq!(refused(), [put_aside.clone(), put_aside]);
        std::fs::write(dir.path().join(FILE_NAME), "").unwrap();
        for refused in refused() {
            assert!(refused.contains("ledger.log` is empty"), "{refused}");
        }
        std::fs::write(dir.path().join(FILE_NAME), "something else").unwrap();
        for refused in refused() {
            assert!(refused.contains("is not a Thalweg ledger"), "{refused}");
        }
    }
}
