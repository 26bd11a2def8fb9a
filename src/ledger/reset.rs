//! Resets a ledger: moves it aside, and never deletes it.
//!
//! ```text
//!   data/spend/ledger.log ── held by a service? yes ─▶ refuse
//!                                 │ no
//!                                 ▼
//!   data/spend.reset-20260301T120000Z/ledger.log        the next start finds nothing, and makes a new ledger
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::disk::{HostDisk, sync_dir};
use crate::error::{Error, Result};
use crate::ledger::reader::{FILE_NAME, cannot};
use crate::ledger::{LOCK_NAME, refuse_foreign, take_lock};

/// How many ledgers may be moved aside in one second.
const SAME_SECOND_MAX: u32 = 100;

/// Where [`reset`] would move the ledger in `dir`.
///
/// # Errors
/// Those of [`reset`].
pub fn reset_target(dir: &Path) -> Result<PathBuf> {
    let _held = hold(dir)?;
    free_name(dir)
}

/// Moves the directory of a ledger aside, with everything in it, so that the next start is the first one.
/// Returns its new location; moved back, it is the ledger again.
///
/// # Errors
/// [`External`](crate::Kind::External): a process holds the ledger, or the directory cannot be moved.
/// [`Definition`](crate::Kind::Definition): there is no ledger in `dir`.
pub fn reset(dir: &Path) -> Result<PathBuf> {
    let _held = hold(dir)?;
    let aside = free_name(dir)?;
    fs::rename(dir, &aside).map_err(|error| cannot("move", dir, &error))?;
    if let Some(parent) = aside.parent() {
        sync_dir(parent).map_err(|error| cannot("move", dir, &error))?;
    }
    Ok(aside)
}

/// While this is held, no process can write to the ledger.
pub(crate) fn hold(dir: &Path) -> Result<crate::disk::Lock> {
    let missing = || {
        Error::definition(format!("there is no ledger in `{}`", dir.display()))
            .detail(format!("it has no file `{FILE_NAME}`"))
            .hint("name the directory of one dataflow: <data_dir>/<dataflow>")
    };
    if !dir.join(FILE_NAME).is_file() {
        return Err(missing());
    }
    refuse_foreign(&HostDisk, dir)?;
    let known = dir.join(LOCK_NAME).exists();
    let held = take_lock(&HostDisk, dir);
    if held.is_ok() && !known {
        // A copy that was never opened: it is left unchanged.
        let _kept = fs::remove_file(dir.join(LOCK_NAME));
    }
    held
}

/// A sibling of the directory, because that is where people look for it first.
fn free_name(dir: &Path) -> Result<PathBuf> {
    // `data/spend/.` and the like have no file name.
    let dir = fs::canonicalize(dir).map_err(|error| cannot("find", dir, &error))?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let seconds = clock::now().micros() / 1_000_000 * 1_000_000;
    let stamp: String = crate::time::EventTime(seconds)
        .to_string()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    let named = |turn: u32| match turn {
        0 => format!("{name}.reset-{stamp}"),
        turn => format!("{name}.reset-{stamp}-{turn}"),
    };
    let mut names = (0..SAME_SECOND_MAX).map(|turn| dir.with_file_name(named(turn)));
    names.find(|aside| !aside.exists()).ok_or_else(|| {
        Error::external(format!("found no free name to move `{}` to", dir.display()))
            .hint("try again in a second")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::ledger::{Claim, Ledger};

    #[test]
    fn a_ledger_is_put_aside_whole_and_only_when_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spend");
        let claim = || Claim {
            app: "shop".into(),
            dataflow: "spend".into(),
            build: "1".into(),
            sources: Vec::new(),
        };
        let (held, first) = Ledger::open(&dir, claim()).unwrap();
        let refused = reset(&dir).unwrap_err();
        assert_eq!(refused.kind(), Kind::External);
        assert!(refused.to_string().contains("another process holds"), "{refused}");
        assert!(reset_target(&dir).is_err() && dir.exists());
        drop((held, first));

        let bytes = fs::read(dir.join(FILE_NAME)).unwrap();
        let target = reset_target(&dir).unwrap();
        assert!(dir.exists() && !target.exists(), "asked only");
        let aside = reset(&dir).unwrap();
        assert!(!dir.exists());
        assert_eq!(fs::read(aside.join(FILE_NAME)).unwrap(), bytes);
        // The next one counts as the first, and is moved aside next to the other, even within a second.
        let (held, fresh) = Ledger::open(&dir, claim()).unwrap();
        assert_eq!(fresh.generation, 1);
        drop((held, fresh));
        assert_ne!(reset(&dir).unwrap(), aside);
        // Moved back, it continues.
        fs::rename(&aside, &dir).unwrap();
        assert_eq!(Ledger::open(&dir, claim()).unwrap().1.generation, 2);
    }

    #[test]
    fn what_is_no_ledger_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "1").unwrap();
        for dir in [folder.path().to_owned(), folder.path().join("missing")] {
            let refused = reset(&dir).unwrap_err();
            assert_eq!(refused.kind(), Kind::Definition, "{refused}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "not even a lock");
    }
}
