//! `cluster`: the processes of a running cluster.

use clap::Subcommand;
use serde::Deserialize;

use crate::cli::{ServerArguments, query};
use crate::error::{Error, Result};

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// List the processes as one of them sees them: when each was heard from, and how far it is
    Status {
        /// Print the service's JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: ServerArguments,
    },
}

#[derive(Deserialize)]
struct ClusterAnswer {
    process: usize,
    workers: usize,
    processes: Vec<ProcessAnswer>,
}

#[derive(Deserialize)]
struct ProcessAnswer {
    process: usize,
    address: String,
    silent_ms: Option<u64>,
    time: Option<String>,
}

pub(super) fn run(command: &ClusterCommand) -> Result<()> {
    let ClusterCommand::Status { json, at } = command;
    let base = query::base_url(at)?;
    let body = query::fetch(&format!("{base}/v1/cluster"), base, at)?;
    match json {
        true => println!("{body}"),
        false => print!("{}", table(&body)?),
    }
    Ok(())
}

fn table(body: &str) -> Result<String> {
    let unexpected = |error| Error::request("the service answers something else").detail(error);
    let answer: ClusterAnswer = serde_json::from_str(body).map_err(unexpected)?;
    if answer.processes.is_empty() {
        return Ok(format!("a single process, with {} workers\n", answer.workers));
    }
    let line = |one: &ProcessAnswer| {
        let heard = match one.silent_ms {
            _ if one.process == answer.process => "this process".into(),
            Some(ms) => format!("{ms} ms ago"),
            None => "not connected".into(),
        };
        let closed = one.time.clone().unwrap_or_else(|| "none".into());
        vec![one.process.to_string(), one.address.clone(), heard, closed]
    };
    let head = ["process", "address", "last heard", "newest closed epoch"].map(str::to_owned);
    let text = format!(
        "{} processes with {} workers each, as seen by process {}\n\n{}",
        answer.processes.len(),
        answer.workers,
        answer.process,
        query::table(&head, answer.processes.iter().map(line).collect())
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_listed() {
        let text = table(
            r#"{"process":1,"workers":2,"processes":[
                {"process":0,"address":"a:1","connected":true,"silent_ms":17,"epoch":5,"time":"1970-01-01T00:00:00.000005Z"},
                {"process":1,"address":"b:1","connected":true,"silent_ms":0,"epoch":null,"time":null},
                {"process":2,"address":"c:1","connected":false,"silent_ms":null,"epoch":null,"time":null}]}"#,
        )
        .unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "3 processes with 2 workers each, as seen by process 1");
        assert!(
            lines[3].contains("17 ms ago") && lines[3].ends_with("00.000005Z"),
            "{text}"
        );
        assert!(lines[4].contains("this process"), "{text}");
        assert!(lines[5].contains("not connected"), "{text}");
        let alone = table(r#"{"process":0,"workers":2,"processes":[]}"#).unwrap();
        assert_eq!(alone, "a single process, with 2 workers\n");
    }
}
