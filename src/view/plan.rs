//! Turns a query into a plan of the scan that answers it.
//!
//! ```text
//!  country=CH  city.ge=Bern  total.gt=5   order=city
//!  └─ fixed ─┘ └─ range ──┘  └ filter ┘   ── the key is (country, city, id)
//!
//!  keys:   … (CH,Basel,9) │(CH,Bern,0)  (CH,Chur,4)  (CH,Zug,1)│ (DE,…
//!             before      ▲ seek          inside               ▲ stop          both are bytes: keys are encoded in order
//! ```

use std::ops::Bound;
use std::time::Instant;

use crate::clock;
use crate::schema::column;
use crate::schema::datum::Datum;
use crate::schema::encode::Form;
use crate::schema::types::Type;
use crate::schema::{Field, RowSchema, json};
use crate::suggest::nearest;
use crate::time::{self, EventTime, WindowLayout};
use crate::view::parse;
use crate::view::serve::{Filter, Op, PageCursor, ReadError, RowsQuery, WindowPick};

/// A filter with its value parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldCondition {
    /// The index of the field in the row.
    pub at: usize,
    /// The comparison.
    pub op: Op,
    /// The value to compare with.
    pub value: Datum,
    /// For a field that may be any JSON: its data are compared as they are displayed.
    shown: Option<Datum>,
}

impl FieldCondition {
    /// A comparison with a field of known type.
    pub(super) fn new(at: usize, op: Op, value: Datum) -> Self {
        Self {
            at,
            op,
            value,
            shown: None,
        }
    }

    /// Equality with a value of the field's type.
    pub(super) fn equal(at: usize, field: &Field, value: Datum) -> Self {
        let shown = (field.ty == Type::Json).then(|| json::as_shown(&value));
        Self {
            shown,
            ..Self::new(at, Op::Eq, value)
        }
    }

    fn holds(&self, datum: &Datum) -> bool {
        if let Some(shown) = &self.shown {
            return (json::as_shown(datum) == *shown) == (self.op == Op::Eq);
        }
        let ordering = datum.cmp(&self.value);
        match self.op {
            Op::Eq => ordering.is_eq(),
            Op::Ne => ordering.is_ne(),
            Op::Lt => ordering.is_lt(),
            Op::Le => ordering.is_le(),
            Op::Gt => ordering.is_gt(),
            Op::Ge => ordering.is_ge(),
            Op::Prefix => begins(datum, &self.value),
        }
    }
}

fn begins(datum: &Datum, prefix: &Datum) -> bool {
    matches!((datum, prefix), (Datum::Text(text), Datum::Text(prefix)) if text.starts_with(prefix.as_str()))
}

/// The order in which rows are scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanDirection {
    /// In the order of keys, page by page.
    Forward,
    /// In reverse key order.
    Backward,
    /// All matches are read once, and the first ones in the requested order kept: one more than fits into a
    /// page.
    Sort,
}

/// A query, understood.
#[derive(Clone, Debug)]
pub(super) struct ScanPlan {
    /// All must match.
    pub conditions: Vec<FieldCondition>,
    /// The key's fields that are fixed by equality.
    pub fixed: Vec<Option<Datum>>,
    /// The smallest encoded key that may match, and the exclusive end.
    pub range: KeyRange,
    /// Fields to order by, and whether each is descending.
    pub order: Vec<(usize, bool)>,
    /// Whether ties are broken in reverse key order.
    pub ties_descending: bool,
    /// The order of the scan.
    pub walk: ScanDirection,
    /// For each key, only the newest window whose end is at or below this.
    pub newest_until: Option<EventTime>,
    /// Nothing can match.
    pub nothing: bool,
    /// Number of rows per page.
    pub limit: usize,
    /// Maximum number of rows to scan.
    pub scanned_max: usize,
    /// The deadline of the scan.
    until: Option<Instant>,
    /// The end of the previous page.
    pub cursor: Option<PageCursor>,
    /// Identifies the query.
    pub query: u64,
}

/// Why a scan stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// It has scanned the maximum number of rows.
    Rows,
    /// It has reached its deadline.
    Time,
}

/// Rows between two checks of the clock: a fraction of a millisecond.
const ROWS_A_LOOK: usize = 256;

/// A half-open range of encoded keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyRange {
    /// The first key; empty: from the start.
    pub start: Vec<u8>,
    /// The exclusive end; `None`: to the end.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// The keys that begin with these bytes.
    fn of_prefix(prefix: Vec<u8>) -> Self {
        Self {
            end: after(prefix.clone()),
            start: prefix,
        }
    }

    /// The bound at which a scan starts.
    pub(super) fn near(&self, reverse: bool) -> Bound<&[u8]> {
        match (reverse, &self.end) {
            (false, _) if self.start.is_empty() => Bound::Unbounded,
            (false, _) => Bound::Included(&self.start),
            (true, Some(end)) => Bound::Excluded(end),
            (true, None) => Bound::Unbounded,
        }
    }

    /// Whether a scan has passed its end.
    pub(super) fn is_past(&self, key: &[u8], reverse: bool) -> bool {
        match (reverse, &self.end) {
            (false, Some(end)) => key >= end.as_slice(),
            (false, None) => false,
            (true, _) => key < self.start.as_slice(),
        }
    }

    fn narrow(&mut self, other: KeyRange) {
        if other.start > self.start {
            self.start = other.start;
        }
        self.end = match (self.end.take(), other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// The smallest bytes above all that begin with `prefix`; `None` if there are none.
fn after(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

/// What planning needs to know about the view.
#[derive(Clone, Copy)]
pub(super) struct ViewFacts<'a> {
    /// The fields and their encoding.
    pub schema: &'a RowSchema,
    /// The window layout.
    pub windows: Option<WindowLayout>,
    /// The view's watermark at the snapshot read.
    pub watermark: EventTime,
}

impl ScanPlan {
    /// Plans a query.
    pub(super) fn new(of: ViewFacts<'_>, query: &RowsQuery) -> Result<Self, ReadError> {
        let mut conditions = Vec::new();
        for filter in &query.filters {
            conditions.push(condition(of.schema, filter)?);
        }
        let mut order = Vec::new();
        for by in &query.order {
            let (at, _) = field(of.schema.fields(), &by.field)?;
            order.push((at, by.descending));
        }
        let cursor = query.cursor.as_deref().map(PageCursor::parse).transpose()?;
        // What a page must have in common with the previous one.
        let asked = (&query.filters, &query.order, query.window);
        let asked = serde_json::to_vec(&asked).map_err(|error| ReadError::Cursor {
            why: format!("the query can't be told from others: {error}"),
        })?;
        let mut plan = Self::of_conditions(of, conditions, order);
        plan.query = xxhash_rust::xxh3::xxh3_64(&asked);
        plan.limit = query.limit.max(1);
        plan.scanned_max = query.scanned_max;
        plan.until = query.until;
        plan.cursor = cursor;
        if let Some(pick) = query.window {
            plan.pick(of, pick)?;
        }
        plan.arrange(of.schema);
        Ok(plan)
    }

    /// A plan for one row, from parsed conditions.
    pub(super) fn first(
        of: ViewFacts<'_>,
        conditions: Vec<FieldCondition>,
        order: Vec<(usize, bool)>,
    ) -> Self {
        let mut plan = Self::of_conditions(of, conditions, order);
        plan.arrange(of.schema);
        plan
    }

    fn of_conditions(of: ViewFacts<'_>, conditions: Vec<FieldCondition>, order: Vec<(usize, bool)>) -> Self {
        Self {
            conditions,
            fixed: vec![None; of.schema.key.len()],
            range: KeyRange::default(),
            ties_descending: order.last().is_some_and(|(_, descending)| *descending),
            order,
            walk: ScanDirection::Sort,
            newest_until: None,
            nothing: false,
            limit: 1,
            scanned_max: usize::MAX,
            until: None,
            cursor: None,
            query: 0,
        }
    }

    fn pick(&mut self, of: ViewFacts<'_>, pick: WindowPick) -> Result<(), ReadError> {
        let (start, end) = window_fields(of.schema)?;
        let mut also = |at, op, time| {
            self.conditions
                .push(FieldCondition::new(at, op, Datum::Time(time)))
        };
        match pick {
            WindowPick::Start(time) => also(start, Op::Eq, time),
            WindowPick::Open => also(end, Op::Gt, of.watermark),
            WindowPick::LastClosed => match (of.windows, last_closed(of.windows, of.watermark)) {
                (_, Some((first, last))) => {
                    also(start, Op::Eq, first);
                    also(end, Op::Eq, last);
                }
                (Some(WindowLayout::Aligned { .. }), None) => self.nothing = true,
                _ => self.newest_until = Some(of.watermark),
            },
        }
        Ok(())
    }

    /// Determines the bounds of the scan, and whether key order is the requested order.
    fn arrange(&mut self, schema: &RowSchema) {
        for condition in self.conditions.iter().filter(|condition| condition.op == Op::Eq) {
            let field = schema.key.get(condition.at);
            if field.is_some_and(|field| has_many_forms(&field.ty, &condition.value)) {
                continue;
            }
            if let Some(fixed) = self.fixed.get_mut(condition.at) {
                *fixed = Some(condition.value.clone());
            }
        }
        self.range = self.range(schema);
        self.walk = self.walk();
    }

    /// The range of keys allowed by the leading fixed fields and the conditions on the next one.
    fn range(&self, schema: &RowSchema) -> KeyRange {
        // Selecting each key's newest window precedes conditions on windows, so these cannot bound the scan.
        let usable = match self.newest_until {
            Some(_) => self.fixed.len() - 2,
            None => self.fixed.len(),
        };
        let mut prefix = Vec::new();
        for (at, field) in schema.key.iter().enumerate().take(usable) {
            let begun = prefix.len();
            let fixed = self.fixed[at].as_ref();
            if fixed.and_then(|value| column::write(&field.ty, Form::Ordered, value, &mut prefix)) == Some(())
            {
                continue;
            }
            prefix.truncate(begun);
            let mut range = KeyRange::of_prefix(prefix.clone());
            for condition in self.conditions.iter().filter(|condition| condition.at == at) {
                if let Some(bounded) = bounded(condition, &field.ty, prefix.clone()) {
                    range.narrow(bounded);
                }
            }
            return range;
        }
        KeyRange::of_prefix(prefix)
    }

    /// Whether the order of the rows depends on more than their keys.
    pub(super) fn is_sorted(&self) -> bool {
        self.walk == ScanDirection::Sort
    }

    fn walk(&self) -> ScanDirection {
        if self.newest_until.is_some() {
            return ScanDirection::Sort;
        }
        if self.order.is_empty() {
            return ScanDirection::Forward;
        }
        let descending = self.order[0].1;
        let mut keys = (0..self.fixed.len()).filter(|at| self.fixed[*at].is_none());
        for (at, by_descending) in &self.order {
            if self.fixed.get(*at).is_some_and(Option::is_some) {
                continue;
            }
            match keys.next() {
                // The whole key is ordered: further fields make no difference.
                None => break,
                Some(next) if next == *at && *by_descending == descending => {}
                Some(_) => return ScanDirection::Sort,
            }
        }
        match (descending, self.ties_descending) {
            (false, false) => ScanDirection::Forward,
            (true, true) => ScanDirection::Backward,
            _ => ScanDirection::Sort,
        }
    }

    /// Whether every row must be scanned, because nothing bounds the leading part of the key.
    pub(super) fn looks_at_all(&self) -> bool {
        self.walk == ScanDirection::Sort && !self.nothing && self.range == KeyRange::default()
    }

    /// Whether to stop the scan. Reads the clock only now and then.
    pub(super) fn enough(&self, scanned: usize) -> Option<StopReason> {
        if scanned >= self.scanned_max {
            return Some(StopReason::Rows);
        }
        let due =
            scanned.is_multiple_of(ROWS_A_LOOK) && self.until.is_some_and(|until| clock::instant() >= until);
        due.then_some(StopReason::Time)
    }

    /// The error for a scan that exceeds its limit; with the view's size if that is known beforehand.
    pub(super) fn too_much(&self, rows: Option<usize>) -> ReadError {
        ReadError::TooMuch {
            scanned_max: self.scanned_max,
            rows,
            hint: "order by the key, fix its first fields by equality, or bound the next one".into(),
        }
    }

    /// Whether a row matches: decodes the columns that conditions name.
    pub(super) fn holds(&self, mut column: impl FnMut(usize) -> Option<Datum>) -> bool {
        let mut holds =
            |condition: &FieldCondition| column(condition.at).is_some_and(|datum| condition.holds(&datum));
        self.conditions.iter().all(&mut holds)
    }
}

/// The range of keys allowed by a condition on one field, where the fields before it are `prefix`. Keys
/// distinguish signed zeros, and NaNs; conditions do not.
fn bounded(condition: &FieldCondition, ty: &Type, prefix: Vec<u8>) -> Option<KeyRange> {
    let FieldCondition { op, value, .. } = condition;
    let written = |value: &Datum| {
        let mut bytes = prefix.clone();
        column::write(ty, Form::Ordered, value, &mut bytes).map(|()| bytes)
    };
    let (least, greatest, op) = match (op, value) {
        (Op::Ne, _) => return None,
        (Op::Prefix, Datum::Text(text)) => {
            let mut bytes = prefix;
            column::write_prefix(ty, text, &mut bytes)?;
            return Some(KeyRange::of_prefix(bytes));
        }
        (Op::Prefix, _) => return None,
        (op, Datum::Float(float)) if *float == 0.0 => {
            (written(&Datum::Float(-0.0))?, written(&Datum::Float(0.0))?, *op)
        }
        (Op::Eq | Op::Ge, Datum::Float(float)) if float.is_nan() => {
            let infinity = written(&Datum::Float(f64::INFINITY))?;
            (infinity.clone(), infinity, Op::Gt)
        }
        (_, value) if has_many_forms(ty, value) => return None,
        (op, value) => {
            let bytes = written(value)?;
            (bytes.clone(), bytes, *op)
        }
    };
    Some(match op {
        Op::Lt => KeyRange {
            start: Vec::new(),
            end: Some(least),
        },
        Op::Le => KeyRange {
            start: Vec::new(),
            end: after(greatest),
        },
        Op::Ge => KeyRange {
            start: least,
            end: None,
        },
        // Nothing is greater than the greatest.
        Op::Gt => KeyRange {
            start: after(greatest)?,
            end: None,
        },
        _ => KeyRange {
            start: least,
            end: after(greatest),
        },
    })
}

/// Whether different keys display as this value: zeros and NaNs, nulls at different depths, and data whose
/// type was unknown when they were encoded.
pub(super) fn has_many_forms(ty: &Type, value: &Datum) -> bool {
    match (ty, value) {
        (_, Datum::Float(float)) => *float == 0.0 || float.is_nan(),
        (Type::Option(inner) | Type::Default(inner), Datum::Null) => {
            matches!(
                **inner,
                Type::Option(_) | Type::Default(_) | Type::Unit | Type::Json
            )
        }
        (Type::Option(inner) | Type::Default(inner), value) => has_many_forms(inner, value),
        (Type::List(inner), Datum::List(items)) => items.iter().any(|item| has_many_forms(inner, item)),
        (Type::Tuple(types), Datum::List(items)) => {
            types.iter().zip(items).any(|(ty, item)| has_many_forms(ty, item))
        }
        (Type::Struct(fields), Datum::Struct(members)) => fields
            .iter()
            .zip(members)
            .any(|((_, ty), (_, member))| has_many_forms(ty, member)),
        (Type::Map(key, value), Datum::Map(entries)) => entries
            .iter()
            .any(|(own_key, own)| has_many_forms(key, own_key) || has_many_forms(value, own)),
        (Type::Enum(variants), Datum::Variant(index, _, Some(content))) => {
            let ty = variants
                .get(*index as usize)
                .and_then(|variant| variant.content.as_ref());
            ty.is_none_or(|ty| has_many_forms(ty, content))
        }
        (ty, _) => *ty == Type::Json,
    }
}

/// The newest window whose end is at or below the watermark, for aligned windows.
pub(super) fn last_closed(
    windows: Option<WindowLayout>,
    watermark: EventTime,
) -> Option<(EventTime, EventTime)> {
    let Some(WindowLayout::Aligned { size, every, offset }) = windows else {
        return None;
    };
    let [size, every, offset] = [size, every, offset].map(|duration| i128::from(time::micros(duration)));
    if watermark == EventTime::MIN || every <= 0 {
        return None;
    }
    let start = (i128::from(watermark.micros()) - size - offset).div_euclid(every) * every + offset;
    let time = |micros: i128| i64::try_from(micros).ok().map(EventTime);
    Some((time(start)?, time(start + size)?))
}

/// The column indices of a windowed view's window.
pub(super) fn window_fields(schema: &RowSchema) -> Result<(usize, usize), ReadError> {
    if !schema.is_windowed() {
        return Err(ReadError::Window {
            why: "the view has no windows".into(),
        });
    }
    let keys = schema.key.len();
    Ok((keys - 2, keys - 1))
}

/// Finds a field by name.
pub(super) fn field<'a>(
    fields: impl Iterator<Item = &'a Field> + Clone,
    name: &str,
) -> Result<(usize, &'a Field), ReadError> {
    fields
        .clone()
        .enumerate()
        .find(|(_, field)| field.name == name)
        .ok_or_else(|| {
            let known: Vec<String> = fields.map(|field| field.name.clone()).collect();
            ReadError::FieldUnknown {
                field: name.into(),
                nearest: nearest(name, &known).cloned(),
                known,
            }
        })
}

fn condition(schema: &RowSchema, filter: &Filter) -> Result<FieldCondition, ReadError> {
    let (at, field) = field(schema.fields(), &filter.field)?;
    let refused = |why: &str| ReadError::Filter {
        field: field.name.clone(),
        why: why.into(),
    };
    let text = matches!(&field.ty, Type::Text)
        || matches!(&field.ty, Type::Option(inner) | Type::Default(inner) if **inner == Type::Text);
    if filter.op == Op::Prefix && !text {
        return Err(refused(&format!(
            "`prefix` is for text, and this is of type {}",
            field.ty
        )));
    }
    let value = parse::datum(field, &filter.value)?;
    if matches!(field.ty, Type::Json) && filter.op != Op::Eq && filter.op != Op::Ne {
        return Err(refused(
            "its type has no known order; only `eq` and `ne` are possible",
        ));
    }
    Ok(FieldCondition {
        op: filter.op,
        ..FieldCondition::equal(at, field, value)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn last_closed_window_is_aligned() {
        let aligned = |size, every, offset| {
            let [size, every, offset] = [size, every, offset].map(Duration::from_micros);
            Some(WindowLayout::Aligned { size, every, offset })
        };
        let closed = |windows, at| last_closed(windows, EventTime(at)).map(|(a, b)| (a.0, b.0));
        assert_eq!(closed(aligned(60, 60, 0), 120), Some((60, 120)));
        assert_eq!(closed(aligned(60, 60, 0), 119), Some((0, 60)));
        assert_eq!(closed(aligned(60, 20, 5), 119), Some((45, 105)));
        assert_eq!(closed(aligned(60, 60, 0), -1), Some((-120, -60)));
        assert_eq!(closed(aligned(60, 60, 0), i64::MIN), None);
        assert_eq!(closed(Some(WindowLayout::PerKey), 120), None);
    }
}
