//! A server process that lives no longer than the test process, whichever way that ends.
//!
//! Three nets, because none catches everything: `Drop` for servers that a test owns; an exit handler for
//! shared ones, which live in statics that are never dropped; and the kernel's parent-death signal for a test
//! process that is killed or aborts. Folders that the third case leaves behind are swept by the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it serves: a loaded machine needs several times the usual 4 to 8 seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
const FOLDER_PREFIX: &str = "thalweg-test-";

/// One server: its port, its folder, and its process, if that runs.
pub struct Server {
    script: &'static str,
    port: u16,
    args: Vec<String>,
    folder: TempDir,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts `scripts/<script> exec` on a free port and an empty folder, and returns when `ready` says so.
    ///
    /// # Panics
    /// With the end of the server's log, when it ends or isn't ready in time.
    pub fn start(script: &'static str, args: &[String], ready: impl Fn(u16) -> bool) -> Self {
        sweep();
        let mut tries = 0;
        loop {
            tries += 1;
            let folder = tempfile::Builder::new()
                .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
                .tempdir()
                .expect("a folder for a server can be made");
            let server = Self {
                script,
                port: free_port(),
                args: args.to_vec(),
                folder,
                child: Mutex::new(None),
            };
            match server.run(&ready) {
                Ok(()) => return server,
                // Between the look for a free port and its use somebody else may have taken it.
                Err(log) if tries < 3 && log.contains("Address already in use") => {}
                Err(log) => panic!(
                    "{script} on port {} did not start; the end of its log:\n{log}",
                    server.port
                ),
            }
        }
    }

    /// The port of 127.0.0.1 it serves on, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends a signal to the process, if it runs.
    pub fn signal(&self, signal: i32) {
        if let Some(child) = &*self.child() {
            send(child.id(), signal);
        }
    }

    /// Sends a signal and waits until the process is gone.
    pub fn end(&self, signal: i32) {
        if let Some(mut child) = self.child().take() {
            send(child.id(), signal);
            child.wait().expect("a child can be waited for");
            live().remove(&child.id());
        }
    }

    /// Starts it again on the same port and folder, after [`Server::end`].
    ///
    /// # Panics
    /// When it still runs, or as [`Server::start`] does.
    pub fn start_again(&self, ready: impl Fn(u16) -> bool) {
        assert!(
            self.child().is_none(),
            "{} still runs: end it before starting it again",
            self.script
        );
        if let Err(log) = self.run(ready) {
            panic!(
                "{} on port {} did not start again; the end of its log:\n{log}",
                self.script, self.port
            );
        }
    }

    /// Starts the process and waits for it; the error is the end of its log.
    fn run(&self, ready: impl Fn(u16) -> bool) -> Result<(), String> {
        let log_path = self.folder().join("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .expect("the log can be opened");
        let mut command = Command::new(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("scripts")
                .join(self.script),
        );
        command
            .args(["exec", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log);
        let child =
            spawn(command).unwrap_or_else(|error| panic!("scripts/{} can't be run: {error}", self.script));
        live().insert(child.id(), self.folder().to_owned());
        *self.child() = Some(child);
        let deadline = Instant::now() + READY_WITHIN;
        while !ready(self.port) {
            let ended = self
                .child()
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.end(libc::SIGKILL);
                return Err(tail(&log_path));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(libc::SIGKILL);
    }
}

/// Starts a child on the keeper thread, to be killed with this process.
///
/// The parent-death signal comes when the *thread* that started the child ends, and a test's thread ends with
/// its test: hence one thread that starts all children and ends never.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static KEEPER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let handle = KEEPER.get_or_init(|| {
        // SAFETY: the handler is an `extern "C"` function that doesn't unwind.
        unsafe { libc::atexit(end_all) };
        let (sender, orders) = mpsc::channel::<Order>();
        let run = move || {
            for (mut command, reply) in orders {
                // The one who asked waits for the reply.
                let _ = reply.send(command.spawn());
            }
        };
        std::thread::Builder::new()
            .name("server-keeper".into())
            .spawn(run)
            .expect("a thread can be started");
        sender
    });
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called; neither allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call above.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::sync_channel(1);
    handle.send((command, reply)).expect("the keeper thread runs");
    answer.recv().expect("the keeper thread answers")
}

/// The processes that run now, with their folders: what the exit handler has to end.
fn live() -> std::sync::MutexGuard<'static, BTreeMap<u32, PathBuf>> {
    static LIVE: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn end_all() {
    for (pid, folder) in std::mem::take(&mut *live()) {
        send(pid, libc::SIGKILL);
        // SAFETY: a child of this process that nobody else waits for: it was in `live`.
        unsafe { libc::waitpid(pid.cast_signed(), std::ptr::null_mut(), 0) };
        let _ = fs::remove_dir_all(folder); // the next start sweeps what is left
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: a plain system call; the process is a child that was not waited for, so its id is not anybody
    // else's.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Removes the folders of test processes that are no more.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(FOLDER_PREFIX)?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path()); // another test process may be at it too
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_port() -> u16 {
    loop {
        let drawn = RandomState::new().build_hasher().finish();
        let port = 10_000 + (drawn % 22_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
