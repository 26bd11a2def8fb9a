//! Metadata: views with their fields, and epochs with their contents.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::http::answer::{self, AnswerHead, Time, text};
use crate::http::problem::{Problem, ProblemKind};
use crate::http::read;
use crate::http::shared::{PathPart, RequestContext};
use crate::http::snapshot::{self, SnapshotRequest};
use crate::position::{EpochBinding, Offset, SourceId};
use crate::schema::types::Type;
use crate::schema::{Field, Numbers};
use crate::time::{Epoch, span};
use crate::view::serve::{ReadError, Serve};
use crate::view::{AsOf, Snapshot};

/// What there is.
#[derive(Serialize)]
struct ViewsAnswer<'a> {
    #[serde(flatten)]
    at: AnswerHead,
    views: Vec<ViewDescription<'a>>,
}

/// One view.
#[derive(Serialize)]
struct ViewAnswer<'a> {
    #[serde(flatten)]
    at: AnswerHead,
    #[serde(flatten)]
    view: ViewDescription<'a>,
}

#[derive(Serialize)]
struct ViewDescription<'a> {
    name: &'a str,
    description: &'a str,
    watermark: Time,
    key: Vec<FieldDescription<'a>>,
    value: Vec<FieldDescription<'a>>,
    windowed: bool,
    rows: usize,
    keep: Option<String>,
    history: String,
    changed: u64,
    as_of: Range<u64>,
}

#[derive(Serialize)]
struct Range<T> {
    oldest: T,
    newest: T,
}

/// A field's name, type, and its JSON form by default and with `numbers=string`, if they differ.
#[derive(Serialize)]
struct FieldDescription<'a> {
    name: &'a str,
    #[serde(rename = "type", serialize_with = "text")]
    ty: &'a Type,
    json: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_wide: Option<&'static str>,
}

impl<'a> FieldDescription<'a> {
    fn of(Field { name, ty }: &'a Field) -> Self {
        let (json, wide) = (ty.json(Numbers::Exact), ty.json(Numbers::Strings));
        Self {
            name,
            ty,
            json,
            json_wide: (wide != json).then_some(wide),
        }
    }
}

/// `GET /v1/views`
pub(crate) async fn views(State(shared): State<Arc<RequestContext>>) -> Result<Response, Problem> {
    let at = snapshot::find(&shared, SnapshotRequest::default(), None).await?;
    let views = shared.state.views.all();
    Ok(answer::json(ViewsAnswer {
        at: AnswerHead::of(at.epoch),
        views: views.iter().map(|view| describe(&shared, &**view, &at)).collect(),
    }))
}

/// `GET /v1/views/{name}`
pub(crate) async fn view(
    State(shared): State<Arc<RequestContext>>,
    PathPart(name): PathPart,
) -> Result<Response, Problem> {
    let view = read::view(&shared, &name)?;
    let at = snapshot::find(&shared, SnapshotRequest::default(), None).await?;
    Ok(answer::json(ViewAnswer {
        at: AnswerHead::of(at.epoch),
        view: describe(&shared, &*view, &at),
    }))
}

fn describe<'a>(shared: &RequestContext, view: &'a dyn Serve, at: &Snapshot) -> ViewDescription<'a> {
    let (spec, schema) = (view.spec(), view.schema());
    ViewDescription {
        name: &spec.name,
        description: &spec.description,
        watermark: Time(view.watermark(at)),
        key: schema.key.iter().map(FieldDescription::of).collect(),
        value: schema.value.iter().map(FieldDescription::of).collect(),
        windowed: spec.windows.is_some(),
        rows: match view.is_whole() {
            true => view.rows_len(),
            // Other processes are asked, which blocks.
            false => tokio::task::block_in_place(|| view.rows_count(at)),
        },
        keep: spec.keep.map(span),
        history: span(spec.history),
        changed: view.changed(at).0,
        as_of: Range {
            oldest: shared.state.views.oldest(view).unwrap_or(at.epoch).0,
            newest: at.epoch.0,
        },
    }
}

/// `GET /v1/epochs/{epoch}`
pub(crate) async fn epoch(
    State(shared): State<Arc<RequestContext>>,
    PathPart(text): PathPart,
) -> Result<Response, Problem> {
    let epoch = text.parse().map(Epoch).map_err(|_| {
        Problem::new(ProblemKind::EpochUnknown, format!("`{text}` is not an epoch"))
            .hint("an epoch is a whole number")
    })?;
    // An epoch bound before a restart becomes readable again; but it must not be newer than the newest one.
    let last_bound = (shared.state.recovery)().map_or(Epoch::ZERO, |recovering| recovering.last_bound);
    let newest = snapshot::newest(&shared, epoch.min(last_bound))?.epoch;
    if epoch > newest {
        let detail = format!("epoch {epoch} has not been closed; the newest is {newest}");
        return Err(Problem::new(ProblemKind::EpochUnknown, detail).member("newest", newest));
    }
    let remembered = match shared.state.views.snapshot(AsOf::Epoch(epoch)) {
        Ok(at) if at.epoch == epoch => return Ok(binding(&shared, &at.binding)),
        // There is no other epoch between two that are remembered.
        Ok(at) => Some(at.epoch),
        Err(_gone) => None,
    };
    let found = match (&shared.state.bindings, remembered) {
        (_, Some(_)) => None,
        (None, None) => return Err(gone(&shared, epoch)),
        (Some(bindings), None) => {
            let bindings = bindings.clone();
            read::blocking(&shared, &shared.scans, move || {
                bindings(epoch).map_err(Problem::internal)
            })
            .await?
        }
    };
    match found {
        Some(found) => Ok(binding(&shared, &found)),
        None => {
            let problem = Problem::new(ProblemKind::EpochUnknown, format!("there is no epoch {epoch}"));
            Err(match remembered {
                Some(before) => problem
                    .member("before", before)
                    .hint(format!("the nearest epoch before it is {before}")),
                None => problem,
            })
        }
    }
}

fn gone(shared: &RequestContext, epoch: Epoch) -> Problem {
    match shared.state.views.snapshot(AsOf::Epoch(epoch)) {
        Err(ReadError::Gone { oldest }) => Problem::new(
            ProblemKind::AsOfGone,
            format!("the contents of epoch {epoch} are no longer available; the oldest is {oldest}"),
        )
        .member("oldest", oldest),
        _ => Problem::new(
            ProblemKind::AsOfGone,
            format!("the contents of epoch {epoch} are no longer available"),
        ),
    }
}

/// The contents of an epoch: only what changed, as in the ledger.
#[derive(Serialize)]
struct EpochAnswer<'a> {
    #[serde(flatten)]
    at: AnswerHead,
    now: Time,
    records: u64,
    sources: BTreeMap<Cow<'a, str>, SourcePart>,
}

/// The part of an epoch from one source.
#[derive(Default, Serialize)]
struct SourcePart {
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<bool>,
    partitions: BTreeMap<u32, RangePart>,
}

/// The part of an epoch from one partition.
#[derive(Serialize)]
struct RangePart {
    lo: Offset,
    hi: Offset,
    records: u64,
    event_time_max: Time,
    idle: bool,
}

/// A binding with the names of sources.
fn binding(shared: &RequestContext, binding: &EpochBinding) -> Response {
    let names = shared.state.sources.iter();
    let names: BTreeMap<SourceId, &str> = names.map(|name| (SourceId::of(name), name.as_str())).collect();
    let named = |id: &SourceId| match names.get(id) {
        Some(name) => Cow::Borrowed(*name),
        None => Cow::Owned(format!("#{}", id.0)),
    };
    let mut sources: BTreeMap<Cow<'_, str>, SourcePart> = BTreeMap::new();
    for range in &binding.ranges {
        let part = RangePart {
            lo: range.lo,
            hi: range.hi,
            records: range.records,
            event_time_max: Time(range.event_time_max),
            idle: range.idle,
        };
        let source = sources.entry(named(&range.id.source)).or_default();
        source.partitions.insert(range.id.partition, part);
    }
    for (source, watermark) in &binding.watermarks {
        sources.entry(named(source)).or_default().watermark = Some(Time(*watermark));
    }
    for (source, idle) in &binding.idle {
        sources.entry(named(source)).or_default().idle = Some(*idle);
    }
    answer::json(EpochAnswer {
        at: AnswerHead::of(binding.epoch),
        now: Time(binding.now),
        records: binding.records(),
        sources,
    })
}
