//! From a query as it was put to a plan of the scan that answers it.
//!
//! ```text
//!  country=CH  city.ge=Bern  total.gt=5   order=city
//!  └─ fixed ─┘ └─ range ──┘  └ filter ┘   ── the key is (country, city, id)
//!
//!  keys:   … (CH,Basel,9) │(CH,Bern,0)  (CH,Chur,4)  (CH,Zug,1)│ (DE,…
//!             before      ▲ seek          inside               ▲ stop
//! ```

use std::cmp::Ordering;
use std::time::Instant;

use crate::clock;
use crate::time::{self, EventTime};
use crate::view::datum::Datum;
use crate::view::layout::Layout;
use crate::view::schema::{Field, Type};
use crate::view::serve::{Cursor, Filter, Op, ReadError, RowsQuery, WindowPick};
use crate::view::{Windows, parse};

/// A filter with its value read.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Place in the row.
    pub at: usize,
    /// The comparison.
    pub op: Op,
    /// With what.
    pub value: Datum,
}

impl Condition {
    fn holds(&self, row: &[Datum]) -> bool {
        let Some(datum) = row.get(self.at) else {
            return false;
        };
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

/// How the rows are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// In the order of keys, page by page.
    Forward,
    /// Against it.
    Backward,
    /// All that match are looked at once, and the first ones in order are kept: one more than a page has.
    Sort,
}

/// A query, understood.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The key's fields that are fixed by equality.
    pub fixed: Vec<Option<Datum>>,
    /// How many leading fields of the key bound the scan.
    leading: usize,
    /// Fields and whether they are descending.
    pub order: Vec<(usize, bool)>,
    /// Whether ties are broken against the order of keys.
    pub ties_descending: bool,
    /// How the rows are walked.
    pub walk: Walk,
    /// Of each key only the newest window whose end is at or below this.
    pub newest_until: Option<EventTime>,
    /// Nothing can match.
    pub nothing: bool,
    /// Rows in a page.
    pub limit: usize,
    /// Rows to look at.
    pub scanned_max: usize,
    /// When to have done with looking.
    until: Option<Instant>,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// Tells queries apart.
    pub query: u64,
}

/// Why no more rows are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// As many as may be.
    Rows,
    /// For as long as may be.
    Time,
}

/// So many rows are looked at between two looks at the clock: a fraction of a millisecond.
const ROWS_A_LOOK: usize = 256;

/// What a plan looks at in each row: the rest is made of those rows alone that are in the answer.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// Whether at fields of the key.
    pub key: bool,
    /// Whether at fields of the value.
    pub value: bool,
}

/// What a plan needs to know of its view.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// Fields and order.
    pub layout: &'a Layout,
    /// Where windows lie.
    pub windows: Option<Windows>,
    /// The view's watermark at the moment read.
    pub watermark: EventTime,
}

impl Plan {
    /// Understands a query.
    pub fn new(of: Of<'_>, query: &RowsQuery) -> Result<Self, ReadError> {
        let mut conditions = Vec::new();
        for filter in &query.filters {
            conditions.push(condition(of.layout, filter)?);
        }
        let mut order = Vec::new();
        for by in &query.order {
            let (at, _) = field(of.layout.schema.fields(), &by.field)?;
            order.push((at, by.descending));
        }
        let cursor = query.cursor.as_deref().map(Cursor::parse).transpose()?;
        // What a page must share with the one before; `Debug` of plain data is as good as any form here.
        let asked = format!("{:?}{:?}{:?}", query.filters, query.order, query.window);
        let mut plan = Self::of_conditions(of, conditions, order);
        plan.query = xxhash_rust::xxh3::xxh3_64(asked.as_bytes());
        plan.limit = query.limit.max(1);
        plan.scanned_max = query.scanned_max;
        plan.until = query.until;
        plan.cursor = cursor;
        if let Some(pick) = query.window {
            plan.pick(of, pick)?;
        }
        plan.arrange(of.layout);
        Ok(plan)
    }

    /// A plan for one row by conditions that are understood already.
    pub fn first(of: Of<'_>, conditions: Vec<Condition>, order: Vec<(usize, bool)>) -> Self {
        let mut plan = Self::of_conditions(of, conditions, order);
        plan.arrange(of.layout);
        plan
    }

    fn of_conditions(of: Of<'_>, conditions: Vec<Condition>, order: Vec<(usize, bool)>) -> Self {
        Self {
            conditions,
            fixed: vec![None; of.layout.schema.key.len()],
            leading: 0,
            ties_descending: order.last().is_some_and(|(_, descending)| *descending),
            order,
            walk: Walk::Sort,
            newest_until: None,
            nothing: false,
            limit: 1,
            scanned_max: usize::MAX,
            until: None,
            cursor: None,
            query: 0,
        }
    }

    fn pick(&mut self, of: Of<'_>, pick: WindowPick) -> Result<(), ReadError> {
        let (start, end) = window_fields(of.layout)?;
        let mut also = |at, op, time| {
            self.conditions.push(Condition {
                at,
                op,
                value: Datum::Time(time),
            })
        };
        match pick {
            WindowPick::Start(time) => also(start, Op::Eq, time),
            WindowPick::Open => also(end, Op::Gt, of.watermark),
            WindowPick::LastClosed => match (of.windows, last_closed(of.windows, of.watermark)) {
                (_, Some((first, last))) => {
                    also(start, Op::Eq, first);
                    also(end, Op::Eq, last);
                }
                (Some(Windows::Aligned { .. }), None) => self.nothing = true,
                _ => self.newest_until = Some(of.watermark),
            },
        }
        Ok(())
    }

    /// Finds what bounds the scan, and whether keys come in the order asked for.
    fn arrange(&mut self, layout: &Layout) {
        for condition in self.conditions.iter().filter(|condition| condition.op == Op::Eq) {
            if let Some(fixed) = self.fixed.get_mut(condition.at) {
                *fixed = Some(condition.value.clone());
            }
        }
        let keys = self.fixed.len();
        if layout.ordered_by_field {
            // A pick of each key's newest window comes before conditions on windows, so these can't bound it.
            let usable = if self.newest_until.is_some() {
                keys - 2
            } else {
                keys
            };
            let fixed = self.fixed.iter().take_while(|fixed| fixed.is_some()).count();
            self.leading = (fixed + 1).min(usable);
        }
        self.walk = self.walk(layout);
    }

    fn walk(&self, layout: &Layout) -> Walk {
        if self.newest_until.is_some() {
            return Walk::Sort;
        }
        if self.order.is_empty() {
            return Walk::Forward;
        }
        if !layout.ordered_by_field {
            return Walk::Sort;
        }
        let descending = self.order[0].1;
        let mut keys = (0..self.fixed.len()).filter(|at| self.fixed[*at].is_none());
        for (at, by_descending) in &self.order {
            if self.fixed.get(*at).is_some_and(Option::is_some) {
                continue;
            }
            match keys.next() {
                // The whole key is ordered by; more makes no difference.
                None => break,
                Some(next) if next == *at && *by_descending == descending => {}
                Some(_) => return Walk::Sort,
            }
        }
        match (descending, self.ties_descending) {
            (false, false) => Walk::Forward,
            (true, true) if !self.ends_in_prefix() => Walk::Backward,
            _ => Walk::Sort,
        }
    }

    /// Whether every row has to be looked at, as nothing bounds the part of the key's order that can hold an answer.
    pub fn looks_at_all(&self) -> bool {
        self.walk == Walk::Sort && !self.nothing && self.bound(false).is_none() && self.bound(true).is_none()
    }

    /// Whether enough rows were looked at, or for long enough. The clock is read now and then alone.
    pub fn enough(&self, scanned: usize) -> Option<Enough> {
        if scanned >= self.scanned_max {
            return Some(Enough::Rows);
        }
        let due =
            scanned.is_multiple_of(ROWS_A_LOOK) && self.until.is_some_and(|until| clock::instant() >= until);
        due.then_some(Enough::Time)
    }

    /// The refusal where more rows would be looked at than may be; of the whole view, where that is known beforehand.
    pub fn too_much(&self, rows: Option<usize>) -> ReadError {
        ReadError::TooMuch {
            scanned_max: self.scanned_max,
            rows,
            hint: "order by the key, fix its first fields by equality, or bound the next one".into(),
        }
    }

    /// What has to be known of a row before it is known whether it is in the answer.
    pub fn looks(&self, keys: usize) -> Looks {
        let conditions = self.conditions.iter().map(|condition| condition.at);
        let fields: Vec<usize> = conditions.chain(self.order.iter().map(|(at, _)| *at)).collect();
        Looks {
            key: self.newest_until.is_some() || fields.iter().any(|at| *at < keys),
            value: fields.iter().any(|at| *at >= keys),
        }
    }

    /// Whether a row is in the answer.
    pub fn holds(&self, row: &[Datum]) -> bool {
        self.conditions.iter().all(|condition| condition.holds(row))
    }

    /// Where a key lies: before, inside or beyond the bounded part of the key's order.
    pub fn side(&self, key: &[Datum]) -> Ordering {
        for (at, datum) in key.iter().enumerate().take(self.leading) {
            if let Some(fixed) = &self.fixed[at] {
                match datum.cmp(fixed) {
                    Ordering::Equal => continue,
                    other => return other,
                }
            }
            let ranged = self.conditions.iter().filter(|condition| condition.at == at);
            for Condition { op, value, .. } in ranged {
                let ordering = datum.cmp(value);
                let out = match op {
                    Op::Lt => ordering.is_ge(),
                    Op::Le => ordering.is_gt(),
                    Op::Gt => ordering.is_le(),
                    Op::Ge => ordering.is_lt(),
                    Op::Prefix => !begins(datum, value),
                    Op::Eq | Op::Ne => false,
                };
                if out {
                    return match op {
                        Op::Lt | Op::Le => Ordering::Greater,
                        Op::Gt | Op::Ge => Ordering::Less,
                        _ => ordering,
                    };
                }
            }
        }
        Ordering::Equal
    }

    /// The fields of the least (or greatest) key inside; `None` where nothing bounds that end.
    pub fn bound(&self, greatest: bool) -> Option<Vec<Option<Datum>>> {
        let mut fields = vec![None; self.fixed.len()];
        let mut any = false;
        for (at, field) in fields.iter_mut().enumerate().take(self.leading) {
            *field = self.fixed[at].clone().or_else(|| {
                let bounding = self.conditions.iter().filter(|condition| {
                    condition.at == at
                        && match condition.op {
                            Op::Lt | Op::Le => greatest,
                            Op::Gt | Op::Ge | Op::Prefix => !greatest,
                            Op::Eq | Op::Ne => false,
                        }
                });
                let values = bounding.map(|condition| &condition.value);
                if greatest { values.min() } else { values.max() }.cloned()
            });
            any |= field.is_some();
        }
        any.then_some(fields)
    }

    /// Whether the far end of the range is bounded by a prefix: there is no greatest text to begin a backward walk at.
    fn ends_in_prefix(&self) -> bool {
        let last = self.leading.saturating_sub(1);
        self.conditions
            .iter()
            .any(|condition| condition.at == last && condition.op == Op::Prefix)
    }
}

/// The newest window whose end is at or below the watermark, where windows are aligned.
pub fn last_closed(windows: Option<Windows>, watermark: EventTime) -> Option<(EventTime, EventTime)> {
    let Some(Windows::Aligned { size, every, offset }) = windows else {
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

/// The places of a windowed view's window in its rows.
pub fn window_fields(layout: &Layout) -> Result<(usize, usize), ReadError> {
    if !layout.key.shape.is_windowed() {
        return Err(ReadError::Window {
            why: "the view has no windows".into(),
        });
    }
    let keys = layout.schema.key.len();
    Ok((keys - 2, keys - 1))
}

/// Finds a field by name.
pub fn field<'a>(
    fields: impl Iterator<Item = &'a Field> + Clone,
    name: &str,
) -> Result<(usize, &'a Field), ReadError> {
    fields
        .clone()
        .enumerate()
        .find(|(_, field)| field.name == name)
        .ok_or_else(|| {
            let known: Vec<String> = fields.map(|field| field.name.clone()).collect();
            let near = known
                .iter()
                .map(|other| (strsim::jaro_winkler(other, name), other));
            let nearest = near
                .filter(|(score, _)| *score > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            ReadError::FieldUnknown {
                field: name.into(),
                nearest: nearest.map(|(_, name)| name.clone()),
                known,
            }
        })
}

fn condition(layout: &Layout, filter: &Filter) -> Result<Condition, ReadError> {
    let (at, field) = field(layout.schema.fields(), &filter.field)?;
    let refused = |why: &str| ReadError::Filter {
        field: field.name.clone(),
        why: why.into(),
    };
    let text =
        matches!(&field.ty, Type::Text) || matches!(&field.ty, Type::Option(inner) if **inner == Type::Text);
    if filter.op == Op::Prefix && !text {
        return Err(refused(&format!(
            "`prefix` is for text, and this is of type {}",
            field.ty
        )));
    }
    let value = parse::datum(field, &filter.value)?;
    if matches!(field.ty, Type::Json) && filter.op != Op::Eq && filter.op != Op::Ne {
        return Err(refused(
            "its type has no order that is known; only `eq` and `ne` are possible",
        ));
    }
    Ok(Condition {
        at,
        op: filter.op,
        value,
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
            Some(Windows::Aligned { size, every, offset })
        };
        let closed = |windows, at| last_closed(windows, EventTime(at)).map(|(a, b)| (a.0, b.0));
        assert_eq!(closed(aligned(60, 60, 0), 120), Some((60, 120)));
        assert_eq!(closed(aligned(60, 60, 0), 119), Some((0, 60)));
        assert_eq!(closed(aligned(60, 20, 5), 119), Some((45, 105)));
        assert_eq!(closed(aligned(60, 60, 0), -1), Some((-120, -60)));
        assert_eq!(closed(aligned(60, 60, 0), i64::MIN), None);
        assert_eq!(closed(Some(Windows::PerKey), 120), None);
    }
}
