//! What the library costs those who build on it: from an edit of a dataflow to a binary.
//!
//! Two crates outside of the workspace are written and built against the library: one with a single windowed
//! aggregate, and one with five dataflows in the manner of NEXMark in each of several modules, with types of
//! their own. What they depend on is built first and not counted. Then a constant is edited, again and again,
//! and the build is timed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use thalweg::{Error, Result, clock};

use crate::measure::{children_cpu_seconds, record};

#[derive(clap::Args)]
pub struct Arguments {
    /// Dataflows of the larger crate, five a module.
    #[arg(long, default_value_t = 25)]
    dataflows: usize,
    /// Edits that are timed; the median counts.
    #[arg(long, default_value_t = 3)]
    edits: usize,
    /// Only this profile: `dev` or `release`.
    #[arg(long)]
    profile: Option<String>,
    /// Only the crate with one dataflow.
    #[arg(long)]
    small: bool,
    /// The library; by default the one that this was built from.
    #[arg(long)]
    library: Option<PathBuf>,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

const WINDOW: &str = include_str!("compile/window.rs");
const AUCTIONS: &str = include_str!("compile/auctions.rs");

/// Builds both crates in both profiles.
pub fn compile(arguments: &Arguments) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = fs::canonicalize(arguments.library.as_ref().unwrap_or(&here))?;
    let mut crates = vec![(1, vec![WINDOW])];
    if !arguments.small {
        crates.push((
            arguments.dataflows,
            vec![AUCTIONS; arguments.dataflows.div_ceil(5)],
        ));
    }
    println!("| dataflows | lines | profile | edit to binary, s | CPU s |");
    println!("|---|---|---|---|---|");
    for (dataflows, modules) in crates {
        let lines: usize = modules.iter().map(|text| text.lines().count()).sum();
        let folder = tempfile::tempdir()?;
        write_crate(folder.path(), &library, &modules)?;
        for profile in ["dev", "release"] {
            if arguments.profile.as_ref().is_some_and(|only| only != profile) {
                continue;
            }
            build(folder.path(), profile)?;
            let mut figures = Vec::new();
            for edit in 1..=arguments.edits.max(1) {
                let text = modules[0].replace("FLOOR: i64 = 0", &format!("FLOOR: i64 = {edit}"));
                fs::write(folder.path().join("src/module_0.rs"), text)?;
                figures.push(build(folder.path(), profile)?);
            }
            figures.sort_by_key(|(wall, _)| *wall);
            let (wall, cpu) = figures[figures.len() / 2];
            let wall = wall.as_secs_f64();
            println!("| {dataflows} | {lines} | {profile} | {wall:.1} | {cpu:.1} |");
            let line = json!({
                "bench": "compile", "dataflows": dataflows, "lines": lines, "profile": profile,
                "wall_s": wall, "cpu_s": cpu,
            });
            record(arguments.out.as_deref(), line)?;
        }
    }
    Ok(())
}

fn write_crate(folder: &Path, library: &Path, modules: &[&str]) -> Result<()> {
    let manifest = format!(
        "[package]\nname = \"flows\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nthalweg = {{ path = {library:?} }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n\n\
         [profile.dev]\ndebug = \"line-tables-only\"\n\n[profile.release]\ndebug = \
             \"line-tables-only\"\n\n[workspace]\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    // The same versions of everything as the library is tested with.
    fs::copy(library.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let numbers = 0..modules.len();
    let declared: String = numbers.clone().map(|n| format!("mod module_{n};\n")).collect();
    let flows: String = numbers
        .map(|n| format!("    flows.extend(module_{n}::flows());\n"))
        .collect();
    let main = format!(
        "{declared}\nfn main() -> std::process::ExitCode \
            {{\n    let mut flows = Vec::new();\n{flows}    thalweg::main(flows)\n}}\n"
    );
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src/main.rs"), main)?;
    for (n, text) in modules.iter().enumerate() {
        fs::write(folder.join(format!("src/module_{n}.rs")), text)?;
    }
    Ok(())
}

/// How long it took, on the clock and on processors.
fn build(folder: &Path, profile: &str) -> Result<(Duration, f64)> {
    let (begun, cpu) = (clock::instant(), children_cpu_seconds());
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--offline", "--profile", profile])
        .current_dir(folder)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::definition("a crate of the benchmark does not build").detail(said));
    }
    let wall = clock::instant().saturating_duration_since(begun);
    Ok((wall, children_cpu_seconds() - cpu))
}
