//! The command line with dataflows of the tests', as a process: what its users see when it ends.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::{PATIENCE, poison, refused, replayed};
use crate::support::kafka::Broker;

const ASKED: &str = "THALWEG_TEST_COMMAND";
const ASKED_ANY: &str = "THALWEG_TEST_ANY_COMMAND";

/// Not a test by itself: the process that [`run`] starts.
#[test]
fn command() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let asked: Vec<String> = serde_json::from_str(&asked).expect("the parent says what to run");
    let arguments = ["thalweg".to_owned(), "run".to_owned()].into_iter().chain(asked);
    let code = thalweg::cli::main_from(arguments.map(Into::into), [poison::flow(), refused::flow()]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

/// Not a test by itself: the process that [`command_line`] starts, for a command on topics alone.
#[test]
fn any_command() {
    let Ok(asked) = std::env::var(ASKED_ANY) else {
        return;
    };
    let asked: Vec<String> = serde_json::from_str(&asked).expect("the parent says what to run");
    let arguments = ["thalweg".to_owned()].into_iter().chain(asked);
    println!("{BEGINS}");
    let code = thalweg::cli::main_from(arguments.map(Into::into), [replayed::flow()]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

/// Where the output of a command begins, behind that of the test's own.
const BEGINS: &str = "@begins";

/// The command line, to be run as a process of its own.
pub fn command_line(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command
        .args([
            "--exact",
            "kafka::command::any_command",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(
            ASKED_ANY,
            serde_json::to_string(arguments).expect("words are plain"),
        )
        .stdin(Stdio::null());
    command
}

/// What a command prints; it must succeed.
pub fn printed(arguments: &[&str]) -> String {
    let output = command_line(arguments)
        .output()
        .expect("the test binary can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, out) = out.split_once(BEGINS).expect("it says where it begins");
    out.trim_start().to_owned()
}

/// Runs a dataflow with further arguments until it ends by itself: its exit code, none where a signal ended
/// it, and what it wrote to standard error.
pub fn run(
    dataflow: &str,
    broker: &Broker,
    arguments: &[&str],
    with: impl FnOnce(&mut Command),
) -> (Option<i32>, String) {
    let kafka = broker.bootstrap();
    let mut asked = vec![dataflow, "--kafka", &kafka];
    if !arguments.contains(&"--http") {
        asked.extend(["--http", "127.0.0.1:0"]);
    }
    asked.extend(arguments);
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command
        .args([
            "--exact",
            "kafka::command::command",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ASKED, serde_json::to_string(&asked).expect("words are plain"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    with(&mut command);
    let mut child = command.spawn().expect("the test binary can be run");
    let mut stderr = child.stderr.take().expect("piped");
    let reads = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _end = std::io::Read::read_to_end(&mut stderr, &mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _gone = child.kill();
                let _reaped = child.wait();
                panic!("it does not end; it said\n{}", reads.join().unwrap_or_default());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    (
        status.code(),
        reads.join().expect("reading ends with the process"),
    )
}
