//! `check`: the effective settings, and whether external systems match them. Changes nothing.
//!
//! ```text
//!   settings ─▶ each with its origin
//!   dataflow ─▶ plan ─▶ sources ─┬─ topology, and the ledger's view of it     topics, partitions, what retention took
//!   ledger   ─▶ read, verified ──┘                                            (pure: `bound`)
//!                                ├─ Driver::examine                           retention, compaction
//!                                └─ Driver::fits                              schemas against the Rust types
//!   registry ─▶ does it answer, and let us in
//! ```

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tokio::runtime::Handle;

use crate::checkpoint::manifest::{Manifest, StepSignature};
use crate::cli::CheckArguments;
use crate::cli::serve::{environment, known, registry, tokio};
use crate::codec::compatibility::{SubjectCompatibility, SubjectSchema};
use crate::config::{ResolvedSettings, ServiceSettings};
use crate::connect::CONNECTORS;
use crate::dataflow::Flow;
use crate::dataflow::plan::{PlannedSink, PlannedSource};
use crate::error::{Kind, Result};
use crate::finding::{Finding, Severity};
use crate::ledger::state::{LedgerState, SourceState};
use crate::position::{SourceId, TopicId};
use crate::runtime::checkpoints::{self, OnNewProgram};
use crate::source::{Environment, Topology};
use crate::time::Epoch;
use crate::{http, ledger, runtime};

/// The output of `--json`.
#[derive(Serialize)]
struct CheckReport<'a> {
    dataflow: &'a str,
    /// Whether there are no errors; warnings are allowed.
    fits: bool,
    settings: Vec<ShownSetting<'a>>,
    checks: &'a [Finding],
}

#[derive(Serialize)]
struct ShownSetting<'a> {
    name: &'a str,
    value: &'a str,
    from: String,
}

/// Prints the findings. Returns whether there are no errors.
pub(super) fn run(flow: &Flow, arguments: &CheckArguments) -> Result<bool> {
    let resolved = arguments.settings.load()?;
    let tokio = tokio()?;
    let mut findings: Vec<Finding> = resolved.warnings.iter().map(Finding::warning).collect();
    findings.extend(of_settings(&resolved.settings));
    findings.extend(of_flow(flow, &resolved, tokio.handle()));
    let fits = findings.iter().all(|finding| finding.verdict < Severity::Error);
    let text = match arguments.json {
        true => json(flow, &resolved, &findings, fits),
        false => text(&resolved, &findings),
    };
    // Whoever read along may have seen enough.
    let _read = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(fits)
}

/// Warnings about settings that are valid by themselves.
fn of_settings(settings: &ServiceSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for connector in CONNECTORS {
        findings.extend(connector.warnings(&settings.connectors));
    }
    let registry = &settings.registry;
    let login = registry.password.is_some() || registry.token.is_some();
    if login
        && registry
            .url
            .as_ref()
            .is_some_and(|url| url.starts_with("http://"))
    {
        let what = "credentials for the schema registry are sent unencrypted: its address is http";
        findings.push(Finding::warning(what).hint(
            "use https, with `registry.ca_file` for a private certificate \
                authority",
        ));
    }
    match http::bindable(&settings.http) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Definition => findings.push(wrong(&error)),
        // It may be the very service that is asked about.
        Err(error) => findings.push(Finding::warning(error.to_string())),
    }
    findings
}

fn of_flow(flow: &Flow, resolved: &ResolvedSettings, handle: &Handle) -> Vec<Finding> {
    let settings = &resolved.settings;
    let registry = match registry(&settings.registry, handle) {
        Ok(registry) => registry,
        Err(error) => return vec![wrong(&error)],
    };
    let mut findings = Vec::new();
    if let Some(registry) = &registry {
        findings.push(match handle.block_on(registry.compatibility()) {
            Ok(level) => Finding::ok(format!(
                "the schema registry answers; new schemas must be {level}"
            )),
            Err(error) => wrong(&error),
        });
    }
    let env = environment(settings, registry);
    let plan = match runtime::plan(flow, &env) {
        Ok(plan) => plan,
        Err(error) => return [findings, vec![wrong(&error)]].concat(),
    };
    let (steps, sources) = (plan.text.lines().count(), plan.sources.len());
    findings.push(Finding::ok(format!(
        "dataflow `{}`: {steps} steps, {sources} sources",
        flow.name()
    )));
    if !settings.checkpoint_interval.is_zero()
        && let Err(error) = plan.check_state_types()
    {
        findings.push(wrong(&error));
    }
    let known: Vec<_> = plan.sources.iter().map(known).collect();
    if let Err(error) = resolved.sources_fit(&known) {
        findings.push(wrong(&error));
    }
    let dir = settings.data_dir.join(flow.name());
    let state = of_ledger(&dir, flow, &env, &plan.sources, &mut findings);
    let (mut state, trimmed) = state;
    let newest = match settings.checkpoint_interval.is_zero() {
        true => Ok((None, Vec::new())),
        false => settings
            .checkpoint_place
            .store(&env.group, flow.name(), &dir, false)
            .and_then(|store| store.newest(&env.group, flow.name(), None)),
    };
    match newest {
        Ok(newest) => {
            let chosen = (settings.on_new_plan, trimmed);
            of_checkpoints(newest, chosen, &plan.states, &mut state, &mut findings);
        }
        Err(error) => findings.push(wrong(&error)),
    }
    let lacking = |source: &PlannedSource| source.driver.configured().and_then(Result::err);
    let mut lacks: Vec<Finding> = plan.sources.iter().filter_map(lacking).map(told).collect();
    lacks.dedup();
    findings.extend(lacks);
    let readable = plan.sources.iter().filter(|source| lacking(source).is_none());
    // Beside each other: with a broker that is away each of them takes seconds.
    let looks = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for source in readable {
            let bound = state.source(source.rules.id);
            threads.push(scope.spawn(move || of_source(source, bound, handle)));
        }
        let panicked = |_| vec![Finding::error("checking a source panicked")];
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(panicked))
            .collect::<Vec<_>>()
    });
    let sinks = plan.sinks.iter().flat_map(of_sink).collect();
    [findings, looks, sinks].concat()
}

/// A sink's guarantee, and the state of its store.
fn of_sink(sink: &PlannedSink) -> Vec<Finding> {
    let looks = sink.examine.as_ref().map(|examine| examine(&sink.schema));
    let known = Finding::ok(format!("sink `{}`: {sink}", sink.name));
    std::iter::once(known)
        .chain(looks.into_iter().flatten())
        .collect()
}

/// Reads the ledger, if it exists.
fn of_ledger(
    dir: &Path,
    flow: &Flow,
    env: &Environment,
    sources: &[PlannedSource],
    findings: &mut Vec<Finding>,
) -> (LedgerState, Option<Epoch>) {
    if !dir.exists() {
        let what = format!(
            "there is no ledger in {} yet: the first start reads the topics from where they are told to \
             start",
            dir.display()
        );
        findings.push(Finding::ok(what));
        return Default::default();
    }
    let report = match ledger::verify(dir) {
        Ok(report) => report,
        Err(error) => {
            findings.push(wrong(&error));
            return Default::default();
        }
    };
    for (what, own, found) in [
        ("application", &*env.group, &report.app),
        ("dataflow", flow.name(), &report.dataflow),
    ] {
        if own != found {
            let what = format!(
                "the ledger in {} belongs to another {what}: `{found}`, not `{own}`",
                dir.display()
            );
            findings.push(Finding::error(what).hint("choose another `data_dir`"));
        }
    }
    for id in report.state.sources().keys() {
        if !sources.iter().any(|source| source.rules.id == *id) {
            let what = format!(
                "the ledger in {} contains a source that the dataflow does not have (id {:08x})",
                dir.display(),
                id.0
            );
            findings.push(Finding::error(what).hint(
                "was a source renamed? A ledger identifies sources by \
                name",
            ));
        }
    }
    let last = report
        .last
        .map_or_else(|| "none".into(), |last| last.opened_at().to_string());
    findings.push(Finding::ok(format!(
        "the ledger in {} is intact: {} epochs, the last one {last}",
        dir.display(),
        report.bindings,
    )));
    (report.state, report.trimmed)
}

/// Checks the checkpoint that a start would resume from, without reading its contents.
fn of_checkpoints(
    (found, notes): (Option<Manifest>, Vec<String>),
    (on_new_plan, trimmed): (OnNewProgram, Option<Epoch>),
    states: &[StepSignature],
    state: &mut LedgerState,
    findings: &mut Vec<Finding>,
) {
    findings.extend(notes.into_iter().map(Finding::warning));
    if let Err(error) = checkpoints::is_whole(trimmed, found.as_ref()) {
        return findings.push(wrong(&error));
    }
    let Some(manifest) = found else { return };
    if state.last().is_none_or(|last| last < manifest.epoch) {
        let what = format!(
            "the checkpoint of {} is not in the ledger",
            manifest.epoch.opened_at()
        );
        let hint = "a start would refuse it: restore the ledger that it belongs to, or remove it: \
            `thalweg checkpoint prune DIR --keep 0 --yes`";
        return findings.push(Finding::error(what).hint(hint));
    }
    let knows = |source: &str| state.sources().contains_key(&SourceId::of(source));
    let (compatibility, time) = (
        on_new_plan.compatibility(&manifest.steps, states, knows),
        manifest.epoch.opened_at(),
    );
    if !compatibility.needs_no_decision() {
        let what = format!(
            "the steps in the checkpoint of {time} differ from the dataflow's: {}",
            compatibility.decisions().join("; ")
        );
        let will = |will: &str| Finding::warning(format!("{what}; {will}"));
        return findings.push(match (on_new_plan, trimmed) {
            (OnNewProgram::Accept, _) => will(
                "the state of removed steps will be dropped; new and changed steps will start empty \
                 (`checkpoint.on_new_plan`)",
            ),
            (OnNewProgram::Keep, _) => will(
                "steps whose inputs alone changed will keep their state; other new and changed steps will \
                 start empty (`checkpoint.on_new_plan`)",
            ),
            (OnNewProgram::Rebuild, None) => {
                will("all state will be rebuilt from the topics (`checkpoint.on_new_plan`)")
            }
            (OnNewProgram::Rebuild, Some(_)) => Finding::error(what).hint(
                "the ledger was trimmed, so state cannot be rebuilt: set `checkpoint.on_new_plan=accept`, \
                 or use `ledger reset`",
            ),
            (OnNewProgram::Refuse, _) if compatibility.differences.is_empty() && trimmed.is_none() => {
                will("all state will be rebuilt, because new steps need the full history")
            }
            (OnNewProgram::Refuse, _) => {
                Finding::error(what).hint("a start would refuse it: choose with `checkpoint.on_new_plan`")
            }
        });
    }
    let bytes = manifest.bytes();
    findings.push(Finding::ok(format!(
        "the checkpoint of {time} is intact, {bytes} bytes: a start resumes from it"
    )));
    let positions = manifest.at.binding.ranges.iter();
    state.begin_at(positions.map(|range| (range.id, range.hi)));
}

fn of_source(source: &PlannedSource, bound: Option<&SourceState>, handle: &Handle) -> Vec<Finding> {
    let name = format!("source `{}`, {}", source.rules.name, source.description);
    let topology = match source.driver.topology() {
        Ok(topology) => topology,
        Err(error) => return vec![wrong(&error)],
    };
    let records: i64 = topology
        .partitions
        .iter()
        .map(|facts| facts.end - facts.start)
        .sum();
    let is = format!(
        "{name}: {} partitions, {records} offsets",
        topology.partitions.len()
    );
    let mut findings = vec![Finding::ok(is)];
    if let Some(bound) = bound {
        findings.extend(check_topology(&name, bound, &topology));
    }
    findings.extend(source.driver.examine(handle));
    findings.extend(source.driver.fits().iter().map(of_compatibility));
    findings
}

/// The compatibility of a type with the registry's newest schema of its subject.
fn of_compatibility(compatibility: &SubjectCompatibility) -> Finding {
    if let Err(error) = compatibility.verdict() {
        return wrong(&error);
    }
    match &compatibility.found {
        SubjectSchema::Newest {
            incompatibilities, ..
        } if incompatibilities.is_empty() => Finding::ok(compatibility.to_string()),
        SubjectSchema::Newest { .. } => {
            Finding::warning(compatibility.to_string()).hint("records that do not decode become dead letters")
        }
        SubjectSchema::NoSubject => Finding::warning(compatibility.to_string()).hint(
            "producers use another subject name, or have written \
                nothing yet",
        ),
        SubjectSchema::Unseen(_) => Finding::error(compatibility.to_string()),
    }
}

/// Compares a topic with what the ledger needs of it for a replay.
fn check_topology(name: &str, bound: &SourceState, topology: &Topology) -> Vec<Finding> {
    // Only topics have an id; what has none is read from files.
    let way_on = match topology.topic == TopicId::default() {
        true => {
            "restore the files that were read; the names of new files must sort after theirs. An empty \
             data directory starts over"
        }
        false => "an empty data directory starts over",
    };
    if bound.topic.is_some_and(|topic| topic != topology.topic) {
        let what = format!("{name}: it was recreated after the ledger recorded it");
        return vec![Finding::error(what).hint(way_on)];
    }
    let mut findings = Vec::new();
    for (number, state) in &bound.partitions {
        let found = topology
            .partitions
            .iter()
            .find(|facts| facts.partition == *number);
        let what = match found {
            None => format!("{name}: partition {number} is in the ledger but no longer exists"),
            Some(facts) if facts.start > state.first => format!(
                "{name}: partition {number} begins at offset {}, but a replay needs offset {}",
                facts.start, state.first
            ),
            Some(facts) if facts.end < state.hi => format!(
                "{name}: partition {number} ends at offset {}, but the ledger has it up to {}",
                facts.end, state.hi
            ),
            Some(_) => continue,
        };
        findings.push(Finding::error(what).hint(way_on));
    }
    findings
}

/// An error in one line, with its hint separately.
fn told(error: crate::Error) -> Finding {
    let finding = Finding::error(error.what());
    match error.hint_text() {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

fn wrong(error: &crate::Error) -> Finding {
    Finding::error(error.to_string())
}

fn json(flow: &Flow, resolved: &ResolvedSettings, findings: &[Finding], fits: bool) -> String {
    let shown = |entry: &'_ crate::config::ResolvedSetting| entry.origin.to_string();
    let settings = resolved.entries.iter().map(|entry| ShownSetting {
        name: &entry.name,
        value: &entry.value,
        from: shown(entry),
    });
    let answer = CheckReport {
        dataflow: flow.name(),
        fits,
        settings: settings.collect(),
        checks: findings,
    };
    let text = serde_json::to_string_pretty(&answer);
    text.map_or_else(|error| error.to_string(), |text| text + "\n")
}

fn text(resolved: &ResolvedSettings, findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = |of: fn(&crate::config::ResolvedSetting) -> usize| {
        resolved.entries.iter().map(of).max().unwrap_or(0).min(48)
    };
    let (names, values) = (
        width(|entry| entry.name.chars().count()),
        width(|entry| entry.value.chars().count()),
    );
    for entry in &resolved.entries {
        text += &format!(
            "{:names$}  {:values$}  {}\n",
            entry.name, entry.value, entry.origin
        );
    }
    text.push('\n');
    for finding in findings {
        let word = match finding.verdict {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let what = finding.what.replace('\n', "\n         ");
        text += &format!("{word:7}  {what}\n");
        if let Some(hint) = &finding.hint {
            text += &format!("           hint: {hint}\n");
        }
    }
    let count = |verdict| {
        findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text += &format!("\n{errors} errors, {warnings} warnings\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::ConfigInputs;
    use crate::connect::files::Files;
    use crate::connect::kafka::Kafka;
    use crate::dataflow::{Dataflow, dataflow};
    use crate::ledger::state::PartitionState;
    use crate::source::PartitionFacts;
    use crate::time::EventTime;

    fn topology(topic: u8, partitions: &[(i64, i64)]) -> Topology {
        let facts =
            |(partition, (start, end)): (u32, &(i64, i64))| PartitionFacts::new(partition, *start, *end);
        Topology {
            topic: TopicId([topic; 16]),
            compacted: false,
            partitions: (0..).zip(partitions).map(facts).collect(),
        }
    }

    #[test]
    fn files_are_looked_at_without_a_kafka() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.jsonl"), "1\n22\n").unwrap();
        let pattern = dir.path().join("*.jsonl");
        let reads = |topic: bool| {
            let pattern = pattern.clone();
            dataflow("files", move |flow: Dataflow| {
                let lines = Files::lines(&pattern).json::<i64>().keyed(|n| (n, Some(n)));
                flow.table("lines", lines).view("newest");
                if topic {
                    let rows = Kafka::topic("rows.v1").json::<i64>().keyed::<u32>();
                    flow.table("rows", rows).view("all_rows");
                }
            })
        };
        let (runtime, data) = (tokio().unwrap(), dir.path().join("data"));
        let inputs = ConfigInputs {
            variables: vec![("THALWEG_DATA_DIR".into(), data.display().to_string())],
            ..ConfigInputs::default()
        };
        let resolved = config::load(&inputs).unwrap();
        let found = |topic: bool| {
            let found = of_flow(&reads(topic), &resolved, runtime.handle());
            let errors = found.iter().filter(|finding| finding.verdict == Severity::Error);
            let errors: Vec<_> = errors.map(|finding| finding.what.clone()).collect();
            let lines = found
                .iter()
                .any(|finding| finding.what.contains("1 partitions, 5 offsets"));
            (errors, lines)
        };
        assert_eq!(found(false), (vec![], true));
        // Without a Kafka a topic can't be, and files are all the same.
        assert_eq!(found(true), (vec!["no Kafka is set".to_owned()], true));
    }

    #[test]
    fn what_a_replay_needs_has_to_be_there() {
        let state = PartitionState {
            first: 10,
            hi: 20,
            event_time_max: EventTime::MIN,
            idle: false,
            records: 10,
        };
        let bound = SourceState {
            topic: Some(TopicId([1; 16])),
            partitions: [(0, state), (1, state)].into(),
            ..SourceState::default()
        };
        let fits = |topology: &Topology| {
            let found = check_topology("s", &bound, topology).into_iter();
            found.map(|finding| finding.what).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(fits(&topology(1, &[(0, 20), (10, 99)])), "");
        assert!(fits(&topology(2, &[(0, 20), (10, 99)])).contains("was recreated"));
        assert!(
            fits(&topology(1, &[(11, 20), (0, 20)]))
                .contains("begins at offset 11, but a replay needs offset 10")
        );
        assert!(fits(&topology(1, &[(10, 19), (0, 20)])).contains("the ledger has it up to 20"));
        assert!(fits(&topology(1, &[(0, 20)])).contains("partition 1 is in the ledger but no longer exists"));
        // Files have no id, and can be put back.
        let of_files = SourceState {
            topic: Some(TopicId::default()),
            ..bound.clone()
        };
        let hint = check_topology("s", &of_files, &topology(0, &[(0, 20)]))[0]
            .hint
            .clone();
        assert!(hint.is_some_and(|hint| hint.starts_with("restore the files")));
    }
}
