//! `POST /v1/query`: several reads at one epoch, all or nothing.
//!
//! ```text
//! {"after":{"payments":{"3":18231}}, "wait":"2s",
//!  "reads":{"spend":{"view":"merchant_spend","key":{"merchant":42},"window":"open"},       one row, by its key
//!           "top":  {"view":"merchant_spend","where":{"total.gt":1000},"order":"-total"}}}  rows, by conditions
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::http;
use crate::http::answer::{self, AnswerHead, Positions, Rows, TaggedBody, Time};
use crate::http::params::{self, AfterOffset, LIMIT_DEFAULT, LIMIT_MAX, refused};
use crate::http::problem::{Problem, ProblemKind};
use crate::http::read::{self, ReadAttempt};
use crate::http::shared::RequestContext;
use crate::http::snapshot::{self, SnapshotRequest};
use crate::position::Offset;
use crate::schema::Numbers;
use crate::time::span;
use crate::view::Snapshot;
use crate::view::parse::Members;
use crate::view::serve::{Filter, FoundRow, GivenValue, Op, RowQuery, RowsQuery, Serve};

/// The request body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    #[serde(default)]
    after: BTreeMap<String, BTreeMap<u32, Offset>>,
    as_of: Option<Box<RawValue>>,
    numbers: Option<String>,
    #[serde(default = "yes")]
    positions: bool,
    reads: BTreeMap<String, QueryRead>,
    wait: Option<String>,
}

fn yes() -> bool {
    true
}

/// One read of the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryRead {
    view: String,
    key: Option<Members<Box<RawValue>>>,
    limit: Option<Box<RawValue>>,
    order: Option<String>,
    #[serde(default, rename = "where")]
    conditions: Members<Box<RawValue>>,
    window: Option<String>,
}

/// A validated read.
struct PlannedRead {
    name: String,
    view: Arc<dyn Serve>,
    what: ReadKind,
    /// The number of rows requested. A read by key returns at most one row and a read without a limit few,
    /// and the number of reads is limited, so these are not counted.
    limit: usize,
}

enum ReadKind {
    Row(RowQuery),
    Rows(RowsQuery),
}

/// Executes a query.
pub(crate) async fn query(
    State(shared): State<Arc<RequestContext>>,
    body: Body,
) -> Result<TaggedBody, Problem> {
    let body = collect(&shared, body).await?;
    let query: QueryBody = serde_json::from_slice(&body).map_err(|error| {
        let hint =
            "`reads` maps a name to each read: `view` with `key`, or with `where`, `order` and `limit`";
        Problem::new(ProblemKind::Body, error.to_string()).hint(hint)
    })?;
    let reads_max = shared.settings.reads_max;
    if query.reads.is_empty() || query.reads.len() > reads_max {
        let expected = format!("an object of 1 to {reads_max} reads");
        return Err(refused(
            "reads",
            &expected,
            &format!("{} reads", query.reads.len()),
        ));
    }
    let as_of = query.as_of.as_deref().map(word);
    let as_of = as_of.as_deref().map(params::as_of).transpose()?;
    let wait = query.wait.as_deref().map(params::wait).transpose()?;
    let numbers = query
        .numbers
        .as_deref()
        .map(params::numbers)
        .transpose()?
        .unwrap_or_default();
    let after = after(query.after)?;
    let planned = query.reads.into_iter().map(|(name, read)| {
        let planned = plan(&shared, &name, read);
        planned.map_err(|problem| problem.member("read", &name))
    });
    let mut planned = planned.collect::<Result<Vec<_>, _>>()?;
    let limits: usize = planned.iter().map(|planned| planned.limit).sum();
    if limits > LIMIT_MAX {
        let asked = format!("{limits} in all");
        return Err(refused("limit", "at most 10000 over all reads together", &asked)
            .hint("reads with a key, or without `limit`, do not count"));
    }

    let wanted = SnapshotRequest {
        as_of,
        after: &after,
        cursor: None,
        wait,
    };
    let at = snapshot::find(&shared, wanted, None).await?;
    let state = shared.state.clone();
    let positions = query.positions;
    read::scan(&shared, move |attempt| {
        evaluate(&state, &mut planned, attempt, &at, numbers, positions)
    })
    .await
}

/// Reads a body within its limits.
async fn collect(shared: &RequestContext, body: Body) -> Result<bytes::Bytes, Problem> {
    let max = shared.settings.body_bytes_max;
    let too_large = || {
        Problem::new(
            ProblemKind::TooLarge,
            format!("the body is larger than {max} bytes"),
        )
        .member("bytes_max", max)
    };
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let collected = Limited::new(body, max).collect();
    match tokio::time::timeout(shared.settings.body_time_max, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_gone)) => Err(Problem::new(ProblemKind::Body, "the body is incomplete")),
        Err(_elapsed) => {
            let most = span(shared.settings.body_time_max);
            Err(Problem::new(
                ProblemKind::Slow,
                format!("the body did not arrive within {most}"),
            ))
        }
    }
}

fn after(given: BTreeMap<String, BTreeMap<u32, Offset>>) -> Result<Vec<AfterOffset>, Problem> {
    let mut after = Vec::new();
    for (source, partitions) in given {
        for (partition, offset) in partitions {
            if offset < 0 {
                return Err(refused("after", "an offset of 0 or more", &offset.to_string()));
            }
            after.push(AfterOffset {
                source: source.clone(),
                partition,
                offset,
            });
        }
    }
    Ok(after)
}

fn plan(shared: &RequestContext, name: &str, read: QueryRead) -> Result<PlannedRead, Problem> {
    let view = read::view(shared, &read.view)?;
    let window = read.window.as_deref().map(params::window).transpose()?;
    let asked = read.limit.as_deref().map(|limit| params::limit(&word(limit)));
    let asked = asked.transpose()?;
    let what = match read.key {
        Some(key) if read.conditions.0.is_empty() && read.order.is_none() && read.limit.is_none() => {
            let key = key
                .0
                .into_iter()
                .map(|(field, value)| (field, GivenValue::from(value)))
                .collect();
            ReadKind::Row(RowQuery { key, window })
        }
        Some(_) => {
            return Err(refused(
                "key",
                "given without `where`, `order` and `limit`",
                "both",
            ));
        }
        None => {
            let order = read
                .order
                .as_deref()
                .map(params::order)
                .transpose()?
                .unwrap_or_default();
            let filters = read
                .conditions
                .0
                .into_iter()
                .map(|(name, value)| filter(name, value))
                .collect();
            ReadKind::Rows(RowsQuery {
                filters,
                order,
                limit: asked.unwrap_or(LIMIT_DEFAULT),
                window,
                ..RowsQuery::default()
            })
        }
    };
    Ok(PlannedRead {
        name: name.to_owned(),
        view,
        what,
        limit: asked.unwrap_or(0),
    })
}

/// A control parameter's value as in a query string: the contents of a string, or a number with all of its
/// digits.
fn word(json: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json.get()),
    }
}

/// Parses a condition: `field`, or `field.ge` and the like.
fn filter(name: String, value: Box<RawValue>) -> Filter {
    let suffix = name
        .rsplit_once('.')
        .and_then(|(field, op)| Some((field.to_owned(), Op::by_name(op)?)));
    let (field, op) = suffix.unwrap_or((name, Op::Eq));
    Filter {
        field,
        op,
        value: GivenValue::from(value),
    }
}

/// The response: one result per read, by name.
#[derive(Serialize)]
struct QueryAnswer<'a> {
    #[serde(flatten)]
    at: AnswerHead,
    results: BTreeMap<&'a str, ReadResult<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<Positions<'a>>,
}

#[derive(Serialize)]
struct ReadResult<'a> {
    watermark: Time,
    #[serde(flatten)]
    rows: Rows<'a>,
}

fn evaluate(
    state: &http::ServerState,
    reads: &mut [PlannedRead],
    attempt: &mut ReadAttempt,
    at: &Snapshot,
    numbers: Numbers,
    positions: bool,
) -> Result<TaggedBody, Problem> {
    let mut found: Vec<(&PlannedRead, Vec<FoundRow>, Option<String>)> = Vec::with_capacity(reads.len());
    for read in reads.iter_mut() {
        let PlannedRead { name, view, what, .. } = read;
        let named = |problem: Problem| problem.member("read", name);
        let (rows, next) = match what {
            ReadKind::Row(query) => {
                let found = view.row(query, at);
                let found = found.map_err(|error| named(snapshot::read(error, Some(&**view))))?;
                (found.into_iter().collect(), None)
            }
            ReadKind::Rows(query) => {
                let page = attempt.page(&**view, query, at).map_err(named)?;
                (page.rows, page.next)
            }
        };
        found.push((read, rows, next));
    }
    let results = found.iter().map(|(read, rows, next)| {
        let result = ReadResult {
            watermark: Time(read.view.watermark(at)),
            rows: Rows {
                view: &*read.view,
                rows,
                next: next.as_deref(),
                numbers,
            },
        };
        (&*read.name, result)
    });
    let body = answer::bytes_of(&QueryAnswer {
        at: AnswerHead::of(at.epoch),
        results: results.collect(),
        positions: positions.then_some(Positions { state, at }),
    });
    Ok(TaggedBody { body, tag: None })
}
