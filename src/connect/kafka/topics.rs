//! `topics`, `topics create`: the topics that dataflows read, as the broker has them and as they should be.
//!
//! ```text
//!   dataflows ─▶ plans ─▶ names of topics ─┬─ as the broker has them: partitions, records, how many arrive, how large
//!                                          ├─ lint: domain.entity.version
//!                                          └─ rate (measured, or --rate) ─▶ partitions advised
//! ```

use std::io::Write;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::admin::{self, NewTopic, TopicInfo};
use super::settings::KafkaSettings;
use crate::connect::connector::CommandContext;
use crate::error::{Error, Result, count};

/// What one partition carries without trouble.
const BYTES_PER_SECOND_A_PARTITION: f64 = 10e6;

#[derive(Args)]
struct TopicsArguments {
    #[command(subcommand)]
    what: Option<TopicsCommand>,
    #[command(flatten)]
    of: TopicsSelection,
}

#[derive(Subcommand)]
enum TopicsCommand {
    /// Make the topics that are missing
    Create(CreateArguments),
}

#[derive(Args)]
struct TopicsSelection {
    /// Bytes a second that a topic is to carry, as in 25MB; left out: measured
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    rate: Option<f64>,
    /// For how many seconds the rate is measured
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 3)]
    seconds: u64,
}

#[derive(Args)]
struct CreateArguments {
    #[command(flatten)]
    of: TopicsSelection,
    /// Partitions of each; left out: by --rate, or 1
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    partitions: Option<u16>,
    /// Copies of each record; left out: what the broker makes
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    replication: Option<u16>,
    /// A setting of the topics, as in retention.ms=-1; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    topic_config: Vec<String>,
}

/// The command `topics`.
pub(super) fn command() -> Command {
    TopicsArguments::augment_args(Command::new("topics").about(
        "List the topics that dataflows read: whether they are there, well named, and have partitions enough",
    ))
}

pub(super) fn run(arguments: &ArgMatches, on: &CommandContext<'_>) -> Result<()> {
    let kafka = KafkaSettings::of(on.env);
    if kafka.bootstrap.is_empty() {
        return Err(Error::definition("which Kafka?").hint("say --kafka HOST:PORT, or THALWEG_KAFKA"));
    }
    let arguments = TopicsArguments::from_arg_matches(arguments)?;
    match &arguments.what {
        Some(TopicsCommand::Create(arguments)) => create(&kafka, arguments, on),
        None => list(&kafka, &arguments.of, on.logs),
    }
}

fn list(kafka: &KafkaSettings, of: &TopicsSelection, names: &[String]) -> Result<()> {
    let over = Duration::from_secs(if of.rate.is_some() { 0 } else { of.seconds });
    let seen = admin::look(kafka, names, over)?;
    let mut out = std::io::stdout().lock();
    for (name, seen) in names.iter().zip(&seen) {
        for line in told(name, seen.as_ref(), of.rate) {
            if writeln!(out, "{line}").is_err() {
                return Ok(()); // Whoever read along has seen enough.
            }
        }
    }
    Ok(())
}

/// What there is to say of a topic: a line, and below it what to do about it.
fn told(name: &str, seen: Option<&TopicInfo>, rate: Option<f64>) -> Vec<String> {
    let mut lines = Vec::new();
    let measured = seen.and_then(|seen| Some(seen.records_per_second * seen.record_bytes?));
    lines.push(match seen {
        None => format!("{name}  missing"),
        Some(seen) => {
            let rate = match measured {
                Some(bytes) if seen.records_per_second > 0.0 => {
                    format!(
                        "{:.0} records/s, {:.3} MB/s",
                        seen.records_per_second,
                        bytes / 1e6
                    )
                }
                _ => "no records arrive".into(),
            };
            format!(
                "{name}  {}, {}, {rate}",
                count(seen.partitions as u64, "partition"),
                count(seen.records, "record")
            )
        }
    });
    if let Err(wrong) = lint(name) {
        lines.push(format!("  name: {wrong}"));
    }
    let rate = rate.or(measured.filter(|bytes| *bytes > 0.0));
    match (rate.map(advised), seen) {
        (Some(advised), Some(seen)) if advised > seen.partitions => lines.push(format!(
            "  partitions: {advised} are advised, about 10 MB/s each; keys go to other partitions when a topic grows, so a \
             new topic is cleaner"
        )),
        (Some(advised), None) => lines.push(format!("  partitions: {advised} are advised, about 10 MB/s each")),
        _ => {}
    }
    if seen.is_none() {
        lines.push("  `topics create` makes it".into());
    }
    lines
}

/// Partitions for so many bytes a second.
fn advised(bytes_per_second: f64) -> usize {
    (bytes_per_second / BYTES_PER_SECOND_A_PARTITION).ceil().max(1.0) as usize
}

/// Whether a name is of the form domain.entity.version.
fn lint(name: &str) -> Result<(), String> {
    let form = "names are domain.entity.version, as in payments.transactions.v1";
    let parts: Vec<&str> = name.split('.').collect();
    let [domain, entity, version] = parts.as_slice() else {
        return Err(format!("it has {}; {form}", count(parts.len() as u64, "part")));
    };
    for word in [domain, entity] {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !word.starts_with(|c: char| c.is_ascii_lowercase()) || !word.chars().all(plain) {
            return Err(format!(
                "`{word}` is not of lower-case letters, digits and hyphens; {form}"
            ));
        }
    }
    let number = version.strip_prefix('v').unwrap_or_default();
    match number.parse::<u32>() {
        Ok(n) if n > 0 && n.to_string() == number => Ok(()),
        _ => Err(format!("`{version}` is no version like v1; {form}")),
    }
}

fn create(kafka: &KafkaSettings, arguments: &CreateArguments, on: &CommandContext<'_>) -> Result<()> {
    let (of, names) = (&arguments.of, on.logs);
    let seen = admin::look(kafka, names, Duration::ZERO)?;
    let partitions = arguments
        .partitions
        .map_or_else(|| of.rate.map_or(1, advised), usize::from);
    let mut config = Vec::new();
    for setting in &arguments.topic_config {
        let (name, value) = setting.split_once('=').ok_or_else(|| {
            Error::definition(format!(
                "--topic-config takes NAME=VALUE, and `{setting}` has no `=`"
            ))
        })?;
        config.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let missing = names.iter().zip(&seen).filter(|(_, seen)| seen.is_none());
    let new: Vec<NewTopic> = missing
        .map(|(name, _)| NewTopic {
            name: name.clone(),
            partitions: Some(partitions),
            replication: arguments.replication,
            config: config.clone(),
        })
        .collect();
    on.runtime.block_on(admin::create(kafka, &new))?;
    for (name, seen) in names.iter().zip(&seen) {
        match seen {
            Some(seen) => println!(
                "{name}  was there, {}",
                count(seen.partitions as u64, "partition")
            ),
            None => println!("{name}  made, {}", count(partitions as u64, "partition")),
        }
        if let Err(wrong) = lint(name) {
            println!("  name: {wrong}");
        }
    }
    Ok(())
}

/// Bytes as people write them: `800k`, `25MB`, `1.5 GB/s`.
fn bytes(text: &str) -> Result<f64, String> {
    let plain = text.trim().trim_end_matches("/s").trim_end_matches(['B', 'b']);
    let (number, unit) = match plain.char_indices().last() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1e3),
        Some((at, 'M' | 'm')) => (&plain[..at], 1e6),
        Some((at, 'G' | 'g')) => (&plain[..at], 1e9),
        _ => (plain, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number * unit),
        _ => Err("it is no number of bytes, as in 25MB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_domain_entity_version() {
        for good in ["payments.transactions.v1", "a-b.c2.v12"] {
            assert_eq!(lint(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("payments", "1 part;"),
            ("a.b.c.v1", "4 parts;"),
            ("Payments.x.v1", "`Payments`"),
            ("a..v1", "``"),
            ("a.b_c.v1", "`b_c`"),
            ("a.b.1", "`1`"),
            ("a.b.v0", "`v0`"),
            ("a.b.v01", "`v01`"),
        ] {
            let said = lint(bad).unwrap_err();
            assert!(said.contains(says), "{bad}: {said}");
        }
    }

    #[test]
    fn ten_megabytes_a_second_are_a_partition() {
        assert_eq!([0.0, 1.0, 10e6, 10.1e6, 95e6].map(advised), [1, 1, 1, 2, 10]);
        assert_eq!(bytes("25MB"), Ok(25e6));
        assert_eq!(bytes("1.5 GB/s"), Ok(1.5e9));
        assert_eq!(bytes("800k"), Ok(8e5));
        assert!(["", "x", "-1MB", "MB"].map(bytes).iter().all(Result::is_err));
        let seen = TopicInfo {
            partitions: 2,
            records: 9,
            records_per_second: 100_000.0,
            record_bytes: Some(500.0),
        };
        let lines = told("a.b.v1", Some(&seen), None);
        assert!(lines[1].contains("5 are advised"), "{lines:?}");
        assert_eq!(told("a.b.v1", Some(&seen), Some(1e6)).len(), 1);
        assert!(told("a.b.v1", None, Some(31e6))[1].contains("4 are advised"));
    }
}
