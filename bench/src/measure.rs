//! What a process has used: time, processors, memory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thalweg::{Error, Result, clock};

/// CPU-seconds of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    cpu_seconds_by(libc::RUSAGE_SELF)
}

/// The same of processes that it started, and that have ended.
pub fn children_cpu_seconds() -> f64 {
    cpu_seconds_by(libc::RUSAGE_CHILDREN)
}

fn cpu_seconds_by(whom: libc::c_int) -> f64 {
    // SAFETY: `getrusage` fills the struct that it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(whom, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// CPU-seconds of another process so far; `None` when it is gone.
pub fn cpu_seconds_of(pid: u32) -> Option<f64> {
    stat_seconds(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn stat_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // SAFETY: asks the system for a constant.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let at = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((at(11)? + at(12)?) / ticks)
}

/// CPU-seconds of the threads alive, added up by name without numbers, in hundredths.
pub fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut by_name = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'))
            .map_or("", |(name, _)| name);
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        *by_name.entry(name).or_insert(0.0) += stat_seconds(&stat).unwrap_or(0.0);
    }
    by_name.retain(|_, seconds| *seconds >= 0.02);
    by_name
}

/// The most memory that this process has held, in bytes.
pub fn rss_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// What was used from `start` on.
#[derive(Clone, Debug)]
pub struct Used {
    /// On the clock.
    pub wall: Duration,
    /// Of all threads.
    pub cpu_seconds: f64,
    /// At the end.
    pub rss_peak_bytes: u64,
    /// At the end.
    pub threads: BTreeMap<String, f64>,
}

/// Marks the begin and, as often as it is told, the end: the last one counts.
#[derive(Clone)]
pub struct Meter {
    start: (Instant, f64),
    end: Arc<Mutex<Option<Used>>>,
}

impl Meter {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            start: (clock::instant(), cpu_seconds()),
            end: Arc::default(),
        }
    }

    /// Ends now.
    pub fn stop(&self) {
        let used = Used {
            wall: clock::instant() - self.start.0,
            cpu_seconds: cpu_seconds() - self.start.1,
            rss_peak_bytes: rss_peak_bytes(),
            threads: cpu_by_thread(),
        };
        if let Ok(mut end) = self.end.lock() {
            *end = Some(used);
        }
    }

    /// What was used up to the last stop.
    pub fn used(&self) -> Result<Used> {
        let end = self.end.lock().ok().and_then(|end| end.clone());
        end.ok_or_else(|| Error::internal("the run did not come to its end"))
    }
}

/// Stops a meter when it is dropped.
pub struct StopAtDrop(pub Meter);

impl Drop for StopAtDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The middle one; of an even number the lower of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Adds a line to a file of results, with what the figures depend on: date, processors, version.
pub fn record(out: Option<&Path>, mut line: Value) -> Result<()> {
    let Some(out) = out else { return Ok(()) };
    line["at"] = json!(clock::now().to_string());
    line["cores"] = json!(std::thread::available_parallelism().map_or(0, usize::from));
    line["version"] = json!(env!("CARGO_PKG_VERSION"));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(out)?;
    writeln!(file, "{line}")?;
    Ok(())
}
