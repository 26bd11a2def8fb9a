//! Links between pages lead somewhere: every relative link of every Markdown file names a file of the
//! repository and, where it has an anchor, a heading of that file.
//!
//! ```text
//!  *.md ─▶ text without code ─▶ [words](target#anchor), [words]: target ─▶ file there? heading there?
//!       └▶ headings ─▶ anchors, as GitHub makes them
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A Markdown file: its path below the root, its links by line, its anchors.
struct Page {
    path: PathBuf,
    links: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn parse(path: PathBuf, text: &str) -> Self {
        let (mut links, mut anchors) = (Vec::new(), BTreeSet::new());
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let (mut fenced, mut code) = (false, false);
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                if line.starts_with('#') {
                    let base = anchor(line);
                    let count = seen.entry(base.clone()).or_default();
                    // The second of two equal headings has the anchor `name-1`.
                    anchors.insert(if *count == 0 {
                        base
                    } else {
                        format!("{base}-{count}")
                    });
                    *count += 1;
                }
                code &= !line.trim().is_empty();
                links.extend(
                    targets(line, &mut code)
                        .into_iter()
                        .map(|target| (number, target)),
                );
            }
        }
        Self { path, links, anchors }
    }
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    let words = heading.trim_start_matches('#').trim();
    words.chars().filter_map(kept).collect()
}

/// What the links of a line lead to. Code between backticks has none; `code` says whether the line begins
/// inside of it, and then whether the next one does.
fn targets(line: &str, code: &mut bool) -> Vec<String> {
    let prose: String = line.split('`').skip(usize::from(*code)).step_by(2).collect();
    *code ^= line.matches('`').count() % 2 == 1;
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    let defined = prose
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .map(|(_, target)| target.trim());
    inline.chain(defined).map(str::to_owned).collect()
}

/// `docs/../README.md` as `README.md`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(normal.pop(), "{} leads out of the repository", path.display()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let (mut pages, mut folders) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(entry.path()).unwrap();
                pages.insert(path.clone(), Page::parse(path, &text));
            }
        }
    }
    assert!(pages.len() > 5, "where are the pages?");
    pages
}

/// What is wrong with a link of a page; `None`: it leads to a file and a heading, or out of the repository.
fn fault(page: &Page, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return None;
    }
    let (file, heading) = match target.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (target, None),
    };
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let path = match file {
        "" => page.path.clone(),
        file => normal(&folder.join(file)),
    };
    if !Path::new(ROOT).join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    let heading = heading?;
    match pages.get(&path) {
        Some(other) if other.anchors.contains(heading) => None,
        Some(_) => Some(format!("{} has no heading #{heading}", path.display())),
        None => Some(format!("{} is no page, and has no headings", path.display())),
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut faults = Vec::new();
    for page in pages.values() {
        for (line, target) in &page.links {
            if let Some(fault) = fault(page, target, &pages) {
                faults.push(format!("{}:{line}: {fault}", page.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A page that nobody can find from the front page may as well not be there.
#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let (mut reached, mut open) = (BTreeSet::new(), vec![PathBuf::from("README.md")]);
    while let Some(path) = open.pop() {
        let Some(page) = pages.get(&path).filter(|_| reached.insert(path.clone())) else {
            continue;
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let files = page
            .links
            .iter()
            .filter_map(|(_, target)| target.split('#').next());
        open.extend(
            files
                .filter(|file| !file.contains("://"))
                .map(|file| normal(&folder.join(file))),
        );
    }
    let lost: Vec<_> = pages.keys().filter(|path| !reached.contains(*path)).collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
}

#[test]
fn links_and_anchors_are_found_as_github_reads_them() {
    let text = "# One `a_b`, two\n## Same\n## Same\n[x](a.md#y) and `[no](b.md)` and [z](#same \"title\")\n\
        [ref]: c.md\n`code\n[no](e.md) goes on` [w](f.md)\n```sh\n# no heading\n[no](d.md)\n```\n";
    let page = Page::parse("docs/settings.md".into(), text);
    let anchors: Vec<&str> = page.anchors.iter().map(String::as_str).collect();
    assert_eq!(anchors, ["one-a_b-two", "same", "same-1"]);
    let links: Vec<(usize, &str)> = page.links.iter().map(|(line, to)| (*line, to.as_str())).collect();
    assert_eq!(links, [(4, "a.md#y"), (4, "#same"), (5, "c.md"), (7, "f.md")]);

    let pages = BTreeMap::from([(page.path.clone(), Page::parse("docs/settings.md".into(), text))]);
    assert_eq!(fault(&page, "#same-1", &pages), None);
    assert!(fault(&page, "#other", &pages).unwrap().contains("no heading"));
    assert!(
        fault(&page, "nowhere.md", &pages)
            .unwrap()
            .contains("docs/nowhere.md")
    );
    assert_eq!(fault(&page, "../Cargo.toml", &pages), None);
    assert!(
        fault(&page, "../Cargo.toml#deps", &pages)
            .unwrap()
            .contains("is no page")
    );
}
