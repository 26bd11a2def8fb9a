//! What there is: views with their fields, and epochs with what they contain.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::http::moment::{self, Wanted};
use crate::http::problem::{Kind, Problem};
use crate::http::shared::{PathPart, Shared};
use crate::http::{answer, json, read};
use crate::position::{EpochBinding, PartitionRange, SourceId};
use crate::schema::{Field, Numbers};
use crate::time::{Epoch, EventTime, span};
use crate::view::serve::{ReadError, Serve};
use crate::view::{AsOf, Moment};

/// `GET /v1/views`
pub(crate) async fn views(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let at = moment::find(&shared, Wanted::default(), None).await?;
    let mut out = Vec::with_capacity(4 << 10);
    out.push(b'{');
    json::moment(&mut out, at.epoch);
    out.extend_from_slice(b",\"views\":[");
    json::list(&mut out, shared.state.views.all(), |out, view| {
        out.push(b'{');
        describe(&shared, out, &*view, &at);
        out.push(b'}');
    });
    out.extend_from_slice(b"]}");
    Ok(answer::json(out))
}

/// `GET /v1/views/{name}`
pub(crate) async fn view(
    State(shared): State<Arc<Shared>>,
    PathPart(name): PathPart,
) -> Result<Response, Problem> {
    let view = read::view(&shared, &name)?;
    let at = moment::find(&shared, Wanted::default(), None).await?;
    let mut out = Vec::with_capacity(1 << 10);
    out.push(b'{');
    json::moment(&mut out, at.epoch);
    out.push(b',');
    describe(&shared, &mut out, &*view, &at);
    out.push(b'}');
    Ok(answer::json(out))
}

fn describe(shared: &Shared, out: &mut Vec<u8>, view: &dyn Serve, at: &Moment) {
    let (spec, schema) = (view.spec(), view.schema());
    out.extend_from_slice(b"\"name\":");
    json::string(out, &spec.name);
    out.extend_from_slice(b",\"description\":");
    json::string(out, &spec.description);
    out.extend_from_slice(b",\"watermark\":");
    json::time(out, view.watermark(at));
    out.extend_from_slice(b",\"key\":[");
    json::list(out, &schema.key, field);
    out.extend_from_slice(b"],\"value\":[");
    json::list(out, &schema.value, field);
    out.extend_from_slice(b"],\"windowed\":");
    out.extend_from_slice(if spec.windows.is_some() { b"true" } else { b"false" });
    out.extend_from_slice(b",\"rows\":");
    json::number(out, view.rows_len());
    out.extend_from_slice(b",\"keep\":");
    match spec.keep {
        Some(keep) => json::quoted(out, span(keep)),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"history\":");
    json::quoted(out, span(spec.history));
    out.extend_from_slice(b",\"changed\":");
    json::number(out, view.changed(at));
    out.extend_from_slice(b",\"as_of\":{\"oldest\":");
    json::number(out, shared.state.views.oldest(view).unwrap_or(at.epoch));
    out.extend_from_slice(b",\"newest\":");
    json::number(out, at.epoch);
    out.push(b'}');
}

/// A field's name, type, and its JSON form by default and with `numbers=string`, where the two differ.
fn field(out: &mut Vec<u8>, field: &Field) {
    let (exact, strings) = (field.ty.json(Numbers::Exact), field.ty.json(Numbers::Strings));
    out.extend_from_slice(b"{\"name\":");
    json::string(out, &field.name);
    out.extend_from_slice(b",\"type\":");
    json::quoted(out, &field.ty);
    out.extend_from_slice(b",\"json\":");
    json::string(out, exact);
    if strings != exact {
        out.extend_from_slice(b",\"json_wide\":");
        json::string(out, strings);
    }
    out.push(b'}');
}

/// `GET /v1/epochs/{epoch}`
pub(crate) async fn epoch(
    State(shared): State<Arc<Shared>>,
    PathPart(text): PathPart,
) -> Result<Response, Problem> {
    let epoch = text.parse().map(Epoch).map_err(|_| {
        Problem::new(Kind::EpochUnknown, format!("`{text}` is not an epoch"))
            .hint("an epoch is a whole number")
    })?;
    // One that was bound before a restart is closed again; the newest has to be no newer than that.
    let last_bound = (shared.state.recovery)().map_or(Epoch::ZERO, |recovering| recovering.last_bound);
    let newest = moment::newest(&shared, epoch.min(last_bound))?.epoch;
    if epoch > newest {
        let detail = format!("epoch {epoch} has not been closed; the newest is {newest}");
        return Err(Problem::new(Kind::EpochUnknown, detail).number("newest", newest));
    }
    let remembered = match shared.state.views.moment(AsOf::Epoch(epoch)) {
        Ok(at) if at.epoch == epoch => return Ok(binding(&shared, &at.binding)),
        // Between two that are remembered there is no other.
        Ok(at) => Some(at.epoch),
        Err(_gone) => None,
    };
    let found = match (&shared.state.bindings, remembered) {
        (_, Some(_)) => None,
        (None, None) => return Err(gone(&shared, epoch)),
        (Some(bindings), None) => {
            let bindings = bindings.clone();
            read::blocking(&shared, move || bindings(epoch).map_err(Problem::internal)).await?
        }
    };
    match found {
        Some(found) => Ok(binding(&shared, &found)),
        None => {
            let problem = Problem::new(Kind::EpochUnknown, format!("no epoch has the number {epoch}"));
            Err(match remembered {
                Some(before) => problem
                    .number("before", before)
                    .hint(format!("{before} is the nearest one before it")),
                None => problem,
            })
        }
    }
}

fn gone(shared: &Shared, epoch: Epoch) -> Problem {
    match shared.state.views.moment(AsOf::Epoch(epoch)) {
        Err(ReadError::Gone { oldest }) => Problem::new(
            Kind::AsOfGone,
            format!("what epoch {epoch} contains is no longer known; the oldest is {oldest}"),
        )
        .number("oldest", oldest),
        _ => Problem::new(
            Kind::AsOfGone,
            format!("what epoch {epoch} contains is no longer known"),
        ),
    }
}

/// What of one source is in an epoch.
#[derive(Default)]
struct Part<'a> {
    watermark: Option<EventTime>,
    idle: Option<bool>,
    ranges: Vec<&'a PartitionRange>,
}

/// A binding as JSON, by names of sources. It names only what changed, as the ledger does.
fn binding(shared: &Shared, binding: &EpochBinding) -> Response {
    let names: BTreeMap<SourceId, &str> = shared
        .state
        .sources
        .iter()
        .map(|name| (SourceId::of(name), name.as_str()))
        .collect();
    let named = |id: SourceId| {
        names
            .get(&id)
            .map_or_else(|| format!("#{}", id.0), |name| (*name).to_owned())
    };
    let mut parts: BTreeMap<String, Part<'_>> = BTreeMap::new();
    for range in &binding.ranges {
        parts
            .entry(named(range.id.source))
            .or_default()
            .ranges
            .push(range);
    }
    for (source, watermark) in &binding.watermarks {
        parts.entry(named(*source)).or_default().watermark = Some(*watermark);
    }
    for (source, idle) in &binding.idle {
        parts.entry(named(*source)).or_default().idle = Some(*idle);
    }

    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    json::moment(&mut out, binding.epoch);
    out.extend_from_slice(b",\"now\":");
    json::time(&mut out, binding.now);
    out.extend_from_slice(b",\"records\":");
    json::number(&mut out, binding.records());
    out.extend_from_slice(b",\"sources\":{");
    json::list(&mut out, parts, |out, (name, part)| {
        json::string(out, &name);
        out.extend_from_slice(b":{");
        if let Some(watermark) = part.watermark {
            out.extend_from_slice(b"\"watermark\":");
            json::time(out, watermark);
            out.push(b',');
        }
        if let Some(idle) = part.idle {
            out.extend_from_slice(if idle {
                b"\"idle\":true,"
            } else {
                b"\"idle\":false,"
            });
        }
        out.extend_from_slice(b"\"partitions\":{");
        json::list(out, part.ranges, range);
        out.extend_from_slice(b"}}");
    });
    out.extend_from_slice(b"}}");
    answer::json(out)
}

fn range(out: &mut Vec<u8>, range: &PartitionRange) {
    json::quoted(out, range.id.partition);
    out.extend_from_slice(b":{\"lo\":");
    json::number(out, range.lo);
    out.extend_from_slice(b",\"hi\":");
    json::number(out, range.hi);
    out.extend_from_slice(b",\"records\":");
    json::number(out, range.records);
    out.extend_from_slice(b",\"event_time_max\":");
    json::time(out, range.event_time_max);
    out.extend_from_slice(b",\"idle\":");
    out.extend_from_slice(if range.idle { b"true" } else { b"false" });
    out.push(b'}');
}
