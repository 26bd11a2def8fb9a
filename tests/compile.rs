//! What the compiler says to wrong uses, and that right ones compile.
//!
//! Each file in `compile/refused` has one wrong use; beside it stands what a person is told, which a change
//! of ours must not make worse. `COMPILE=overwrite cargo test --test it compile::` writes those files anew:
//! read the difference.
//!
//! The compiler is run directly on what cargo has built for this test binary: a crate of its own would build
//! every dependency, the C library of Kafka's client among them, a second time.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::thalweg::cargo;

/// The libraries that a user's file names, as cargo built them for these tests.
struct Built {
    thalweg: PathBuf,
    serde: PathBuf,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Built {
    /// Asks cargo, which finds all of it fresh.
    fn find() -> Self {
        let mut command = cargo();
        command.args([
            "test",
            "--no-run",
            "--offline",
            "--quiet",
            "--test",
            "it",
            "--message-format=json",
        ]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        for (is_on, feature) in [
            (cfg!(feature = "object-store"), "object-store"),
            (cfg!(feature = "postgres"), "postgres"),
        ] {
            if is_on {
                command.args(["--features", feature]);
            }
        }
        let output = command.current_dir(root()).output().expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let library = |name: &str| {
            let artifacts = said
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let of = |artifact: &Value| {
                artifact["target"]["name"] == name && artifact["target"]["kind"][0] == "lib"
            };
            let artifact = artifacts
                .into_iter()
                .find(of)
                .unwrap_or_else(|| panic!("cargo has not built {name}"));
            let files = artifact["filenames"].as_array().cloned().unwrap_or_default();
            let file = files
                .iter()
                .filter_map(Value::as_str)
                .find(|file| file.ends_with(".rlib"));
            PathBuf::from(file.unwrap_or_else(|| panic!("{name} is not a library")))
        };
        Self {
            thalweg: library("thalweg"),
            serde: library("serde"),
        }
    }

    /// What the compiler has to say about a file; nothing if it takes it.
    fn check(&self, file: &Path) -> String {
        let out = tempfile::tempdir().expect("a temporary folder");
        let with = |name: &str, file: &Path| format!("{name}={}", file.display());
        let deps = self.serde.parent().expect("libraries lie in a folder");
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "bin",
                "--emit",
                "metadata",
                "--error-format",
                "json",
                "-A",
                "warnings",
            ])
            .args([
                "--extern",
                &with("thalweg", &self.thalweg),
                "--extern",
                &with("serde", &self.serde),
            ])
            .args(["-L", &with("dependency", deps)])
            .arg("--out-dir")
            .arg(out.path())
            .arg(file.strip_prefix(root()).unwrap_or(file))
            .current_dir(root())
            .output()
            .expect("rustc runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<Value> = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| {
                message["level"] == "error" && !message["spans"].as_array().is_none_or(Vec::is_empty)
            })
            .collect();
        assert_eq!(output.status.success(), errors.is_empty(), "{said}");
        errors
            .iter()
            .map(|error| shown(error, file))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// An error as a person reads it, less line numbers and what stands in other files.
fn shown(error: &Value, file: &Path) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let code = text(&error["code"]["code"]);
    let code = if code.is_empty() {
        code
    } else {
        format!("[{code}]")
    };
    let mut out = format!("error{code}: {}\n", text(&error["message"]));
    let spans = |message: &Value| message["spans"].as_array().cloned().unwrap_or_default();
    let own = |span: &&Value| {
        span["file_name"]
            .as_str()
            .is_some_and(|name| file.ends_with(name))
    };
    for span in spans(error).iter().filter(own) {
        let line = &span["text"][0];
        let (from, to) = (
            line["highlight_start"].as_u64().unwrap_or(1),
            line["highlight_end"].as_u64().unwrap_or(1),
        );
        let part: String = text(&line["text"])
            .chars()
            .skip(from as usize - 1)
            .take((to - from) as usize)
            .collect();
        let label = text(&span["label"]);
        let label = if label.is_empty() {
            label
        } else {
            format!("   <-- {label}")
        };
        let _ = writeln!(out, "    {part}{label}");
    }
    for child in error["children"].as_array().into_iter().flatten() {
        let message = text(&child["message"]);
        // Where a bound of ours is written, and lists of types that happen to have a trait, say nothing to a
        // user.
        let idle = [
            "required",
            "the following",
            "the full name for the type",
            "consider using `--verbose`",
            "this error originates in the macro",
        ];
        if !idle.iter().any(|start| message.starts_with(start)) {
            let _ = writeln!(
                out,
                "  {}: {}",
                text(&child["level"]),
                message.replace('\n', "\n    ")
            );
        }
    }
    out
}

#[test]
fn a_users_file_compiles() {
    let said = Built::find().check(&root().join("tests/compile/target.rs"));
    assert!(said.is_empty(), "{said}");
}

#[test]
fn wrong_uses_are_refused_readably() {
    let built = Built::find();
    let overwrite = std::env::var_os("COMPILE").is_some_and(|how| how == "overwrite");
    let folder = fs::read_dir(root().join("tests/compile/refused")).expect("the folder is there");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    assert!(files.len() > 10);
    let mut faults = String::new();
    for file in files {
        let (said, expected) = (built.check(&file), file.with_extension("stderr"));
        if overwrite {
            fs::write(&expected, &said).expect("can be written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if said.is_empty() {
            let _ = writeln!(faults, "== {} compiles", file.display());
        } else if said != expected {
            let _ = writeln!(
                faults,
                "== {}\n-- expected\n{expected}\n-- said\n{said}",
                file.display()
            );
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
