//! Resolves `as_of`, `after`, `wait` and a cursor to the snapshot that a request is read at.
//!
//! ```text
//!  cursor           ─▶ exactly its epoch
//!  as_of            ─▶ the newest closed epoch up to it
//!  after (+ wait)   ─▶ the newest closed epoch, once it holds the records at these offsets
//!  none of them     ─▶ the newest closed epoch
//! ```
//!
//! The newest closed epoch is not served until it has reached where it was when the process started.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::count;
use crate::http::params::{AfterOffset, Params, refused};
use crate::http::problem::{Problem, ProblemKind, too_long};
use crate::http::shared::RequestContext;
use crate::position::{Offset, PartitionId, SourceId};
use crate::runtime::progress::RecoveryProgress;
use crate::suggest::nearest;
use crate::time::{Epoch, span};
use crate::view::serve::{ReadError, Serve, cursor_epoch};
use crate::view::{AsOf, Snapshot};

/// The snapshot that a request asks for.
#[derive(Debug, Default)]
pub(crate) struct SnapshotRequest<'a> {
    pub as_of: Option<AsOf>,
    pub after: &'a [AfterOffset],
    pub cursor: Option<&'a str>,
    pub wait: Option<Duration>,
}

impl<'a> SnapshotRequest<'a> {
    pub(crate) fn by(params: &'a Params<'_>) -> Self {
        Self {
            as_of: params.as_of,
            after: &params.after,
            cursor: params.cursor.as_deref(),
            wait: params.wait,
        }
    }
}

/// Resolves the snapshot, waiting for it if requested.
///
/// `view` is the view to be read, if it is a single one, for error messages.
pub(crate) async fn find(
    shared: &RequestContext,
    wanted: SnapshotRequest<'_>,
    view: Option<&dyn Serve>,
) -> Result<Arc<Snapshot>, Problem> {
    let views = &shared.state.views;
    let cursor = wanted.cursor.map(cursor_epoch).transpose();
    let cursor = cursor.map_err(|error| read(error, view))?;
    // The cursor was issued for a snapshot that satisfied `as_of` and `after`, so they may be repeated with
    // it.
    let (as_of, after) = match cursor {
        Some(epoch) => (Some(AsOf::Epoch(epoch)), &[][..]),
        None => (wanted.as_of, wanted.after),
    };
    if as_of.is_some() && !after.is_empty() {
        return Err(refused("after", "given without `as_of`", "both")
            .hint("`after` reads the newest epoch, `as_of` a past one"));
    }
    if wanted.wait.is_some_and(|wait| wait > shared.settings.wait_max) {
        let most = format!("at most {}", span(shared.settings.wait_max));
        return Err(refused("wait", &most, &span(wanted.wait.unwrap_or_default())));
    }
    let acknowledged = resolve(shared, after)?;
    let least = least(shared, as_of, cursor.is_some());
    let enough = |at: &Snapshot| at.epoch >= least && at.reached(&acknowledged);
    let newest = match views.closed().filter(|at| enough(at)) {
        Some(newest) => newest,
        None => {
            let waited = match wanted.wait {
                Some(wait) => tokio::time::timeout(wait, views.wait(enough)).await.ok(),
                None => None,
            };
            waited.ok_or_else(|| not_yet(shared, &wanted, least, &acknowledged))?
        }
    };
    let at = match as_of {
        None => return Ok(newest),
        Some(as_of) => views.snapshot(as_of).map_err(|error| read(error, view))?,
    };
    match cursor {
        Some(epoch) if at.epoch != epoch => Err(Problem::new(
            ProblemKind::Cursor,
            format!("the cursor belongs to epoch {epoch}, which this process does not have"),
        )
        .hint("restart without the cursor")),
        _ => Ok(at),
    }
}

/// The newest closed snapshot, if it is not older than `least`.
pub(crate) fn newest(shared: &RequestContext, least: Epoch) -> Result<Arc<Snapshot>, Problem> {
    let newest = shared.state.views.closed().filter(|at| at.epoch >= least);
    newest.ok_or_else(|| not_yet(shared, &SnapshotRequest::default(), least, &[]))
}

/// The epoch that must be closed before a response. While a restart recovers earlier bindings, the newest
/// closed epoch is older than what was already served, and the newest epoch up to a time may not be closed
/// again.
fn least(shared: &RequestContext, as_of: Option<AsOf>, of_cursor: bool) -> Epoch {
    let last_bound = (shared.state.recovery)().map_or(Epoch::ZERO, |recovering| recovering.last_bound);
    let newest = match shared.settings.stale_reads {
        true => Epoch::ZERO,
        false => last_bound,
    };
    match as_of {
        None => newest,
        // Issued before the restart; or by another process, in which case it never becomes available.
        Some(AsOf::Epoch(epoch)) if of_cursor => epoch.min(last_bound),
        // It may be ahead: another process served the previous request.
        Some(AsOf::Epoch(epoch)) => epoch,
        Some(AsOf::Time(time)) => newest.min(Epoch::opened_by(time)),
    }
}

/// Resolves names of sources to ids.
fn resolve(shared: &RequestContext, after: &[AfterOffset]) -> Result<Vec<(PartitionId, Offset)>, Problem> {
    let one = |asked: &AfterOffset| {
        let partition = known(shared, asked)?;
        Ok((partition, asked.offset))
    };
    after.iter().map(one).collect()
}

/// The requested partition, if it exists.
fn known(shared: &RequestContext, asked: &AfterOffset) -> Result<PartitionId, Problem> {
    let (
        sources,
        AfterOffset {
            source, partition, ..
        },
    ) = (&shared.state.sources, asked);
    if !sources.contains(source) {
        let problem = Problem::new(
            ProblemKind::SourceUnknown,
            format!("no source is named `{source}`"),
        );
        return Err(match nearest(source, sources.iter().map(String::as_str)) {
            Some(name) => problem
                .member("nearest", name)
                .hint(format!("did you mean `{name}`?")),
            None => problem.hint(format!("there are {}", sources.join(", "))),
        });
    }
    match (shared.state.partitions)(source) {
        Some(there) if !there.contains(partition) => {
            let last = there.len().saturating_sub(1);
            let listed = match there.iter().copied().eq((0..).take(there.len())) {
                true if last > 1 => format!("0 to {last}"),
                _ => there.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
            };
            let detail = format!("`{source}` has no partition {partition}");
            Err(Problem::new(ProblemKind::PartitionUnknown, detail)
                .member("partitions", &there)
                .hint(format!(
                    "it has {listed}; a partition that was just added appears within seconds"
                )))
        }
        _ => Ok(PartitionId {
            source: SourceId::of(source),
            partition: *partition,
        }),
    }
}

fn not_yet(
    shared: &RequestContext,
    wanted: &SnapshotRequest<'_>,
    least: Epoch,
    acknowledged: &[(PartitionId, Offset)],
) -> Problem {
    let newest = shared.state.views.closed();
    let recovering = (shared.state.recovery)().filter(|recovering| recovering.closed < Some(least));
    let next = |id: PartitionId| newest.as_ref().and_then(|at| at.position(id));
    let missing: Vec<_> = std::iter::zip(wanted.after, acknowledged)
        .map(|(after, (id, asked))| MissingOffset {
            source: &after.source,
            partition: after.partition,
            asked: *asked,
            next: next(*id),
        })
        .filter(|missing| missing.next.is_none_or(|next| next <= missing.asked))
        .collect();
    let detail = match (&newest, &recovering) {
        (_, Some(recovering)) => recovery(recovering),
        (None, None) => "no epoch has been closed yet".to_owned(),
        (Some(newest), None) if newest.epoch < least => {
            format!(
                "epoch {least} has not been closed; the newest is {}",
                newest.epoch
            )
        }
        (Some(newest), None) => format!(
            "the views at epoch {} do not include {} of {}",
            newest.epoch,
            missing.len(),
            count(acknowledged.len() as u64, "offset")
        ),
    };
    let mut problem = Problem::new(ProblemKind::NotYet, detail).retry_after(1);
    if let Some(newest) = &newest {
        problem = problem.member("epoch", newest.epoch);
    }
    if let Some(recovering) = &recovering {
        problem = problem
            .member("last_bound", recovering.last_bound)
            .member("records_left", &recovering.left);
    }
    if !missing.is_empty() {
        problem = problem.member("partitions", &missing);
    }
    match wanted.wait {
        None => problem.hint("add `wait`, as in wait=2s, to wait for it"),
        Some(_) => problem.hint("retry, or wait longer"),
    }
}

/// The progress of the recovery, as text.
fn recovery(recovering: &RecoveryProgress) -> String {
    let RecoveryProgress {
        closed,
        last_bound,
        left,
    } = recovering;
    let at = closed.map_or_else(|| "its begin".into(), |epoch| epoch.opened_at().to_string());
    let left: u64 = left.values().flatten().sum();
    format!(
        "recovering the state from before the restart: at {at} of {}, {} left",
        last_bound.opened_at(),
        count(left, "record")
    )
}

/// The position of a partition that is not far enough.
#[derive(Serialize)]
struct MissingOffset<'a> {
    source: &'a str,
    partition: u32,
    /// The requested offset.
    asked: Offset,
    /// The next offset; `None` if nothing has been read yet.
    next: Option<Offset>,
}

/// Converts a view's error into a problem.
pub(crate) fn read(error: ReadError, view: Option<&dyn Serve>) -> Problem {
    let detail = error.to_string();
    match error {
        ReadError::NotYet => Problem::new(ProblemKind::NotYet, detail).retry_after(1),
        ReadError::Gone { oldest } => {
            let detail = match view {
                Some(view) => {
                    let (name, history) = (&view.spec().name, span(view.spec().history));
                    format!("`{name}` keeps versions for {history}; its oldest epoch is {oldest}")
                }
                None => format!("the oldest epoch that any view keeps is {oldest}"),
            };
            let problem = Problem::new(ProblemKind::AsOfGone, detail).member("oldest", oldest);
            problem.hint("raise the view's history, or read without `as_of`")
        }
        ReadError::FieldUnknown {
            field,
            nearest,
            known,
        } => {
            let problem = Problem::new(ProblemKind::FieldUnknown, detail).member("field", &field);
            match nearest {
                Some(nearest) => problem
                    .member("nearest", &nearest)
                    .hint(format!("did you mean `{nearest}`?")),
                None => problem.hint(format!("there are {}", known.join(", "))),
            }
        }
        ReadError::KeyMissing { field } => {
            let problem = Problem::new(ProblemKind::KeyMissing, detail).member("field", &field);
            let windowed = view.is_some_and(|view| view.spec().windows.is_some());
            match windowed && ["window_start", "window_end"].contains(&field.as_str()) {
                true => problem.hint(
                    "say which window: `window=open`, `window=last_closed`, or `window=` and the time at \
                        which it starts",
                ),
                false => problem,
            }
        }
        ReadError::KeyTwice { field } => Problem::new(ProblemKind::KeyTwice, detail).member("field", &field),
        ReadError::KeyType { field, expected, got } => Problem::new(ProblemKind::KeyType, detail)
            .member("field", &field)
            .member("expected", &expected)
            .member("got", &got),
        ReadError::Filter { field, .. } => Problem::new(ProblemKind::Filter, detail).member("field", &field),
        ReadError::Window { .. } => Problem::new(ProblemKind::Window, detail),
        ReadError::Cursor { .. } => Problem::new(ProblemKind::Cursor, detail)
            .hint("restart without the cursor; keep all other parameters"),
        ReadError::TooMuch {
            scanned_max,
            rows,
            hint,
        } => {
            let problem = Problem::new(ProblemKind::TooMuch, detail).member("scanned_max", scanned_max);
            let problem = rows
                .into_iter()
                .fold(problem, |problem, rows| problem.member("rows", rows));
            problem.hint(format!("{hint}; `http.scanned_rows_max` is the bound"))
        }
        ReadError::TooLong => too_long(),
        ReadError::Elsewhere => Problem::new(ProblemKind::PeerAway, detail).retry_after(1),
    }
}
