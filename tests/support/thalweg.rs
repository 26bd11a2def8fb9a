//! The real `thalweg` binary: built once, started, asked over HTTP, ended by a signal.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{block_on, server};

/// For one step of the process. A loaded machine needs far less.
const PATIENCE: Duration = Duration::from_secs(120);

/// `…/target/debug/deps/it-0123` → `…/target`, and whether the tests run in release.
fn target() -> (PathBuf, bool) {
    let test = std::env::current_exe().expect("a test knows itself");
    let profile = test.ancestors().nth(2).expect("target/profile/deps/test");
    (
        profile.parent().expect("target/profile").to_owned(),
        profile.ends_with("release"),
    )
}

/// Cargo, building to where the tests were built.
pub fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    // What cargo tells a test of its package, build scripts of dependencies take for a change: all behind
    // them would be built again, the running test among it.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command.env("CARGO_TARGET_DIR", target().0).stdin(Stdio::null());
    command
}

/// What a command printed; it must have succeeded.
pub fn succeeded(what: &str, output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{what} failed\n{out}\n{err}");
    out.into_owned()
}

/// The `thalweg` binary: `cargo test` alone doesn't link it, as it belongs to another package.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(["--bin", "thalweg"]).join("thalweg"))
}

/// One of the examples of `dataflows/`, a program of its own.
pub fn example(name: &str) -> PathBuf {
    built(["--example", name]).join("examples").join(name)
}

/// Builds a program of `dataflows/`; the folder of what is built.
fn built(program: [&str; 2]) -> PathBuf {
    let (target, release) = target();
    let mut build = cargo();
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build
        .args(["build", "--offline", "--quiet", "-p", "dataflows"])
        .args(program);
    if release {
        build.arg("--release");
    }
    // As these tests were built, so that the library is not built once more.
    for (is_on, feature) in [
        (cfg!(feature = "object-store"), "thalweg/object-store"),
        (cfg!(feature = "postgres"), "thalweg/postgres"),
        (cfg!(feature = "protobuf"), "thalweg/protobuf"),
        (cfg!(feature = "json-schema"), "thalweg/json-schema"),
    ] {
        if is_on {
            build.args(["--features", feature]);
        }
    }
    succeeded("cargo build", &build.output().expect("cargo can be started"));
    target.join(if release { "release" } else { "debug" })
}

/// The binary, without settings from the environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THALWEG_") {
            command.env_remove(name);
        }
    }
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A service, started by its command line; killed when it is dropped.
pub struct Thalweg {
    child: Child,
    url: String,
    /// Lines of standard error, as they come.
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Thalweg {
    /// By which it serves on any free port, and says so in lines that can be read.
    pub const ARGUMENTS: [&str; 4] = ["--http", "127.0.0.1:0", "--log", "json"];

    /// Starts `run` or `demo`, on any free port, and returns once it serves.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, |_| {})
    }

    /// The same, with more to be said about the process.
    pub fn start_with(args: &[&str], with: impl FnOnce(&mut Command)) -> Self {
        let mut service = Self::spawn(args, with);
        service.serves();
        service
    }

    /// Waits until it serves.
    pub fn serves(&mut self) {
        let serving = self.line("serving");
        let url = serving["fields"]["url"].as_str().expect("the address is logged");
        self.url = url.to_owned();
    }

    /// Starts it without waiting for anything.
    pub fn spawn(args: &[&str], with: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(args);
        command.args(Self::ARGUMENTS);
        with(&mut command);
        Self::spawn_command(command)
    }

    /// The same of another program, which is told [`Thalweg::ARGUMENTS`] too.
    pub fn spawn_command(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = server::spawn(command).expect("the binary can be started");
        let err = child.stderr.take().expect("piped");
        let (send, lines) = channel();
        let log = Arc::<Mutex<String>>::default();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
                drop(kept);
                let _nobody_waits_any_more = send.send(line);
            }
        });
        Self {
            child,
            url: String::new(),
            lines,
            log,
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the log line with this message, but for so long only.
    pub fn line_within(&self, message: &str, time: Duration) -> Option<Value> {
        let until = thalweg::clock::instant() + time;
        loop {
            let left = until.saturating_duration_since(thalweg::clock::instant());
            let line = self.lines.recv_timeout(left).ok()?;
            match serde_json::from_str::<Value>(&line) {
                Ok(line) if line["fields"]["message"] == message => return Some(line),
                _ => {}
            }
        }
    }

    /// Waits for the log line with this message.
    pub fn line(&self, message: &str) -> Value {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => match serde_json::from_str::<Value>(&line) {
                    Ok(line) if line["fields"]["message"] == message => return line,
                    _ => {}
                },
                Err(end) => {
                    let what = match end {
                        RecvTimeoutError::Timeout => format!("not within {PATIENCE:?}"),
                        RecvTimeoutError::Disconnected => "and it has ended".to_owned(),
                    };
                    panic!("no line `{message}`, {what}; its log:\n{}", self.log());
                }
            }
        }
    }

    /// Asks it, as `GET`; the status and the answer.
    pub fn ask(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        block_on(async move {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let answer = client
                .get(url)
                .timeout(PATIENCE)
                .send()
                .await
                .expect("it answers");
            let status = answer.status().as_u16();
            (status, answer.json().await.expect("the answer is JSON"))
        })
    }

    /// Asks it for a page that is not JSON, or may be none.
    pub fn page(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url);
        block_on(async move {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let answer = client.get(url).timeout(PATIENCE).send().await;
            answer.expect("it answers").text().await.expect("text")
        })
    }

    /// Asks it for what it must have.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path);
        assert_eq!(status, 200, "{path}: {body}\n{}", self.log());
        body
    }

    /// Waits until it is ready.
    pub fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.ask("/health/ready");
            if status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {body}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal and waits for the end; how it ended, and its log.
    pub fn end(self, signal: i32) -> (ExitStatus, String) {
        // SAFETY: a plain system call; the process is a child that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                // Up to its very last line.
                while self.lines.recv().is_ok() {}
                return (status, self.log());
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Thalweg {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
