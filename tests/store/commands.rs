//! The command line on a bucket: what a service makes there, what is looked at and removed; and what is said
//! where that does not work.

use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Duration;

use thalweg::prelude::{Dataflow, Files, dataflow};

use crate::support::s3::{Bucket, LOGIN, SECRET};
use crate::support::thalweg::{Thalweg, command, succeeded};

const ASKED: &str = "THALWEG_TEST_STORE";

/// Not a test by itself: the process that [`service`] starts.
#[test]
fn process() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let asked: Vec<String> = serde_json::from_str(&asked).expect("the parent says what to run");
    let flow = dataflow("newest", |flow: Dataflow| {
        let lines = Files::lines("*.jsonl").json::<(u64, u64)>();
        flow.table("lines", lines.keyed(|(key, value)| (key, Some(value))))
            .view("newest");
    });
    let code = thalweg::cli::main_from(asked.into_iter().map(Into::into), [flow]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

/// A command of a binary that has a dataflow of files, in their folder.
fn of_files(dir: &Path, args: &[&str], bucket: &Bucket) -> Command {
    let asked = [&["thalweg"], args].concat();
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    let this = [
        "--exact",
        "store::commands::process",
        "--nocapture",
        "--test-threads=1",
    ];
    command.args(this).current_dir(dir).stdin(Stdio::null());
    command.env(ASKED, serde_json::to_string(&asked).expect("words are plain"));
    login(&mut command, bucket);
    command
}

fn service(dir: &Path, args: &[&str], bucket: &Bucket) -> Thalweg {
    let all = [&["run"], &Thalweg::ARGUMENTS[..], args].concat();
    Thalweg::spawn_command(of_files(dir, &all, bucket))
}

fn write(dir: &Path, value: u64) {
    use std::io::Write;
    let mut options = std::fs::File::options();
    let mut file = options
        .create(true)
        .append(true)
        .open(dir.join("in.jsonl"))
        .unwrap();
    (0..100).for_each(|key| writeln!(file, "[{key},{value}]").unwrap());
}

/// With a login, and nothing else that the environment may say.
fn login(command: &mut Command, bucket: &Bucket) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.env("AWS_ENDPOINT_URL", bucket.url()).envs(LOGIN);
}

fn run(args: &[&str], bucket: &Bucket, with: impl FnOnce(&mut Command)) -> Output {
    let mut command = command(args);
    login(&mut command, bucket);
    with(&mut command);
    let output = command.output().expect("it can be run");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(!String::from_utf8_lossy(&said).contains(SECRET));
    output
}

/// What it says as it fails.
fn refused(args: &[&str], bucket: &Bucket, with: impl FnOnce(&mut Command)) -> String {
    let output = run(args, bucket, with);
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn checkpoints_of_a_service_are_listed_verified_and_pruned_where_they_are() {
    let (bucket, dir) = (Bucket::shared(), tempfile::tempdir().unwrap());
    let args = [
        ["--set", "checkpoint.store=s3://thalweg/commands"],
        ["--set", "checkpoint.interval=50ms"],
        ["--set", "log.level=trace"],
    ];
    write(dir.path(), 0);
    let mut service = service(dir.path(), args.as_flattened(), bucket);
    service.serves();
    service.ready();
    // The first is due at once.
    service.line("checkpoint complete");
    for value in 1..5 {
        // Of what comes in after the interval. While the files of the one before are still put in order none
        // begins, and then not before something else comes.
        let seen = (0..60).any(|_| {
            std::thread::sleep(Duration::from_millis(60));
            write(dir.path(), value);
            service
                .line_within("checkpoint complete", Duration::from_secs(2))
                .is_some()
        });
        assert!(seen, "{}", service.log());
    }
    let (status, log) = service.end(libc::SIGTERM);
    assert!(status.success(), "{log}");
    assert!(!log.contains(SECRET), "with all logs on");
    let folder = dir.path().join("data/newest");
    assert!(
        !folder.join("checkpoints").exists(),
        "nothing is beside the ledger"
    );

    let folder = folder.to_str().unwrap();
    let url = "s3://thalweg/commands/thalweg/newest";
    let set = |command: &mut Command| _ = command.env("THALWEG_CHECKPOINT_STORE", "s3://thalweg/commands");
    for of in [folder, url] {
        let list = succeeded("list", &run(&["checkpoint", "list", of], bucket, set));
        assert_eq!(list.lines().count(), 2, "{list}");
        let verified = succeeded("verify", &run(&["checkpoint", "verify", of], bucket, set));
        assert_eq!(verified.matches("  whole").count(), 2, "{verified}");
        let shown = succeeded("show", &run(&["checkpoint", "show", of], bucket, set));
        assert!(shown.contains("view newest"), "{shown}");
    }
    let text = refused(&["checkpoint", "prune", url, "--yes"], bucket, set);
    assert!(text.contains("the ledger's owner"), "{text}");
    let text = refused(&["checkpoint", "prune", folder, "--keep", "1"], bucket, set);
    assert!(text.contains("would remove") && text.contains(url), "{text}");
    succeeded(
        "prune",
        &run(
            &["checkpoint", "prune", folder, "--keep", "1", "--yes"],
            bucket,
            set,
        ),
    );
    let list = succeeded("list", &run(&["checkpoint", "list", url], bucket, set));
    assert_eq!(list.lines().count(), 1, "{list}");

    // `check` looks there, too.
    let mut check = of_files(dir.path(), &["check"], bucket);
    set(&mut check);
    let checked = succeeded("check", &check.output().unwrap());
    assert!(
        checked.contains("is intact") && checked.contains("a start resumes from it"),
        "{checked}"
    );
    assert!(
        checked.contains("s3://thalweg/commands   THALWEG_CHECKPOINT_STORE"),
        "{checked}"
    );

    // One object is damaged behind everybody's back.
    let objects = bucket.folder(Path::new(url));
    let newest = std::fs::read_dir(&objects)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = newest
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .max()
        .unwrap();
    std::fs::write(&segment, b"thalweg").unwrap();
    let output = run(&["checkpoint", "verify", url], bucket, set);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("damaged"), "{said}");
}

#[test]
fn what_does_not_work_is_told_with_what_to_do() {
    let bucket = Bucket::shared();
    let url = "s3://thalweg/nothing/a/b";
    let list = ["checkpoint", "list", url];
    let said = succeeded("list", &run(&list, bucket, |_| {}));
    assert_eq!(said, "", "a prefix without objects");
    let text = refused(&["checkpoint", "verify", url], bucket, |_| {});
    assert!(
        text.contains("there is no checkpoint") && text.contains(url),
        "{text}"
    );

    let text = refused(&list, bucket, |command| {
        _ = command.env("AWS_SECRET_ACCESS_KEY", "another")
    });
    assert!(
        text.contains("does not accept the credentials (SignatureDoesNotMatch"),
        "{text}"
    );
    assert!(text.contains("hint: check AWS_ACCESS_KEY_ID"), "{text}");

    let text = refused(&list, bucket, |command| {
        _ = command.env("AWS_ACCESS_KEY_ID", "nobody")
    });
    assert!(
        text.contains("does not accept the credentials (InvalidAccessKeyId"),
        "{text}"
    );

    let text = refused(&list, bucket, |command| {
        _ = command.env_remove("AWS_SECRET_ACCESS_KEY")
    });
    assert!(text.contains("AWS_SECRET_ACCESS_KEY"), "{text}");

    let text = refused(&["checkpoint", "list", "s3://no-such-bucket/a/b"], bucket, |_| {});
    assert!(
        text.contains("there is no bucket `s3://no-such-bucket`"),
        "{text}"
    );
    assert!(text.contains("hint: create the bucket"), "{text}");

    let text = refused(&list, bucket, |command| {
        _ = command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    });
    assert!(text.contains("`s3://thalweg` does not answer"), "{text}");
    assert!(text.contains("checkpoint.endpoint"), "{text}");

    let text = refused(&["checkpoint", "list", "gs://bucket/a/b"], bucket, |_| {});
    assert!(text.contains("name a bucket, s3://bucket/prefix"), "{text}");
    let set = ["check", "--set", "checkpoint.store=s3://key:secret@bucket/x"];
    let text = refused(&set, bucket, |_| {});
    assert!(
        text.contains("must be s3://BUCKET/PREFIX or file:///FOLDER"),
        "{text}"
    );
}

/// A start fails where no checkpoint could ever be made, before anything is read.
#[test]
fn a_service_without_its_store_does_not_start() {
    let (bucket, dir) = (Bucket::shared(), tempfile::tempdir().unwrap());
    write(dir.path(), 0);
    let args = ["--set", "checkpoint.store=s3://no-such-bucket/x"];
    let service = service(dir.path(), &args, bucket);
    let (status, log) = service.ended();
    assert!(!status.success());
    assert!(log.contains("there is no bucket `s3://no-such-bucket`"), "{log}");
}
