//! A test of the house itself: who may know whom, how long a file may be, which words stay out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use thalweg::fault::POINTS;

/// Modules by layer: a module knows its own layer and those below. A path names what lies under it, unless a
/// longer one does.
const LAYERS: &[(u8, &[&str])] = &[
    (
        0,
        &[
            "error",
            "time",
            "position",
            "record",
            "clock",
            "metrics",
            "bridge",
            "fault",
            "health",
            "watermark",
            "late",
            "trail",
            "finding",
            "disk",
            "wire",
            "secret",
            "setting",
            "suggest",
        ],
    ),
    (1, &["schema"]),
    (
        2,
        &[
            "codec",
            "ledger",
            "checkpoint",
            "view",
            "source",
            "sink",
            "sequencer",
            "timeline",
        ],
    ),
    (3, &["operator", "ingest", "connect", "demo"]),
    (4, &["dataflow"]),
    (5, &["runtime"]),
    (6, &["http", "config", "testing"]),
    (7, &["cli", "prelude"]),
];

/// What `crate::Name` stands for: the names that lib.rs gives to what lies deeper.
const NAMES: &[(&str, &str)] = &[
    ("Flow", "dataflow"),
    ("dataflow", "dataflow"),
    ("Error", "error"),
    ("Kind", "error"),
    ("Result", "error"),
    ("Aggregate", "operator"),
    ("Event", "record"),
    ("F64", "record"),
    ("Record", "record"),
    ("Epoch", "time"),
    ("EventTime", "time"),
    ("Window", "time"),
    ("Windowed", "time"),
    ("main", "cli"),
];

const LINES_MAX: usize = 600;

struct File {
    /// `connect/kafka/reader`: the path under src/ without its ending.
    module: String,
    text: String,
}

impl File {
    fn is_test(&self) -> bool {
        self.module
            .split('/')
            .any(|part| part == "tests" || part == "sim")
    }

    /// The code, without the tests at its end.
    fn code(&self) -> &str {
        self.text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(&self.text)
    }

    /// The code without comments and documentation.
    fn bare(&self) -> String {
        self.code()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(&root).unwrap().with_extension("");
                let text = fs::read_to_string(&path).unwrap();
                files.push(File {
                    module: module.to_str().unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    assert!(files.len() > 50, "where is the code?");
    files.sort_by(|a, b| a.module.cmp(&b.module));
    files
}

/// The layer of a module's path, as `connect::kafka::reader`.
fn layer(path: &str) -> Option<u8> {
    let mut parts = path.split("::");
    let (head, below) = (
        parts.next()?,
        parts
            .next()
            .filter(|part| part.starts_with(|c: char| c.is_lowercase())),
    );
    let of = |name: &str| {
        LAYERS
            .iter()
            .find(|(_, modules)| modules.contains(&name))
            .map(|(layer, _)| *layer)
    };
    let deeper = below.and_then(|part| of(&format!("{head}::{part}")).or_else(|| of(&format!("{head}::*"))));
    let named = || {
        NAMES
            .iter()
            .find(|(name, _)| *name == head)
            .and_then(|(_, module)| of(module))
    };
    deeper.or_else(|| of(head)).or_else(named)
}

/// Every path after `crate::` in some code; a group in braces gives one for each of its members.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            expand("", &code[at + "crate::".len()..], &mut found);
        }
    }
    found
}

/// Reads one path; returns what follows it.
fn expand<'a>(prefix: &str, mut rest: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let mut path = prefix.to_owned();
    loop {
        rest = rest.trim_start();
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = expand(&path, group, found).trim_start();
                match group.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => group = next,
                    Some(next) => return &next.trim_start()[1..],
                    None => return group.strip_prefix('}').unwrap_or(group),
                }
            }
        }
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        path = if path.is_empty() {
            rest[..end].to_owned()
        } else {
            format!("{path}::{}", &rest[..end])
        };
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None => break,
        }
    }
    let renamed = rest.trim_start().strip_prefix("as ").map(str::trim_start);
    found.insert(path);
    renamed.map_or(rest, |rest| {
        &rest[rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len())..]
    })
}

#[test]
fn modules_know_only_lower_layers() {
    let mut faults = Vec::new();
    for file in sources()
        .iter()
        .filter(|file| !file.is_test() && file.module != "lib" && file.module != "prelude")
    {
        let module = file.module.replace('/', "::");
        let Some(own) = layer(&module) else {
            faults.push(format!("{module} has no layer"));
            continue;
        };
        for path in paths(&file.bare()) {
            match layer(&path) {
                Some(other) if other > own => {
                    faults.push(format!("{module} (layer {own}) knows {path} (layer {other})"))
                }
                Some(_) => {}
                None => faults.push(format!("{module} knows {path}, which has no layer")),
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn paths_are_found_in_groups_and_in_code() {
    let code = "use crate::{a::B, c::{self, d::{E, F as G}, h}, i};\nlet x = crate::j::k(crate::L); \
        $crate::not::this;";
    let found: Vec<String> = paths(code).into_iter().collect();
    assert_eq!(
        found,
        ["L", "a::B", "c::d::E", "c::d::F", "c::h", "c::self", "i", "j::k"]
    );
    assert_eq!(
        (layer("source::Reader"), layer("connect::kafka"), layer("nowhere")),
        (Some(2), Some(3), None)
    );
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut faults = Vec::new();
    for file in sources() {
        let name = file.module.rsplit('/').next().unwrap_or_default();
        if ["mod", "util", "utils", "common", "helpers", "misc"].contains(&name) {
            faults.push(format!("src/{}.rs: a name that says nothing", file.module));
        }
        let lines = file.code().lines().count();
        if !file.is_test() && lines > LINES_MAX {
            faults.push(format!(
                "src/{}.rs: {lines} lines, at most {LINES_MAX} without tests",
                file.module
            ));
        }
        if !file.text.starts_with("//!") && !file.is_test() {
            faults.push(format!(
                "src/{}.rs: the first line does not say what it is for",
                file.module
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A point that nobody comes to would be proof of nothing; one that is not in the table would go untested.
#[test]
fn fault_points_are_used_once_each_and_stand_in_the_table() {
    let mut used: Vec<String> = Vec::new();
    for file in sources().iter().filter(|file| file.module != "fault") {
        for call in file.bare().split("fault::point(").skip(1) {
            let name = call.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let (name, _) = name.unwrap_or_else(|| panic!("{}: a point without a plain name", file.module));
            used.push(name.to_owned());
        }
    }
    let mut table: Vec<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
    used.sort();
    table.sort();
    assert_eq!(used, table);
    assert!(POINTS.iter().all(|point| point.between.contains(" | ")));
}

#[test]
fn words_that_stay_out() {
    // Put together here, so that this file may be searched as well.
    let words = ["TO", "FIX", "todo", "unimplemented", "dbg"]
        .into_iter()
        .zip(["DO", "ME", "!(", "!(", "!("]);
    let mut words: Vec<String> = words.map(|(a, b)| format!("{a}{b}")).collect();
    words.extend(["/home/", "/root/", "/Users/", "/work/"].map(str::to_owned));
    let mut faults = Vec::new();
    for file in sources() {
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                faults.push(format!("src/{}.rs:{number}: {word}", file.module));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
