//! A test of the house itself: who may know whom, how long a file may be, which words stay out.

use std::collections::{BTreeMap, BTreeSet};
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
            "certificate",
            "fault",
            "health",
            "watermark",
            "late",
            "panic_context",
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
            "mesh",
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

/// Lines of code in a file, without its tests, comments and blank lines.
const LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_MAX: usize = 80;
/// Columns of a line that can be broken.
const COLUMNS_MAX: usize = 110;

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

/// The files that each file takes something from. A file may use those above its own folder (a module and
/// what it is made of are one thing), so these are left out.
fn imports(files: &[File]) -> BTreeMap<&str, BTreeSet<&str>> {
    let named: BTreeSet<&str> = files.iter().map(|file| file.module.as_str()).collect();
    let of = |file: &File| {
        let code = file.bare();
        let mut found = paths(&code);
        let mut parent = file.module.as_str();
        for up in ["super::", "super::super::"] {
            parent = parent.rsplit_once('/').map_or("", |(parent, _)| parent);
            found.extend(within(&code, up, parent));
        }
        found.extend(within(&code, "self::", &file.module));
        let children = named
            .iter()
            .filter_map(|name| name.strip_prefix(&file.module)?.strip_prefix('/'));
        for child in children.filter(|child| !child.contains('/')) {
            found.extend(within(
                &code,
                &format!("{child}::"),
                &format!("{}/{child}", file.module),
            ));
        }
        let resolved = found.iter().filter_map(|path| resolve(path, &named));
        resolved
            .filter(|other| *other != file.module && !file.module.starts_with(&format!("{other}/")))
            .collect()
    };
    files
        .iter()
        .map(|file| (file.module.as_str(), of(file)))
        .collect()
}

/// Every path that begins with `start`, under `parent`.
fn within(code: &str, start: &str, parent: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            expand(&parent.replace('/', "::"), &code[at + start.len()..], &mut found);
        }
    }
    found
}

/// The file that a path leads to.
fn resolve<'a>(path: &str, files: &BTreeSet<&'a str>) -> Option<&'a str> {
    let path = path.replace("::", "/");
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let known = ends.filter_map(|end| files.get(&path[..end]).copied());
    known.reduce(|_, longer| longer).or_else(|| {
        let (_, module) = NAMES.iter().find(|(name, _)| *name == path)?;
        files.get(module).copied()
    })
}

/// Those that lead back to themselves.
fn circles<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reached = |from: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(
                imports
                    .get(file)
                    .into_iter()
                    .flatten()
                    .filter(|next| seen.insert(**next)),
            );
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports.keys().map(|file| (*file, reached(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, all) in reached.iter().filter(|(file, all)| all.contains(*file)) {
        let back = all.iter().filter(|other| reached[**other].contains(file));
        circles.insert(back.copied().collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

fn code_files() -> Vec<File> {
    let is_code = |file: &File| !file.is_test() && file.module != "lib" && file.module != "prelude";
    sources().into_iter().filter(is_code).collect()
}

#[test]
fn no_file_leads_back_to_itself() {
    let files = code_files();
    let circles = circles(&imports(&files));
    assert!(circles.is_empty(), "these import each other: {circles:#?}");
}

#[test]
fn circles_are_found() {
    let file = |module: &str, text: &str| File {
        module: module.into(),
        text: text.into(),
    };
    let files = [
        file("a", "mod b;\nuse b::B;\nuse crate::Error;"),
        file("a/b", "use super::A;\nuse super::c::{C, D};"),
        file("a/c", "fn f() -> crate::d::e::E {}"),
        file("d", ""),
        file("d/e", "use crate::a::b::B;"),
        file("error", "// use crate::a;"),
    ];
    let imports = imports(&files);
    assert_eq!(imports["a"], BTreeSet::from(["a/b", "error"]));
    assert_eq!(imports["a/b"], BTreeSet::from(["a/c"]));
    assert_eq!(circles(&imports), [["a/b", "a/c", "d/e"]]);
}

/// The compiler tells what is dead in files that it knows; of others it knows nothing.
#[test]
fn every_file_is_compiled() {
    let files = sources();
    let texts: BTreeMap<&str, &str> = files.iter().map(|file| (&*file.module, &*file.text)).collect();
    let unused = files.iter().map(|file| &*file.module).filter(|module| {
        let (parent, name) = module.rsplit_once('/').unwrap_or(("lib", module));
        let declares = |text: &&str| text.lines().any(|line| line.ends_with(&format!("mod {name};")));
        !["lib", "main"].contains(module) && !texts.get(parent).is_some_and(declares)
    });
    let unused: Vec<&str> = unused.collect();
    assert!(unused.is_empty(), "no module has {unused:?}");
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for file in code_files() {
        for (name, lines) in functions(file.code()).filter(|(_, lines)| *lines > FUNCTION_MAX) {
            let module = &file.module;
            faults.push(format!(
                "src/{module}.rs: {name}: {lines} lines, at most {FUNCTION_MAX}"
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Functions with a body, and how many lines they have; rustfmt puts the end of each under its beginning.
fn functions(code: &str) -> impl Iterator<Item = (&str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let found = (0..lines.len()).filter_map(move |at| {
        let line = lines[at];
        let (before, after) = line.split_once("fn ")?;
        let is_one = before.split_whitespace().all(|word| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "extern", "\"C\"", "crate)"].contains(&word)
        });
        let indent = &line[..line.len() - line.trim_start().len()];
        let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        if !is_one || name.is_empty() {
            return None;
        }
        // A declaration ends with a semicolon before any body.
        let head = lines[at..]
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with(['}', ';']))?;
        if !lines[at + head].ends_with('{') {
            return None;
        }
        let end = format!("{indent}}}");
        let len = lines[at..].iter().position(|line| *line == end)?;
        Some((name, len + 1))
    });
    found.collect::<Vec<_>>().into_iter()
}

/// What can be broken is: a diagram can't, nor a row of a table, nor a string that somebody greps for.
#[test]
fn lines_are_short() {
    let mut faults = Vec::new();
    for file in code_files() {
        let mut in_diagram = false;
        for (number, line) in (1..).zip(file.code().lines()) {
            let trimmed = line.trim_start();
            let is_prose = trimmed.starts_with("//");
            in_diagram ^= is_prose && trimmed.contains("```");
            let is_table = trimmed.starts_with("//! |") || trimmed.starts_with("/// |");
            let stays = in_diagram || is_table || (!is_prose && line.contains('"'));
            if !stays && line.chars().count() > COLUMNS_MAX {
                faults.push(format!("src/{}.rs:{number}", file.module));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "more than {COLUMNS_MAX} columns:\n{}",
        faults.join("\n")
    );
}

/// `pub` is for users. What only the project's own tests and benchmarks see is doc-hidden; the compiler's
/// lint finds what is `pub` where nobody outside can name it.
#[test]
fn public_modules_are_those_of_the_documentation() {
    const DOCUMENTED: &[&str] = &[
        "checkpoint",
        "codec",
        "connect",
        "dataflow",
        "demo",
        "error",
        "health",
        "http",
        "late",
        "operator",
        "position",
        "prelude",
        "record",
        "runtime",
        "schema",
        "secret",
        "setting",
        "sink",
        "source",
        "testing",
        "time",
        "view",
    ];
    let lib = sources().into_iter().find(|file| file.module == "lib").unwrap();
    assert!(lib.text.contains("#![warn(unreachable_pub)]"));
    let lines: Vec<&str> = lib.text.lines().collect();
    let public = (0..lines.len()).filter_map(|at| {
        let name = lines[at].strip_prefix("pub mod ")?.strip_suffix(';')?;
        let hidden = at > 0 && lines[at - 1] == "#[doc(hidden)]";
        (!hidden).then_some(name)
    });
    assert_eq!(public.collect::<Vec<_>>(), DOCUMENTED);
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut faults = Vec::new();
    for file in sources() {
        let name = file.module.rsplit('/').next().unwrap_or_default();
        if ["mod", "util", "utils", "common", "helpers", "misc"].contains(&name) {
            faults.push(format!("src/{}.rs: a name that says nothing", file.module));
        }
        let code = file.bare();
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        if !file.is_test() && lines > LINES_MAX {
            faults.push(format!(
                "src/{}.rs: {lines} lines of code, at most {LINES_MAX}",
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
