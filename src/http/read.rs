//! Reads of one view: a row by its key, rows in pages.
//!
//! A lookup is served on the thread that received the request, without a hand-off. So is a short scan; a
//! longer one is restarted on one of a few threads for large scans, so that lookups are never delayed. A scan
//! holds a lock for some dozens of rows at a time, so writers do not wait for it either; and it stops by
//! itself at a deadline, so that its slot is free by the time its client has given up.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::clock;
use crate::http::answer::{self, AnswerHead, Positions, Rows, TaggedBody, Time};
use crate::http::params::{LIMIT_DEFAULT, Params};
use crate::http::problem::{Problem, ProblemKind, too_long};
use crate::http::shared::{PathPart, RequestContext};
use crate::http::snapshot::{self, SnapshotRequest};
use crate::suggest::nearest;
use crate::view::Snapshot;
use crate::view::serve::{Filter, GivenValue, Op, Page, ReadError, RowQuery, RowsQuery, Serve};

/// Rows that a scan may read before it moves to its own thread: a fraction of a millisecond.
const SCANNED_INLINE_MAX: usize = 1_000;

/// The response for one row.
#[derive(Serialize)]
struct RowAnswer<'a, R> {
    #[serde(flatten)]
    at: AnswerHead,
    watermark: Time,
    row: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<Positions<'a>>,
}

/// The response for a page.
#[derive(Serialize)]
struct RowsAnswer<'a> {
    #[serde(flatten)]
    at: AnswerHead,
    watermark: Time,
    #[serde(flatten)]
    rows: Rows<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<Positions<'a>>,
}

/// `GET /v1/views/{name}/row`
pub(crate) async fn row(
    State(shared): State<Arc<RequestContext>>,
    PathPart(name): PathPart,
    RawQuery(query): RawQuery,
) -> Result<TaggedBody, Problem> {
    let view = view(&shared, &name)?;
    let params = Params::read(query.as_deref().unwrap_or_default())?;
    let misplaced = [
        ("cursor", params.cursor.is_some()),
        ("limit", params.limit.is_some()),
        ("order", !params.order.is_empty()),
    ];
    if let Some((word, _)) = misplaced.into_iter().find(|(_, given)| *given) {
        return Err(Problem::new(
            ProblemKind::Parameter,
            format!("`{word}` does not apply to a single row"),
        )
        .member("parameter", word)
        .hint(format!(
            "read /v1/views/{name}/rows, or write key.{word} for a field of that name"
        )));
    }
    let at = snapshot::find(&shared, SnapshotRequest::by(&params), Some(&*view)).await?;
    let mut key = Vec::with_capacity(params.conditions.len());
    for condition in params.conditions {
        if condition.op != Op::Eq {
            return Err(Problem::new(
                ProblemKind::Filter,
                "a row is looked up by the exact values of its key",
            )
            .member("field", &condition.field)
            .hint(format!("read /v1/views/{name}/rows with conditions")));
        }
        key.push((
            condition.field.into_owned(),
            GivenValue::Text(condition.value.into_owned()),
        ));
    }
    let query = RowQuery {
        key,
        window: params.window,
    };
    let failed = |error| snapshot::read(error, Some(&*view));
    let mut found = guarded(|| view.local_row(&query, &at).map_err(failed))?;
    if found.is_none() && !view.is_whole() {
        let (view, at) = (view.clone(), at.clone());
        let ask = move || {
            view.row(&query, &at)
                .map_err(|error| snapshot::read(error, Some(&*view)))
        };
        found = blocking(&shared, &shared.gathers, ask).await?;
    }
    let found = found.ok_or_else(|| absent(&name, &at))?;
    guarded(|| {
        let body = answer::bytes_of(&RowAnswer {
            at: AnswerHead::of(at.epoch),
            watermark: Time(view.watermark(&at)),
            row: view.schema().object(&found.row, params.numbers),
            closed: found.closed,
            positions: (!params.positions_left_out).then_some(Positions {
                state: &shared.state,
                at: &at,
            }),
        });
        let tag = answer::row_tag(&*view, &found);
        Ok(TaggedBody { body, tag })
    })
}

fn absent(name: &str, at: &Snapshot) -> Problem {
    Problem::new(
        ProblemKind::RowAbsent,
        format!("view `{name}` has no row with this key at epoch {}", at.epoch),
    )
    .member("epoch", at.epoch)
}

/// `GET /v1/views/{name}/rows`
pub(crate) async fn rows(
    State(shared): State<Arc<RequestContext>>,
    PathPart(name): PathPart,
    RawQuery(query): RawQuery,
) -> Result<TaggedBody, Problem> {
    let view = view(&shared, &name)?;
    let params = Params::read(query.as_deref().unwrap_or_default())?;
    let at = snapshot::find(&shared, SnapshotRequest::by(&params), Some(&*view)).await?;
    let filters = params.conditions.into_iter().map(|condition| Filter {
        field: condition.field.into_owned(),
        op: condition.op,
        value: GivenValue::Text(condition.value.into_owned()),
    });
    let mut query = RowsQuery {
        filters: filters.collect(),
        order: params.order,
        limit: params.limit.unwrap_or(LIMIT_DEFAULT),
        window: params.window,
        cursor: params.cursor.map(String::from),
        ..RowsQuery::default()
    };
    let (state, numbers) = (shared.state.clone(), params.numbers);
    let positions_left_out = params.positions_left_out;
    scan(&shared, move |attempt| {
        let page = attempt.page(&*view, &mut query, &at)?;
        let body = answer::bytes_of(&RowsAnswer {
            at: AnswerHead::of(at.epoch),
            watermark: Time(view.watermark(&at)),
            rows: Rows {
                view: &*view,
                rows: &page.rows,
                next: page.next.as_deref(),
                numbers,
            },
            positions: (!positions_left_out).then_some(Positions {
                state: &state,
                at: &at,
            }),
        });
        let tag = answer::rows_tag(&*view, &at);
        Ok(TaggedBody { body, tag })
    })
    .await
}

/// The view with this name.
pub(crate) fn view(shared: &RequestContext, name: &str) -> Result<Arc<dyn Serve>, Problem> {
    let state = &shared.state;
    state.views.get(name).ok_or_else(|| {
        let mut names = state.view_names.iter().map(String::as_str);
        if names.any(|planned| planned == name) {
            let detail = format!("`{name}` is not available yet: the dataflow is being built");
            return Problem::new(ProblemKind::NotYet, detail).retry_after(1);
        }
        let problem = Problem::new(ProblemKind::ViewUnknown, format!("no view is named `{name}`"));
        match nearest(name, state.view_names.iter().map(String::as_str)) {
            Some(near) => problem
                .member("nearest", near)
                .hint(format!("did you mean `{near}`?")),
            None => problem.hint("GET /v1/views lists all views"),
        }
    })
}

/// An attempt at a read, and its limits.
#[derive(Clone, Copy)]
pub(crate) struct ReadAttempt {
    scanned_max: usize,
    until: Option<Instant>,
    /// What an attempt with a higher limit would scan; `None` if this is the last one.
    then_max: Option<usize>,
    /// Whether that would give a better result.
    again: bool,
}

impl ReadAttempt {
    /// Reads a page.
    pub(crate) fn page(
        &mut self,
        view: &dyn Serve,
        query: &mut RowsQuery,
        at: &Snapshot,
    ) -> Result<Page, Problem> {
        (query.scanned_max, query.until) = (self.scanned_max, self.until);
        let mut page = view.rows(query, at);
        if let Some(then_max) = self.then_max {
            self.again |= match &mut page {
                Ok(page) => page.cut_short,
                Err(ReadError::TooMuch {
                    rows, scanned_max, ..
                }) => {
                    *scanned_max = then_max;
                    rows.is_none_or(|rows| rows <= then_max)
                }
                Err(_) => false,
            };
        }
        page.map_err(|error| snapshot::read(error, Some(view)))
    }
}

/// Runs `read` with a limit on scanned rows: first a low one on this thread, and if that is not enough, the
/// configured one on a thread for large scans.
pub(crate) async fn scan<F>(shared: &RequestContext, mut read: F) -> Result<TaggedBody, Problem>
where
    F: FnMut(&mut ReadAttempt) -> Result<TaggedBody, Problem> + Send + 'static,
{
    let settings = &shared.settings;
    let scanned_max = settings.scanned_rows_max;
    let mut first = ReadAttempt {
        scanned_max: scanned_max.min(SCANNED_INLINE_MAX),
        until: None,
        then_max: (scanned_max > SCANNED_INLINE_MAX).then_some(scanned_max),
        again: false,
    };
    // In a cluster, every read asks other processes.
    if !shared.state.views.is_spread() {
        let done = guarded(|| read(&mut first));
        if !first.again {
            return done;
        }
    }
    let mut last = ReadAttempt {
        scanned_max,
        // A page that is cut short should still be returned in time.
        until: clock::instant().checked_add(settings.scan_time_max.mul_f32(0.9)),
        then_max: None,
        again: false,
    };
    let slots = match shared.state.views.is_spread() {
        true => &shared.gathers,
        false => &shared.scans,
    };
    blocking(shared, slots, move || read(&mut last)).await
}

/// Runs `work` on a thread where it may take long. Slots are limited, and so is the time to wait for one.
pub(crate) async fn blocking<T, F>(
    shared: &RequestContext,
    slots: &Arc<Semaphore>,
    work: F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Problem> + Send + 'static,
{
    let slots = slots.clone();
    let turn = async move {
        let place = slots.acquire_owned().await.map_err(Problem::internal)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work ends, not until the client gives up.
            let _place = place;
            guarded(work)
        });
        done.await.map_err(Problem::internal)?
    };
    match tokio::time::timeout(shared.settings.scan_time_max, turn).await {
        Ok(done) => done,
        Err(_elapsed) => Err(too_long()),
    }
}

/// Turns a panic into an opaque error: one bad read must not close the connection without a response.
fn guarded<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    // The closures only read, or drop, what they capture: no partial change is visible afterwards.
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(_panic) => Err(Problem::internal("a read panicked")),
    }
}
