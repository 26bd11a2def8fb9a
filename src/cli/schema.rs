//! `schema check | register`: checks a schema in a file against the registry's rules, or registers it. The
//! extension tells the language: `.avsc` is Avro, `.proto` Protobuf, `.json` JSON Schema.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::flags::Flags;
use crate::cli::serve::{registry, tokio};
use crate::codec::avro::compatibility::between;
use crate::codec::compatibility::Incompatibility;
use crate::codec::registry::{Draft, Language, Reference, Registry, WriterSchema};
use crate::codec::source;
use crate::codec::writer::Referenced;
use crate::error::{Error, Result};

#[derive(Subcommand)]
pub(super) enum SchemaCommand {
    /// Tell whether the registry would accept a schema, and if not, which field is incompatible; changes
    /// nothing
    Check(SchemaArguments),
    /// Register a schema and print its id
    Register(SchemaArguments),
}

#[derive(Args)]
pub(super) struct SchemaArguments {
    /// The schema file: .avsc for Avro, .proto for Protobuf, .json for JSON Schema
    file: PathBuf,
    /// The subject. Default: by file name, payments.transactions.v1.avsc has the subject
    /// payments.transactions.v1-value
    #[arg(long)]
    subject: Option<String>,
    /// A registered schema that it refers to, as it names it: shop/item.proto=shop.item. Without a version
    /// the newest is taken
    #[arg(long = "reference", value_name = "NAME=SUBJECT[:VERSION]")]
    references: Vec<String>,
    #[command(flatten)]
    settings: Flags<false>,
}

pub(super) fn run(command: &SchemaCommand) -> Result<()> {
    let tokio = tokio()?;
    let (SchemaCommand::Check(arguments) | SchemaCommand::Register(arguments)) = command;
    let resolved = arguments.settings.load()?;
    let registry = registry(&resolved.settings.registry, tokio.handle())?.ok_or_else(|| {
        Error::definition("no schema registry is configured").hint(
            "set it: --registry URL, or \
            THALWEG_REGISTRY",
        )
    })?;
    let (subject, mut draft) = read(&arguments.file, arguments.subject.as_deref())?;
    let references = tokio.block_on(referenced(&registry, &arguments.references))?;
    let texts = references.iter().flat_map(|(_, texts)| texts.clone()).collect();
    let whole = WriterSchema::of(0, draft.language, draft.text.clone(), texts);
    source::check(&whole).map_err(|why| wrong(&arguments.file, why))?;
    draft.references = references.into_iter().map(|(reference, _)| reference).collect();
    let said = match command {
        SchemaCommand::Check(_) => tokio.block_on(check(&registry, &subject, &draft))?,
        SchemaCommand::Register(_) => tokio.block_on(register(&registry, &subject, &draft))?,
    };
    println!("{said}");
    Ok(())
}

fn wrong(file: &Path, detail: String) -> Error {
    Error::definition(format!("cannot use the schema {}", file.display())).detail(detail)
}

/// The subject of a file, and what is in it.
fn read(file: &Path, subject: Option<&str>) -> Result<(String, Draft)> {
    let text = std::fs::read_to_string(file).map_err(|error| wrong(file, error.to_string()))?;
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let (named, language) = match name.rsplit_once('.') {
        Some((named, "avsc")) => (Some(named), Language::Avro),
        Some((named, "proto")) => (Some(named), Language::Protobuf),
        Some((named, "json")) => (Some(named), Language::JsonSchema),
        _ => (None, Language::Avro),
    };
    let subject = match (subject, named) {
        (Some(subject), _) => subject.to_owned(),
        (None, Some(topic)) if topic.contains('.') => format!("{topic}-value"),
        _ => {
            return Err(wrong(file, "its name does not say of which topic it is".into())
                .hint("name it domain.entity.version.avsc (.proto, .json), or say --subject"));
        }
    };
    let references = Vec::new();
    let draft = Draft {
        language,
        text,
        references,
    };
    Ok((subject, draft))
}

/// What the arguments refer to, with the texts that come with each.
async fn referenced(registry: &Registry, named: &[String]) -> Result<Vec<(Reference, Vec<Referenced>)>> {
    let mut found = Vec::new();
    for argument in named {
        let (name, subject, version) = reference(argument)?;
        let Some((version, schema)) = registry.version(subject, version).await? else {
            let what = format!("cannot refer to `{name}`: the registry has no such version of `{subject}`");
            return Err(Error::definition(what).hint("register what is referred to first"));
        };
        let mut texts = schema.references.clone();
        texts.push(Referenced {
            name: name.to_owned(),
            text: schema.text.clone(),
        });
        let reference = Reference {
            name: name.to_owned(),
            subject: subject.to_owned(),
            version,
        };
        found.push((reference, texts));
    }
    Ok(found)
}

/// `NAME=SUBJECT[:VERSION]`.
fn reference(argument: &str) -> Result<(&str, &str, Option<u32>)> {
    let wrong = || {
        Error::definition(format!("`{argument}` is no reference"))
            .hint("as in shop/item.proto=shop.item, or shop/item.proto=shop.item:3")
    };
    let (name, rest) = argument.rsplit_once('=').ok_or_else(wrong)?;
    let (subject, version) = match rest.rsplit_once(':') {
        None => (rest, None),
        Some((subject, version)) => (subject, Some(version.parse().map_err(|_| wrong())?)),
    };
    match name.is_empty() || subject.is_empty() {
        true => Err(wrong()),
        false => Ok((name, subject, version)),
    }
}

async fn check(registry: &Registry, subject: &str, draft: &Draft) -> Result<String> {
    let Some((version, newest)) = registry.version(subject, None).await? else {
        return Ok(format!("subject `{subject}` is new: any schema may be its first"));
    };
    let level = registry.level(subject).await?;
    let ruling = registry.ruling(subject, draft.clone()).await?;
    if ruling.compatible {
        return Ok(format!(
            "subject `{subject}` accepts it after version {version} (schema {}): it is {level}",
            newest.id
        ));
    }
    let what = format!("subject `{subject}` would reject this schema after version {version}");
    let mut error = Error::definition(what).detail(match level.as_str() {
        "NONE" => "its level is NONE, so another rule of the registry rejects it".to_owned(),
        level => format!("new versions must be {level}"),
    });
    if newest.language != draft.language {
        let (new, old) = (draft.language, newest.language);
        error = error.detail(format!("it is {new}, and the version before it {old}"));
    } else if draft.language == Language::Avro {
        for (direction, incompatibility) in broken(&level, &draft.text, &newest.text) {
            error = error.detail(format!("{direction}: {incompatibility}"));
        }
    }
    for message in ruling.messages {
        error = error.detail(format!("the registry: {message}"));
    }
    Err(error.hint(match draft.language {
        Language::Avro => allowed(&level),
        Language::Protobuf => {
            "a field keeps its number and its type, and the number of one that is taken away is reserved; \
             what readers can't follow is a new topic: v2 in place of v1"
        }
        _ => {
            "properties that come or go are optional, and keep their types; \
             what readers can't follow is a new topic: v2 in place of v1"
        }
    }))
}

async fn register(registry: &Registry, subject: &str, draft: &Draft) -> Result<String> {
    // What the registry refuses it says in its own words; these name the field.
    check(registry, subject, draft).await?;
    let id = registry.register(subject, draft.clone()).await?;
    Ok(format!("subject `{subject}`: schema {id}"))
}

/// The incompatibilities between two versions, in the directions that matter at `level`.
fn broken(level: &str, new: &str, old: &str) -> Vec<(&'static str, Incompatibility)> {
    let mut found = Vec::new();
    let (backward, forward) = (!level.starts_with("FORWARD"), !level.starts_with("BACKWARD"));
    if backward {
        let incompatibilities = between(old, new).into_iter();
        found.extend(
            incompatibilities
                .map(|incompatibility| ("old records read with the new schema", incompatibility)),
        );
    }
    if forward {
        let incompatibilities = between(new, old).into_iter();
        found.extend(
            incompatibilities
                .map(|incompatibility| ("new records read with the old schema", incompatibility)),
        );
    }
    found
}

/// The allowed changes at a compatibility level.
fn allowed(level: &str) -> &'static str {
    match level.trim_end_matches("_TRANSITIVE") {
        "BACKWARD" => {
            "allowed: adding fields with a default, removing fields, int to long to float to double, \
             aliases for new names; for any other change, create a new topic: v2 in place of v1"
        }
        "FORWARD" => {
            "allowed: adding fields, removing fields with a default, double to float to long to int; for \
             any other change, create a new topic: v2 in place of v1"
        }
        _ => {
            "allowed: adding and removing fields with a default; for any other change, create a new \
             topic: v2 in place of v1"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"type":"record","name":"P","fields":[{"name":"id","type":"long"}]}"#;
    const NEW: &str = r#"{"type":"record","name":"P","fields":[{"name":"id","type":"long"},{"name":"cents","type":"long"}]}"#;

    #[test]
    fn directions_follow_the_level() {
        let paths = |level: &str, new: &str, old: &str| -> Vec<String> {
            broken(level, new, old)
                .into_iter()
                .map(|(_, incompatibility)| incompatibility.path)
                .collect()
        };
        assert_eq!(paths("BACKWARD", NEW, OLD), ["cents"]);
        assert!(paths("FORWARD", NEW, OLD).is_empty());
        assert_eq!(paths("FORWARD_TRANSITIVE", OLD, NEW), ["cents"]);
        assert_eq!(paths("FULL", OLD, NEW), ["cents"]);
        assert_eq!(paths("FULL", NEW, OLD), ["cents"]);
    }

    #[test]
    fn a_files_name_says_its_subject_and_its_language() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let named = |name: &str| {
            let (subject, draft) = read(&file(name, OLD), None).unwrap();
            (subject, draft.language)
        };
        let subject = || "a.b.v1-value".to_owned();
        assert_eq!(named("a.b.v1.avsc"), (subject(), Language::Avro));
        assert_eq!(named("a.b.v1.proto"), (subject(), Language::Protobuf));
        assert_eq!(named("a.b.v1.json"), (subject(), Language::JsonSchema));
        assert_eq!(read(&file("a", OLD), Some("x-key")).unwrap().0, "x-key");
        for name in ["schema.json", "a.b.v1.txt"] {
            assert!(read(&file(name, OLD), None).is_err(), "{name}");
        }
        assert!(read(&dir.path().join("none.avsc"), None).is_err());
    }

    #[test]
    fn references_have_a_name_a_subject_and_maybe_a_version() {
        assert_eq!(reference("a/b.proto=s.v1").unwrap(), ("a/b.proto", "s.v1", None));
        assert_eq!(
            reference("https://a/?b=c=s:3").unwrap(),
            ("https://a/?b=c", "s", Some(3))
        );
        for wrong in ["", "a", "=s", "a=", "a=s:x", "a=:1"] {
            assert!(reference(wrong).is_err(), "{wrong}");
        }
    }
}
