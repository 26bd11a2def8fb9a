//! `schema check | register`: checks an Avro schema in a file against the registry's rules, or registers it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::flags::Flags;
use crate::cli::serve::{registry, tokio};
use crate::codec::avro::check_reader;
use crate::codec::avro::fit::between;
use crate::codec::fit::Misfit;
use crate::codec::registry::Registry;
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
    /// The schema file, in Avro's JSON
    file: PathBuf,
    /// The subject. Default: by file name, payments.transactions.v1.avsc has the subject
    /// payments.transactions.v1-value
    #[arg(long)]
    subject: Option<String>,
    #[command(flatten)]
    settings: Flags<false>,
}

pub(super) fn run(command: &SchemaCommand) -> Result<()> {
    let tokio = tokio()?;
    let (SchemaCommand::Check(arguments) | SchemaCommand::Register(arguments)) = command;
    let force = arguments.settings.load()?;
    let registry = registry(&force.settings.registry, tokio.handle())?.ok_or_else(|| {
        Error::definition("no schema registry is configured").hint(
            "set it: --registry URL, or \
            THALWEG_REGISTRY",
        )
    })?;
    let (subject, text) = read(&arguments.file, arguments.subject.as_deref())?;
    let said = match command {
        SchemaCommand::Check(_) => tokio.block_on(check(&registry, &subject, &text))?,
        SchemaCommand::Register(_) => tokio.block_on(register(&registry, &subject, &text))?,
    };
    println!("{said}");
    Ok(())
}

/// Returns the subject and the contents of a file.
fn read(file: &Path, subject: Option<&str>) -> Result<(String, String)> {
    let wrong = |detail: String| {
        Error::definition(format!("cannot use the schema {}", file.display())).detail(detail)
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    check_reader(&text).map_err(|error| wrong(error.to_string()))?;
    let named = file
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".avsc"));
    let subject = match (subject, named) {
        (Some(subject), _) => subject.to_owned(),
        (None, Some(topic)) => format!("{topic}-value"),
        (None, None) => {
            return Err(wrong("its name does not tell which topic it belongs to".into())
                .hint("name it domain.entity.version.avsc, or pass --subject"));
        }
    };
    Ok((subject, text))
}

async fn check(registry: &Registry, subject: &str, text: &str) -> Result<String> {
    let Some((version, newest)) = registry.version(subject, None).await? else {
        return Ok(format!("subject `{subject}` is new: any schema may be its first"));
    };
    let level = registry.level(subject).await?;
    let ruling = registry.ruling(subject, text).await?;
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
    for (direction, misfit) in broken(&level, text, &newest.text) {
        error = error.detail(format!("{direction}: {misfit}"));
    }
    for message in ruling.messages {
        error = error.detail(format!("the registry: {message}"));
    }
    Err(error.hint(allowed(&level)))
}

async fn register(registry: &Registry, subject: &str, text: &str) -> Result<String> {
    // What the registry refuses it says in its own words; these name the field.
    check(registry, subject, text).await?;
    let id = registry.register(subject, text).await?;
    Ok(format!("subject `{subject}`: schema {id}"))
}

/// The incompatibilities between two versions, in the directions that matter at `level`.
fn broken(level: &str, new: &str, old: &str) -> Vec<(&'static str, Misfit)> {
    let mut found = Vec::new();
    let (backward, forward) = (!level.starts_with("FORWARD"), !level.starts_with("BACKWARD"));
    if backward {
        let misfits = between(old, new).into_iter();
        found.extend(misfits.map(|misfit| ("old records read with the new schema", misfit)));
    }
    if forward {
        let misfits = between(new, old).into_iter();
        found.extend(misfits.map(|misfit| ("new records read with the old schema", misfit)));
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
                .map(|(_, misfit)| misfit.path)
                .collect()
        };
        assert_eq!(paths("BACKWARD", NEW, OLD), ["cents"]);
        assert!(paths("FORWARD", NEW, OLD).is_empty());
        assert_eq!(paths("FORWARD_TRANSITIVE", OLD, NEW), ["cents"]);
        assert_eq!(paths("FULL", OLD, NEW), ["cents"]);
        assert_eq!(paths("FULL", NEW, OLD), ["cents"]);
    }

    #[test]
    fn a_files_name_says_its_subject() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let named = file("a.b.v1.avsc", OLD);
        assert_eq!(read(&named, None).unwrap().0, "a.b.v1-value");
        assert_eq!(read(&named, Some("x-key")).unwrap().0, "x-key");
        assert!(read(&file("schema.json", OLD), None).is_err());
        let error = read(&file("c.avsc", "{"), None).unwrap_err();
        assert!(error.what().contains("c.avsc"), "{error}");
    }
}
