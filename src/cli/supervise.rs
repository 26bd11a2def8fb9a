//! `run --supervise`: runs the service as a child process, and starts it again when it fails.
//!
//! ```text
//!   child ends well, or a signal came ─▶ end
//!   child fails ─▶ wait 0.25 s, 0.5 s, 1 s … 30 s ─▶ start it again      after ten seconds' run: from 0.25 s again
//! ```
//!
//! In a cluster, a lost process makes all others end. With a supervisor for each of them, the cluster forms
//! again by itself.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::cli::signal;
use crate::clock;
use crate::error::{Error, Result};

/// Set in the child.
const SUPERVISED: &str = "SUPERVISED_BY_THALWEG";

/// The pauses between attempts.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(30);
/// A child that ran for this long was not failing at its start.
const SETTLED: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

/// Whether this process is the child.
pub(super) fn is_child() -> bool {
    std::env::var_os(SUPERVISED).is_some()
}

/// Runs the service until it ends well, or a signal comes.
pub(super) fn run(tokio: &tokio::runtime::Runtime) -> Result<()> {
    let signal = {
        let _inside = tokio.enter();
        signal::listen()?
    };
    let signal = tokio.spawn(signal);
    let mut pause = *PAUSES.start();
    loop {
        let begun = clock::instant();
        let mut child = start()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if signal.is_finished() {
                return end(child);
            }
            std::thread::sleep(TICK);
        };
        if status.success() {
            return Ok(());
        }
        if clock::instant() - begun >= SETTLED {
            pause = *PAUSES.start();
        }
        tracing::warn!(%status, restart_in = ?pause, "the service has failed; starting it again");
        let until = clock::instant() + pause;
        while clock::instant() < until {
            if signal.is_finished() {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        pause = (pause * 2).min(*PAUSES.end());
    }
}

fn start() -> Result<Child> {
    let mut arguments = std::env::args_os();
    let program = std::env::current_exe()?;
    let name = arguments.next().unwrap_or_else(|| OsString::from("thalweg"));
    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).env(SUPERVISED, "1");
    // SAFETY: prctl is a plain system call, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command
        .spawn()
        .map_err(|error| Error::external(format!("cannot start {}", program.display())).detail(error))
}

/// Stops the child in an orderly way.
fn end(mut child: Child) -> Result<()> {
    // SAFETY: a plain system call; the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    let status: ExitStatus = child.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::external("the service did not stop as it should").detail(status)),
    }
}
