//! `dead-letters list | show | replay`: what stands in the topics of dead letters, and its way back.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::letter::Letter;
use super::replay::{Outcome, Replay, Selection, group};
use super::topic::LetterLog;
use crate::connect::connector::CommandContext;
use crate::connect::kafka::settings::KafkaSettings;
use crate::error::{Error, Result, count};
use crate::time::EventTime;

pub(in crate::connect::kafka) const NAME: &str = "dead-letters";

#[derive(Args)]
struct LettersArguments {
    #[command(subcommand)]
    what: LettersCommand,
}

#[derive(Subcommand)]
enum LettersCommand {
    /// Count the letters of each source and cause
    List {
        #[command(flatten)]
        of: Of,
        /// A JSON object a line, and not a table
        #[arg(long)]
        json: bool,
    },
    /// Print one letter: its headers, its key and its payload
    Show {
        /// Where it stands in the topic of dead letters
        #[arg(value_name = "PARTITION/OFFSET", value_parser = place)]
        letter: (i32, i64),
        #[command(flatten)]
        of: Of,
        /// Write the bytes of the payload, and nothing else
        #[arg(long)]
        payload: bool,
    },
    /// Send records back to the topics that they came from, each once; without --yes only say which
    Replay {
        #[command(flatten)]
        of: Of,
        /// Letters of this source only
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Letters with this cause only. Causes of steps behind the source (`late`, `rejected`) have to be
        /// named: the dataflow may have counted the record elsewhere
        #[arg(long, value_name = "CAUSE")]
        cause: Option<String>,
        /// This letter only
        #[arg(long, value_name = "PARTITION/OFFSET", value_parser = place)]
        letter: Option<(i32, i64)>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Do it, and don't only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Of {
    /// The topic of dead letters; left out: that of the dataflows and the settings
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
}

/// `3/42`.
fn place(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once('/');
    let number = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    number.ok_or_else(|| "it is no place in a topic: write PARTITION/OFFSET, as in 0/42".to_owned())
}

/// What clap knows of it.
pub(in crate::connect::kafka) fn command() -> Command {
    let command = Command::new(NAME).about("Look at dead letters in their topics, and replay them");
    LettersArguments::augment_args(command)
}

pub(in crate::connect::kafka) fn run(arguments: &ArgMatches, on: &CommandContext<'_>) -> Result<()> {
    let kafka = KafkaSettings::of(on.env);
    if kafka.bootstrap.is_empty() {
        let error = Error::definition("no Kafka is set to look for dead letters in");
        return Err(error.hint("name its bootstrap servers: --kafka HOST:PORT, or THALWEG_KAFKA"));
    }
    let group = group(&on.env.group);
    match LettersArguments::from_arg_matches(arguments)?.what {
        LettersCommand::List { of, json } => {
            for topic in topics(&of, on)? {
                list(&LetterLog::open(&topic, &kafka, &group)?, json)?;
            }
            Ok(())
        }
        LettersCommand::Show { letter, of, payload } => {
            let topic = one(topics(&of, on)?)?;
            show(&LetterLog::open(&topic, &kafka, &group)?, letter, payload)
        }
        LettersCommand::Replay {
            of,
            source,
            cause,
            letter,
            limit,
            yes,
        } => {
            let topic = one(topics(&of, on)?)?;
            let replay = Replay {
                kafka: &kafka,
                topic: &topic,
                application: &on.env.group,
                selection: Selection {
                    source,
                    cause,
                    place: letter,
                    limit,
                },
                is_dry: !yes,
            };
            let outcome = replay.run()?;
            print(&told(&topic, &outcome, !yes));
            Ok(())
        }
    }
}

/// The topic that is named, or all that the dataflows know of.
fn topics(of: &Of, on: &CommandContext<'_>) -> Result<Vec<String>> {
    match (&of.topic, on.dead_letters) {
        (Some(topic), _) => Ok(vec![topic.clone()]),
        (None, []) => Err(Error::request("no topic of dead letters is known").hint(
            "name it: --topic NAME; dataflows name theirs by `.dead_letters_to(…)`, settings by \
                `dead_letters.topic`",
        )),
        (None, known) => Ok(known.to_vec()),
    }
}

fn one(topics: Vec<String>) -> Result<String> {
    match <[String; 1]>::try_from(topics) {
        Ok([topic]) => Ok(topic),
        Err(topics) => Err(Error::request("there are several topics of dead letters")
            .detail(topics.join(", "))
            .hint("name one of them: --topic NAME")),
    }
}

/// Whoever reads along may have seen enough.
fn print(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// Letters of one source and cause.
#[derive(Default)]
struct Counted {
    letters: u64,
    replayed: u64,
    newest_ms: i64,
    last: (i32, i64),
}

fn list(log: &LetterLog<'_>, json: bool) -> Result<()> {
    let replayed = log.replayed()?;
    let mut counted = BTreeMap::<(String, String), Counted>::new();
    log.read(&BTreeMap::new(), &mut |record| {
        let letter = Letter::of(record);
        let of = |name| letter.own(name).unwrap_or("-").to_owned();
        let found = counted.entry((of("source"), of("cause"))).or_default();
        let was = replayed
            .get(&letter.partition)
            .is_some_and(|replayed| replayed.contains(letter.offset));
        found.letters += 1;
        found.replayed += u64::from(was);
        let written_ms = letter.written_ms.unwrap_or_default();
        if written_ms >= found.newest_ms {
            (found.newest_ms, found.last) = (written_ms, (letter.partition, letter.offset));
        }
        Ok(true)
    })?;
    match json {
        true => print(&objects(log.name, &counted)),
        false => print(&table(log.name, &counted)),
    }
    Ok(())
}

fn objects(topic: &str, counted: &BTreeMap<(String, String), Counted>) -> Vec<String> {
    let object = |((source, cause), of): (&(String, String), &Counted)| {
        serde_json::json!({
            "topic": topic, "source": source, "cause": cause, "letters": of.letters, "replayed": of.replayed,
            "newest": EventTime::from_millis(of.newest_ms).to_string(),
            "last": format!("{}/{}", of.last.0, of.last.1),
        })
        .to_string()
    };
    counted.iter().map(object).collect()
}

fn table(topic: &str, counted: &BTreeMap<(String, String), Counted>) -> Vec<String> {
    let letters: u64 = counted.values().map(|of| of.letters).sum();
    let replayed: u64 = counted.values().map(|of| of.replayed).sum();
    let letters = count(letters, "dead letter");
    let mut lines = vec![format!("{topic}  {letters}, {replayed} of them replayed")];
    let mut cells = vec![["source", "cause", "letters", "replayed", "newest", "last"].map(str::to_owned)];
    cells.extend(counted.iter().map(|((source, cause), of)| {
        [
            source.clone(),
            cause.clone(),
            of.letters.to_string(),
            of.replayed.to_string(),
            EventTime::from_millis(of.newest_ms).to_string(),
            format!("{}/{}", of.last.0, of.last.1),
        ]
    }));
    if cells.len() == 1 {
        return lines;
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    for row in &cells {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        lines.push(format!("  {}", line.trim_end()));
    }
    lines
}

fn show(log: &LetterLog<'_>, (partition, offset): (i32, i64), payload: bool) -> Result<()> {
    let topic = log.name;
    let found = log.fetch((topic, partition, offset), Letter::of)?;
    let letter = found.ok_or_else(|| {
        let what = format!("topic `{topic}` has no letter at {partition}/{offset}");
        Error::request(what).hint("`dead-letters list` says where the last ones stand")
    })?;
    if payload {
        let written = std::io::stdout().write_all(letter.payload.as_deref().unwrap_or_default());
        return written.map_err(|error| Error::external("cannot write the payload").detail(error));
    }
    let mut lines = vec![format!("{topic}, partition {partition}, offset {offset}")];
    lines.extend(
        letter
            .written_ms
            .map(|ms| format!("written {}", EventTime::from_millis(ms))),
    );
    lines.push("headers".to_owned());
    for header in &letter.headers {
        let value = shown(header.value.as_deref()).join(" ");
        lines.push(format!("  {}: {value}", header.name));
    }
    for (part, bytes) in [("key", &letter.key), ("payload", &letter.payload)] {
        let len = bytes
            .as_ref()
            .map(|bytes| format!(", {}", count(bytes.len() as u64, "byte")));
        lines.push(format!("{part}{}", len.unwrap_or_default()));
        lines.extend(
            shown(bytes.as_deref())
                .into_iter()
                .map(|line| format!("  {line}")),
        );
    }
    print(&lines);
    Ok(())
}

/// Bytes as text where they are printable, else as hexadecimal, 16 a line.
fn shown(bytes: Option<&[u8]>) -> Vec<String> {
    let Some(bytes) = bytes else {
        return vec!["none".to_owned()];
    };
    let is_printable = |text: &&str| !text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c));
    match std::str::from_utf8(bytes).ok().filter(is_printable) {
        Some(text) => text.lines().map(str::to_owned).collect(),
        None => bytes.chunks(16).map(hex).collect(),
    }
}

/// `00 00 07 6e  ...n`.
fn hex(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    });
    format!("{:47}  {}", numbers.join(" "), text.collect::<String>())
}

/// What a replay has done, or would do.
fn told(topic: &str, outcome: &Outcome, is_dry: bool) -> Vec<String> {
    let total = count(outcome.total() as u64, "letter");
    let mut lines = vec![match is_dry {
        true => format!("{topic}  {total} would be replayed; --yes does it"),
        false => format!("{topic}  {total} replayed"),
    }];
    let sent = outcome.sent.iter();
    lines.extend(sent.map(|((to, cause), n)| format!("  {n} {cause} to {to}")));
    for (n, what) in [
        (outcome.before, "replayed before, and not again"),
        (
            outcome.elsewhere,
            "not read from a Kafka topic: there is no way back",
        ),
        (outcome.gone, "whose record is in its topic no more"),
    ] {
        if n > 0 {
            lines.push(format!("  {} {what}", count(n as u64, "letter")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_or_in_hexadecimal() {
        assert_eq!(shown(None), ["none"]);
        assert_eq!(shown(Some(b"{\n  1\n}")), ["{", "  1", "}"]);
        let lines = shown(Some(b"\0\0\x07n and more than sixteen"));
        assert_eq!(
            lines[0],
            "00 00 07 6e 20 61 6e 64 20 6d 6f 72 65 20 74 68  ...n and more th"
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!(place("3/42"), Ok((3, 42)));
        assert!(["3", "3/", "a/1", "1/2/3"].map(place).iter().all(Result::is_err));
    }
}
