//! Inspects a ledger without owning it: prints its contents, and verifies them. Neither writes; both may run
//! next to the service.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use crate::disk::{Disk, HostDisk};
use crate::error::{Result, count};
use crate::ledger::frame::{FORMAT_VERSION, GroupCommit};
use crate::ledger::progress::ShardProgress;
use crate::ledger::reader::{FILE_NAME, Frame, Reader, cannot, open_file};
use crate::ledger::record::{Chain, Claim, ClaimRecord};
use crate::ledger::state::LedgerState;
use crate::ledger::{Bindings, Recovered, bindings_of, fold, fold_rest, same_dataflow};
use crate::position::{EpochBinding, PartitionRange, SourceId};
use crate::time::{Epoch, EventTime};

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The application.
    pub app: String,
    /// The dataflow.
    pub dataflow: String,
    /// Bytes read.
    pub bytes: u64,
    /// Number of claims that count.
    pub claims: u64,
    /// Number of claims that lost to an earlier one.
    pub claims_void: u64,
    /// Generation of the last owner.
    pub generation: u64,
    /// Number of bindings that count.
    pub bindings: u64,
    /// Number of bindings by owners that had been replaced.
    pub bindings_late: u64,
    /// First bound epoch.
    pub first: Option<Epoch>,
    /// Last bound epoch.
    pub last: Option<Epoch>,
    /// Number of records bound.
    pub records: u64,
    /// Number of torn pieces that a claim discarded.
    pub cuts: u64,
    /// Bytes of those pieces.
    pub bytes_cut: u64,
    /// Bytes at the end that are not a whole frame: a write in progress, or an interrupted one.
    pub bytes_torn: u64,
    /// The last trimmed epoch.
    pub trimmed: Option<Epoch>,
    /// The chain hash after the last counted record.
    pub chain: Chain,
    /// The fold of all bindings.
    pub state: LedgerState,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = |epoch: Option<Epoch>| match epoch {
            Some(epoch) => format!("{epoch} ({})", epoch.opened_at()),
            None => "none".to_owned(),
        };
        writeln!(f, "app         {}", self.app)?;
        writeln!(f, "dataflow    {}", self.dataflow)?;
        writeln!(
            f,
            "size        {}, format {FORMAT_VERSION}",
            count(self.bytes, "byte")
        )?;
        writeln!(
            f,
            "generation  {}, {}, {} void",
            self.generation,
            count(self.claims, "claim"),
            self.claims_void
        )?;
        writeln!(
            f,
            "epochs      {}, {}, {} late",
            self.bindings,
            count(self.records, "record"),
            self.bindings_late
        )?;
        if self.trimmed.is_some() {
            writeln!(f, "trimmed     up to {}", epoch(self.trimmed))?;
        }
        writeln!(f, "first       {}", epoch(self.first))?;
        writeln!(f, "last        {}", epoch(self.last))?;
        for progress in self.state.progress() {
            writeln!(f, "sink        {}", progress_line(&progress))?;
        }
        let (cuts, bytes_cut) = (count(self.cuts, "piece"), count(self.bytes_cut, "byte"));
        writeln!(f, "cut         {cuts}, {bytes_cut}")?;
        writeln!(f, "unfinished  {} at the end", count(self.bytes_torn, "byte"))?;
        write!(f, "chain       {}", self.chain)
    }
}

/// Reads the whole ledger in `dir` and verifies every checksum, the hash chain, and the continuity of the
/// bindings.
///
/// # Errors
/// Those of [`Ledger::open`](crate::ledger::Ledger::open), for the first damage found.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    verify_on(&HostDisk, dir)
}

/// The application and dataflow of the ledger in `dir`.
///
/// # Errors
/// If there is none, or its header is damaged.
pub fn whose(dir: &Path) -> Result<(String, String)> {
    let (_, header, _) = open_file(&HostDisk, dir, false)?;
    Ok((header.app, header.dataflow))
}

/// Like [`verify`], on a given disk.
pub fn verify_on(disk: &dyn Disk, dir: &Path) -> Result<VerifyReport> {
    let (file, header, mut reader) = open_file(disk, dir, false)?;
    let mut report = VerifyReport {
        app: header.app,
        dataflow: header.dataflow,
        bytes: file.len().map_err(|error| cannot("read", dir, &error))?,
        claims: 0,
        claims_void: 0,
        generation: 0,
        bindings: 0,
        bindings_late: 0,
        first: None,
        last: None,
        records: 0,
        cuts: 0,
        bytes_cut: 0,
        bytes_torn: 0,
        trimmed: None,
        chain: reader.cursor.chain,
        state: LedgerState::default(),
    };
    while let Some(frame) = reader.next_frame()? {
        match &frame {
            Frame::Base(base) => report.trimmed = base.state.last(),
            Frame::Claim(_) => report.claims += 1,
            Frame::Void(_) => report.claims_void += 1,
            Frame::Late { bindings, .. } => report.bindings_late += *bindings as u64,
            Frame::Cut { bytes } => {
                (report.cuts, report.bytes_cut) = (report.cuts + 1, report.bytes_cut + bytes)
            }
            Frame::Group(GroupCommit { bindings, .. }) => {
                report.first = report
                    .first
                    .or(bindings.first().map(|(binding, _)| binding.epoch));
                report.records += bindings.iter().map(|(binding, _)| binding.records()).sum::<u64>();
            }
        }
        fold(&reader, &mut report.state, frame)?;
    }
    (report.generation, report.bindings) = (reader.cursor.generation, reader.cursor.bindings);
    (report.last, report.chain) = (reader.cursor.last, reader.cursor.chain);
    report.bytes_torn = reader.torn.unwrap_or(0);
    Ok(report)
}

/// The contents of the ledger in `dir`, without taking it over: the service may keep running.
///
/// # Errors
/// Those of [`Ledger::open`](crate::ledger::Ledger::open), except that another process may hold it.
pub fn look(dir: &Path, claim: &Claim) -> Result<Recovered> {
    let (_, header, mut reader) = open_file(&HostDisk, dir, false)?;
    same_dataflow(&dir.join(FILE_NAME), &header, claim)?;
    let mut state = LedgerState::default();
    let trimmed = fold_rest(&mut reader, &mut state)?;
    let (previous, end) = (reader.cursor.claim.clone(), reader.cursor.end);
    // The same file, even if a trimmed one replaces it meanwhile.
    let again = reader.again(end)?;
    Ok(Recovered {
        made_us: header.time_us,
        generation: reader.cursor.generation,
        nonce: previous.as_ref().map_or(0, |claim| claim.nonce),
        previous,
        last: state.last(),
        state,
        trimmed,
        bindings: Bindings::new(bindings_of(again)),
        notes: Vec::new(),
    })
}

/// The ledger in `dir` as lines of text: every claim, and the epochs within `epochs`.
///
/// ```text
/// claim  generation 1 (build 1.4.0, claimed 2026-11-23T03:00:00Z)  sources: payments
/// epoch  1795402800000000  2026-11-23T03:00:00Z  500 records
///          payments/3  [1200, 1700)  500 records  event time up to 2026-11-23T02:59:59.8Z
///          payments    watermark 2026-11-23T02:59:54.8Z
/// ```
pub fn show(dir: &Path, epochs: impl RangeBounds<Epoch>) -> Result<Show> {
    show_on(&HostDisk, dir, epochs)
}

/// Like [`show`], on a given disk.
pub fn show_on(disk: &dyn Disk, dir: &Path, epochs: impl RangeBounds<Epoch>) -> Result<Show> {
    let (_, header, reader) = open_file(disk, dir, false)?;
    let first = format!("ledger of app `{}`, dataflow `{}`", header.app, header.dataflow);
    let epochs = (epochs.start_bound().cloned(), epochs.end_bound().cloned());
    Ok(Show {
        reader: Some(reader),
        epochs,
        names: BTreeMap::new(),
        lines: VecDeque::from([first]),
    })
}

/// The lines of [`show`]; ends after an error.
pub struct Show {
    reader: Option<Reader>,
    epochs: (Bound<Epoch>, Bound<Epoch>),
    names: BTreeMap<SourceId, String>,
    lines: VecDeque<String>,
}

impl Iterator for Show {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            match self.reader.as_mut()?.next_frame() {
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => {
                    let torn = self.reader.take().and_then(|reader| reader.torn);
                    self.lines.extend(
                        torn.map(|bytes| format!("end    {} of an unfinished write", count(bytes, "byte"))),
                    );
                }
                Err(error) => {
                    self.reader = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Show {
    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Base(base) => {
                let last = base.state.last().unwrap_or_default();
                let line = format!(
                    "base   {} epochs up to {last} ({})",
                    base.bindings,
                    last.opened_at()
                );
                self.lines.push_back(line);
                self.claim(&base.claim);
                base.state
                    .progress()
                    .iter()
                    .for_each(|progress| self.progress(progress));
            }
            Frame::Claim(claim) => self.claim(&claim),
            Frame::Void(claim) => self.lines.push_back(format!("void   {}", claim.describe())),
            Frame::Group(group) => {
                group.progress.iter().for_each(|progress| self.progress(progress));
                group
                    .bindings
                    .iter()
                    .for_each(|(binding, _)| self.binding(binding));
            }
            Frame::Late { generation, bindings } => {
                self.lines.push_back(format!(
                    "late   {} of generation {generation}, not counted",
                    count(bindings as u64, "epoch")
                ));
            }
            Frame::Cut { bytes } => self
                .lines
                .push_back(format!("cut    {} of an interrupted write", count(bytes, "byte"))),
        }
    }

    fn claim(&mut self, claim: &ClaimRecord) {
        let sources = claim.claim.sources.iter();
        self.names
            .extend(sources.clone().map(|(id, name)| (*id, name.clone())));
        let names: Vec<_> = sources.map(|(_, name)| name.as_str()).collect();
        self.lines.push_back(format!(
            "claim  {}  sources: {}",
            claim.describe(),
            names.join(", ")
        ));
    }

    fn binding(&mut self, binding: &EpochBinding) {
        let EpochBinding { epoch, .. } = binding;
        if !self.epochs.contains(epoch) {
            return;
        }
        let records = count(binding.records(), "record");
        self.lines
            .push_back(format!("epoch  {epoch}  {}  {records}", epoch.opened_at()));
        for range in &binding.ranges {
            let line = range_line(&self.name(range.id.source), range);
            self.lines.push_back(line);
        }
        for (source, watermark) in &binding.watermarks {
            self.detail(*source, format_args!("watermark {watermark}"));
        }
        for (source, idle) in &binding.idle {
            let text = if *idle {
                "idle as a whole"
            } else {
                "no longer idle"
            };
            self.detail(*source, format_args!("{text}"));
        }
        for (source, topic) in &binding.topics {
            self.detail(*source, format_args!("topic id {topic:?}"));
        }
        for schema in &binding.schemas {
            let text = schema
                .fingerprint
                .map_or("unknown to the registry".to_owned(), |hash| {
                    format!("{hash:016x}")
                });
            let since = schema.since.map_or(String::new(), |(partition, offset)| {
                format!(", known in partition {partition} from offset {offset} on")
            });
            self.detail(schema.source, format_args!("schema {}: {text}{since}", schema.id));
        }
        for (of, hashes) in binding.results.iter().flat_map(|results| &results.epochs) {
            let hashes: Vec<String> = hashes.iter().map(|hash| format!("{hash:016x}")).collect();
            self.lines
                .push_back(format!("         epoch {of} came to {}", hashes.join(" ")));
        }
    }

    fn progress(&mut self, progress: &ShardProgress) {
        if self.epochs.contains(&progress.complete) {
            self.lines
                .push_back(format!("sink   {}", progress_line(progress)));
        }
    }

    fn detail(&mut self, source: SourceId, text: fmt::Arguments<'_>) {
        let line = format!("         {}  {text}", self.name(source));
        self.lines.push_back(line);
    }

    fn name(&self, source: SourceId) -> String {
        self.names
            .get(&source)
            .cloned()
            .unwrap_or_else(|| format!("source {:08x}", source.0))
    }
}

/// As `alerts/0 of 1  complete up to 1795402800000000  2026-11-23T03:00:00Z`.
fn progress_line(progress: &ShardProgress) -> String {
    let ShardProgress {
        sink,
        shard,
        of,
        complete,
        ..
    } = progress;
    format!(
        "{sink}/{shard} of {of}  complete up to {complete}  {}",
        complete.opened_at()
    )
}

fn range_line(source: &str, range: &PartitionRange) -> String {
    let PartitionRange {
        id,
        lo,
        hi,
        records,
        compacted,
        event_time_max,
        idle,
        ..
    } = range;
    let idle = if *idle { "  idle" } else { "" };
    let time = match *event_time_max {
        EventTime::MIN => String::new(),
        time => format!("  event time up to {time}"),
    };
    let records = match compacted {
        true => "of a compacted topic".to_owned(),
        false => count(*records, "record"),
    };
    format!(
        "         {source}/{}  [{lo}, {hi})  {records}{time}{idle}",
        id.partition
    )
}
