//! README.md and the pages of docs/ hold: every command runs, every answer has the shape that is printed,
//! every crate compiles.
//!
//! ```text
//!  page ─▶ fenced blocks ─┬─ sh    each line by `check`: asked of a running demo (behind `make run FLOW=…`: of that
//!                         │        example's), dry-run, or refused as unknown
//!                         ├─ json  the answer to the curl above it: the same fields, types alike
//!                         ├─ text  the output of the command above it: the same first line; else a diagram
//!                         ├─ rust  README.md: one crate, built and tested outside of this workspace
//!                         │        docs/: a documentation test, by `include_str!` in src/lib.rs
//!                         └─ toml  README.md: that crate's manifest; docs/: settings (src/config/tests.rs)
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a test's time-outs are time on the wall"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::thalweg::{binary, cargo, example, succeeded};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the README's examples find the demo.
const SERVICE: &str = "http://127.0.0.1:8460";
const PATH_OF_THE_LIBRARY: &str = "../thalweg";

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).expect("the page is there")
}

/// README.md and every page of docs/, by name.
fn pages() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("docs/ is there");
    let files = folder.map(|entry| entry.expect("docs/ can be listed").file_name());
    let mut names: Vec<String> = files
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    names.push("README.md".to_owned());
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text = page(&name);
            (name, text)
        })
        .collect()
}

/// A fenced block: the line it begins at, its language, its text.
struct Block {
    line: usize,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block {
                    line: number + 1,
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    blocks
}

/// A running demo, ended with the test.
struct Demo {
    process: Child,
    url: String,
}

impl Demo {
    fn start(binary: &Path) -> Self {
        let mut demo = Command::new(binary);
        // A quicker rate than the default, so that the first record that can't be read comes soon.
        demo.args(["demo", "--http", "127.0.0.1:0", "--rate", "2000"])
            .stdin(Stdio::null());
        let mut process = demo
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        // It greets once it is ready.
        let greeting = lines.find_map(|line| {
            let line = line.expect("the demo writes text");
            let (_, rest) = line.split_once("It answers at ")?;
            Some(
                rest.split(';')
                    .next()
                    .expect("split gives one part at least")
                    .to_owned(),
            )
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            url: greeting.expect("the demo says where it answers"),
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The commands of a block: a line ends where its quotes do.
fn commands(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in block.lines() {
        match commands.last_mut().filter(|_| inside) {
            Some(last) => *last = format!("{last}\n{line}"),
            None => commands.push(line.to_owned()),
        }
        inside ^= line.matches('\'').count() % 2 == 1;
    }
    commands
}

/// What is checked of a command; `Some` is what it printed, to be compared with the block below.
fn check(command: &str, binary: &Path, demo: &Demo) -> Option<String> {
    let shell = |line: &str| {
        Command::new("sh")
            .arg("-c")
            .arg(line)
            .current_dir(ROOT)
            .output()
            .expect("there is a shell")
    };
    let binary = binary.to_str().expect("paths are text");
    if command.contains("/v1/views/temperature/") {
        return None; // The crate's own service has no topics here; its test reads this view.
    } else if command.starts_with("curl ") {
        let here = command
            .replace(SERVICE, &demo.url)
            .replacen("curl", "curl -sS", 1);
        return Some(succeeded(&here, &shell(&here)));
    } else if let Some(arguments) = command.strip_prefix("make") {
        let line = succeeded(command, &shell(&format!("make -n{arguments}")));
        // What the target would run is run here, with the binary that the tests have.
        let arguments = line
            .lines()
            .find_map(|line| line.split_once(" --bin thalweg -- "))
            .map(|(_, rest)| rest);
        let arguments = arguments.filter(|_| command.starts_with("make thalweg"))?;
        let server = if arguments.starts_with("query") {
            format!(" --server {}", demo.url)
        } else {
            String::new()
        };
        return Some(succeeded(
            command,
            &shell(&format!("{binary} {arguments}{server}")),
        ));
    } else if let Some(package) = command.strip_prefix("cargo install --locked --path ") {
        assert!(
            page(&format!("{package}/Cargo.toml")).contains("name = \"thalweg\""),
            "{command}: installs another"
        );
    } else if let Some(arguments) = command
        .strip_prefix("thalweg ")
        .or(command.strip_prefix("cargo run -- "))
        .or(command.strip_prefix("cargo run -p nexmark -- "))
    {
        // With --help at the end the arguments are parsed and nothing else happens.
        succeeded(command, &shell(&format!("{binary} {arguments} --help")));
    } else {
        panic!("a page has a command that this test can't check: {command}");
    }
    None
}

/// Where two JSON values have other fields or types. Null stands for any: a cursor may or may not be there.
fn difference(said: &Value, is: &Value, path: &str) -> Option<String> {
    match (said, is) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Object(said), Value::Object(is)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            let (said_names, is_names) = (names(said), names(is));
            if said_names != is_names {
                return Some(format!(
                    "fields of {path} are said to be {said_names:?}, and are {is_names:?}"
                ));
            }
            said.iter()
                .find_map(|(name, value)| difference(value, &is[name], &format!("{path}.{name}")))
        }
        (Value::Array(said), Value::Array(is)) => {
            if said.len() != is.len() {
                return Some(format!(
                    "{path} is said to have {}, and has {}",
                    said.len(),
                    is.len()
                ));
            }
            said.iter()
                .zip(is)
                .find_map(|(said, is)| difference(said, is, &format!("{path}[]")))
        }
        _ => {
            let same = std::mem::discriminant(said) == std::mem::discriminant(is);
            (!same).then(|| format!("{path} is said to be {said}, and is {is}"))
        }
    }
}

#[test]
fn commands_do_what_the_page_says() {
    let binary = binary();
    let demo = Demo::start(binary);
    // By then there are rows, and a record that nobody can read: the 997th.
    let wait = format!(
        "curl -sS '{}/v1/views/merchant_spend/rows?limit=1&after=payments:0:300&wait=30s'",
        demo.url
    );
    let waited = check(&wait, binary, &demo).expect("curl prints");
    assert!(waited.contains("\"rows\":[{"), "{waited}");

    let pages = pages();
    let compared: usize = pages
        .iter()
        .map(|(name, text)| check_blocks(name, text, binary, &demo))
        .sum();
    assert!(
        compared >= 7,
        "only {compared} outputs were compared: are blocks still in pairs?"
    );

    let metrics = check(&format!("curl {SERVICE}/metrics"), binary, &demo).expect("curl prints");
    // The demo captures no database and writes to none.
    let others = ["docs/debezium.md", "docs/postgres.md"];
    let of_demo = pages.iter().filter(|(name, _)| !others.contains(&name.as_str()));
    let words = of_demo.flat_map(|(_, text)| text.split('`'));
    let named: Vec<&str> = words.filter(|word| word.starts_with("thalweg_")).collect();
    assert!(named.len() > 20, "the metrics of the pages are not found");
    for name in named {
        assert!(metrics.contains(name), "there is no metric {name}");
    }
}

/// Queries of NEXMark are none.
fn is_example(flow: &str) -> bool {
    Path::new(ROOT)
        .join(format!("dataflows/examples/{flow}.rs"))
        .exists()
}

/// How long an example's demo may take until its answers have rows.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks the blocks of a page; returns how many outputs were compared.
fn check_blocks(name: &str, page: &str, binary: &Path, demo: &Demo) -> usize {
    let mut compared = 0;
    let mut printed: Option<(String, String)> = None;
    // Of the example that the page has come to.
    let mut own: Option<Demo> = None;
    for block in &blocks(page) {
        let at = format!("{name}:{}", block.line);
        match (block.language.as_str(), printed.take()) {
            ("sh", _) => {
                for command in commands(&block.text) {
                    let output = check(&command, binary, own.as_ref().unwrap_or(demo));
                    let flow = command
                        .strip_prefix("make run FLOW=")
                        .filter(|flow| is_example(flow));
                    own = flow.map(|flow| Demo::start(&example(flow))).or(own);
                    printed = output.map(|output| (command, output)).or(printed);
                }
            }
            ("json", answer) => {
                let said = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{at}: {error}"));
                if let Some((command, answer)) = answer {
                    let again = own
                        .as_ref()
                        .map(|own| move || check(&command, binary, own).expect("curl prints"));
                    compare(&at, &said, answer, again);
                    compared += 1;
                }
            }
            ("text", Some((_, output))) => {
                let words = |text: &str| {
                    text.lines()
                        .next()
                        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                };
                assert_eq!(words(&block.text), words(&output), "{at}");
                assert_eq!(
                    block.text.lines().count(),
                    output.lines().count(),
                    "{at}\n{output}"
                );
                compared += 1;
            }
            ("text" | "toml" | "rust", _) => {}
            (language, _) => panic!("{at}: a block `{language}` that nothing checks"),
        }
    }
    compared
}

/// Compares an answer with what the page says; asks again for one that may need data first.
fn compare(at: &str, said: &Value, mut answer: String, again: Option<impl Fn() -> String>) {
    let begun = Instant::now();
    loop {
        let is = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{at}: {error}\n{answer}"));
        let Some(difference) = difference(said, &is, at) else {
            return;
        };
        match &again {
            Some(again) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(200));
                answer = again();
            }
            _ => panic!("{difference}\n{answer}"),
        }
    }
}

#[test]
fn rust_on_every_page_is_compiled() {
    let library = page("src/lib.rs");
    let with_code = pages().into_iter().filter(|(name, text)| {
        name.starts_with("docs/") && blocks(text).iter().any(|block| block.language == "rust")
    });
    let missing: Vec<String> = with_code
        .map(|(name, _)| format!("include_str!(\"../{name}\")"))
        .filter(|include| !library.contains(include))
        .collect();
    assert!(
        missing.is_empty(),
        "src/lib.rs has no documentation test of {missing:?}"
    );
}

#[test]
fn the_crate_of_ones_own_builds_and_its_test_passes() {
    let page = page("README.md");
    let blocks = blocks(&page);
    let all = |language: &str| {
        let texts: Vec<&str> = blocks
            .iter()
            .filter(|b| b.language == language)
            .map(|b| b.text.as_str())
            .collect();
        texts.join("\n")
    };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let manifest = all("toml");
    assert!(
        manifest.contains(PATH_OF_THE_LIBRARY),
        "the crate depends on the library by its path"
    );
    // The profile is this workspace's, and so are the versions: then what is compiled already serves the
    // crate as well.
    let manifest =
        manifest.replace(PATH_OF_THE_LIBRARY, ROOT) + "\n[profile.dev]\ndebug = \"line-tables-only\"\n";
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("files can be written")
    };
    std::fs::create_dir(folder.path().join("src")).expect("folders can be made");
    write("Cargo.toml", &manifest);
    write("src/main.rs", &all("rust"));
    std::fs::copy(
        Path::new(ROOT).join("Cargo.lock"),
        folder.path().join("Cargo.lock"),
    )
    .expect("it can be copied");

    let mut test = cargo();
    let output = test
        .args(["test", "--offline", "--quiet"])
        .current_dir(folder.path())
        .output();
    let printed = succeeded("cargo test", &output.expect("cargo can be started"));
    assert!(printed.contains("1 passed"), "{printed}");
}
