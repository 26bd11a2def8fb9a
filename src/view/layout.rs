//! How a view's typed keys and values become rows: names from the spec, types from tracing, and whether the typed
//! order of keys is the order of their fields.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::record::Record;
use crate::time::EventTime;
use crate::view::ViewSpec;
use crate::view::build::{Fill, build};
use crate::view::datum::Datum;
use crate::view::flatten::datum;
use crate::view::schema::{Field, Shape, Type, ViewSchema};
use crate::view::trace::{Traced, trace};

/// The layout of a view's rows.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Names and types.
    pub schema: ViewSchema,
    /// How a key falls into fields.
    pub key: Form,
    /// How a value does.
    pub value: Form,
    /// Whether keys are ordered field by field, as far as samples show: then a scan can start at a key built from its
    /// first fields. False for a hand-written `Ord` that differs, for fields that hold structs, and where a type
    /// writes its values in another order than it compares them (an IP address as text).
    pub ordered_by_field: bool,
}

/// How a type's datum falls into fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its shape.
    pub shape: Shape,
    /// The struct's own names.
    names: Vec<&'static str>,
}

impl Layout {
    /// The layout for these types.
    ///
    /// # Errors
    /// When names don't fit the types, or two fields have one name.
    pub fn of<K: Record, V: Record>(spec: &ViewSpec) -> Result<Self> {
        let (key, key_fields) = fields(spec, "key", &spec.key, trace::<K>(), true)?;
        let (value, value_fields) = fields(spec, "value", &spec.value, trace::<V>(), false)?;
        let schema = ViewSchema {
            key: key_fields,
            value: value_fields,
        };
        let mut seen = std::collections::BTreeMap::new();
        let parts = schema
            .key
            .iter()
            .map(|field| ("key", field))
            .chain(schema.value.iter().map(|field| ("value", field)));
        for (part, field) in parts {
            if let Some(other) = seen.insert(field.name.as_str(), part) {
                return Err(Error::definition(format!(
                    "view `{}` has two fields named `{}`",
                    spec.name, field.name
                ))
                .detail(format!("one is in the {other}, one in the {part}"))
                .hint(
                    "rows are flat: rename one, or leave it out of the value with a `map` before the view",
                ));
            }
        }
        let mut layout = Self {
            schema,
            key,
            value,
            ordered_by_field: false,
        };
        layout.ordered_by_field = layout.samples_agree::<K>();
        Ok(layout)
    }

    /// The key's fields.
    pub fn key_row<K: Record>(&self, key: &K) -> Vec<Datum> {
        let mut row = Vec::with_capacity(self.schema.key.len() + self.schema.value.len());
        self.key.shape.spread(datum(key), &self.key.names, &mut row);
        row
    }

    /// Adds the value's fields to the key's.
    pub fn add_value<V: Record>(&self, value: &V, row: &mut Vec<Datum>) {
        self.value.shape.spread(datum(value), &self.value.names, row);
    }

    /// Compares keys built from sample fields both ways.
    fn samples_agree<K: Record>(&self) -> bool {
        let by_field: Vec<Vec<Datum>> = self.schema.key.iter().map(|field| samples(&field.ty)).collect();
        let mut accepted: Vec<std::collections::BTreeSet<&Datum>> = vec![Default::default(); by_field.len()];
        if by_field.iter().any(Vec::is_empty) {
            return false;
        }
        let mut keys = Vec::new();
        for turn in 0..64usize {
            // Strides that differ by field, so that pairs of keys agree in some fields and differ in others.
            let at = |field: usize| (turn / (field + 1) + turn * field) % by_field[field].len();
            let row: Vec<_> = (0..by_field.len())
                .map(|field| Some(by_field[field][at(field)].clone()))
                .collect();
            let Ok(key) = build::<K>(&self.key.shape, &row, Fill::None) else {
                continue;
            };
            let written = self.key_row(&key);
            if !written.iter().eq(row.iter().flatten()) {
                return false;
            }
            accepted
                .iter_mut()
                .enumerate()
                .for_each(|(field, seen)| _ = seen.insert(&by_field[field][at(field)]));
            keys.push((key, written));
        }
        let agree = |(a, row_a): &(K, Vec<Datum>), (b, row_b): &(K, Vec<Datum>)| a.cmp(b) == row_a.cmp(row_b);
        accepted.iter().all(|seen| seen.len() >= 2)
            && keys.iter().all(|a| keys.iter().all(|b| agree(a, b)))
            && self.bounds_hold(keys.into_iter().map(|(key, _)| key))
    }

    /// Whether no key lies outside of the keys that scans begin and end at.
    fn bounds_hold<K: Record>(&self, samples: impl Iterator<Item = K>) -> bool {
        let fields = &self.schema.key;
        let filled = |fill| build::<K>(&self.key.shape, &vec![None; fields.len()], fill).ok();
        let (least, greatest) = (filled(Fill::Least), filled(Fill::Greatest));
        // Some types put these before all numbers.
        let with_nan = (0..fields.len()).filter_map(|at| {
            let mut row = vec![None; fields.len()];
            row[at] = Some(Datum::Float(-f64::NAN));
            build::<K>(&self.key.shape, &row, Fill::Least).ok()
        });
        samples.chain(with_nan).all(|key| {
            least.as_ref().is_none_or(|least| *least <= key)
                && greatest.as_ref().is_none_or(|greatest| *greatest >= key)
        })
    }
}

/// Values of a type, to see how it is ordered; none for types that aren't tried.
fn samples(ty: &Type) -> Vec<Datum> {
    let ints = |values: &[i128]| values.iter().map(|value| Datum::Int(*value)).collect();
    match ty {
        Type::Bool => vec![Datum::Bool(false), Datum::Bool(true)],
        Type::Int(8) => ints(&[-128, -1, 0, 1, 2, 127]),
        Type::Int(bits) => ints(&[-(1 << (bits - 1).min(126)), -256, -1, 0, 1, 255, 256]),
        Type::UInt(8) => ints(&[0, 1, 2, 127, 128, 255]),
        Type::UInt(bits) => ints(&[0, 1, 2, 255, 256, (1 << (*bits).min(126)) - 1]),
        Type::Float(_) => [f64::NEG_INFINITY, -1.5, 0.0, 0.25, 2.0]
            .map(Datum::Float)
            .to_vec(),
        Type::Text => ["", "A", "a", "aa", "b", "10", "9", "é"]
            .map(|text| Datum::Text(text.into()))
            .to_vec(),
        Type::Bytes => [&[][..], &[0], &[0, 1], &[1], &[255]]
            .map(|bytes| Datum::Bytes(bytes.into()))
            .to_vec(),
        Type::Time => [i64::MIN, -1, 0, 1, 1 << 40]
            .map(|micros| Datum::Time(EventTime(micros)))
            .to_vec(),
        Type::Enum(variants) => variants
            .iter()
            .zip(0..)
            .map(|(name, index)| Datum::Variant(index, name, None))
            .collect(),
        Type::Option(inner) => match samples(inner) {
            inner if inner.is_empty() => inner,
            inner => std::iter::once(Datum::Null).chain(inner).collect(),
        },
        Type::Unit | Type::List(_) | Type::Tuple(_) | Type::Map(..) | Type::Struct(_) | Type::Json => {
            Vec::new()
        }
    }
}

/// Order of two rows by some of their fields.
pub fn compare(a: &[Datum], b: &[Datum], order: &[(usize, bool)]) -> Ordering {
    for (at, descending) in order {
        let ordering = a.get(*at).cmp(&b.get(*at));
        if ordering.is_ne() {
            return if *descending { ordering.reverse() } else { ordering };
        }
    }
    Ordering::Equal
}

/// The fields of a key or a value. Of a key, windows come last.
fn fields(
    spec: &ViewSpec,
    part: &str,
    names: &[String],
    traced: Traced,
    is_key: bool,
) -> Result<(Form, Vec<Field>)> {
    let times = || named([("window_start", Type::Time), ("window_end", Type::Time)]);
    match (traced.name, traced.ty) {
        (Some("$thalweg::Windowed"), Type::Struct(parts)) if is_key => {
            let inner = parts.into_iter().next().map_or(Type::Json, |(_, ty)| ty);
            let (form, mut all) = plain_fields(spec, part, names, inner)?;
            all.extend(times());
            Ok((
                Form {
                    shape: Shape::Windowed(Box::new(form.shape)),
                    names: form.names,
                },
                all,
            ))
        }
        (Some("$thalweg::Window"), Type::Struct(_)) if is_key => Ok((
            Form {
                shape: Shape::Window,
                names: vec!["start", "end"],
            },
            times(),
        )),
        (_, ty) => plain_fields(spec, part, names, ty),
    }
}

fn plain_fields(spec: &ViewSpec, part: &str, names: &[String], ty: Type) -> Result<(Form, Vec<Field>)> {
    let (shape, own, mut all) = match ty {
        Type::Unit => {
            return Ok((
                Form {
                    shape: Shape::Unit,
                    names: Vec::new(),
                },
                Vec::new(),
            ));
        }
        Type::Struct(own) => {
            let own_names = own.iter().map(|(name, _)| *name).collect();
            (Shape::Parts(own.len()), own_names, named(own))
        }
        Type::Tuple(types) => {
            let numbered = types.into_iter().enumerate();
            let all: Vec<_> = numbered
                .map(|(i, ty)| Field {
                    name: format!("{part}_{i}"),
                    ty,
                })
                .collect();
            (Shape::Parts(all.len()), Vec::new(), all)
        }
        ty => (
            Shape::One,
            Vec::new(),
            vec![Field {
                name: part.into(),
                ty,
            }],
        ),
    };
    // One name for a struct of several fields names it as a whole: its fields keep their own.
    let names_whole = !own.is_empty() && names.len() == 1 && all.len() > 1;
    if !names.is_empty() && !names_whole {
        rename(spec, part, names, &mut all)?;
    }
    Ok((Form { shape, names: own }, all))
}

fn named(fields: impl IntoIterator<Item = (&'static str, Type)>) -> Vec<Field> {
    fields
        .into_iter()
        .map(|(name, ty)| Field {
            name: name.into(),
            ty,
        })
        .collect()
}

fn rename(spec: &ViewSpec, part: &str, names: &[String], fields: &mut [Field]) -> Result<()> {
    if names.len() != fields.len() {
        let types: Vec<_> = fields.iter().map(|field| field.ty.to_string()).collect();
        return Err(
            Error::definition(format!("names and fields of view `{}` don't match", spec.name))
                .detail(format!(
                    "its {part} has {} fields ({})",
                    fields.len(),
                    types.join(", ")
                ))
                .detail(format!(
                    "it is given {} names ({})",
                    names.len(),
                    names.join(", ")
                ))
                .hint("give each field a name"),
        );
    }
    fields
        .iter_mut()
        .zip(names)
        .for_each(|(field, name)| field.name.clone_from(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::net::IpAddr;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::record::F64;
    use crate::time::{Window, Windowed};
    use crate::view::schema::Numbers;

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Spend {
        name: String,
        total: i128,
        rate: Option<F64>,
        top: Vec<(u8, EventTime)>,
    }

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Named {
        country: String,
        id: u64,
    }

    /// A float of somebody else's: any NaN last, or those with a sign first.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Sorted<const SIGNED: bool>(f64);

    impl<const SIGNED: bool> Ord for Sorted<SIGNED> {
        fn cmp(&self, other: &Self) -> Ordering {
            let form = |float: f64| if SIGNED { float } else { F64::new(float).get() };
            form(self.0).total_cmp(&form(other.0))
        }
    }
    impl<const SIGNED: bool> PartialOrd for Sorted<SIGNED> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl<const SIGNED: bool> PartialEq for Sorted<SIGNED> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }
    impl<const SIGNED: bool> Eq for Sorted<SIGNED> {}
    impl<const SIGNED: bool> std::hash::Hash for Sorted<SIGNED> {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            F64::new(self.0).hash(state);
        }
    }

    fn spec(key: &[&str], value: &[&str]) -> ViewSpec {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        ViewSpec {
            key: names(key),
            value: names(value),
            ..ViewSpec::new("v")
        }
    }

    fn names<K: Record, V: Record>(spec: ViewSpec) -> String {
        let layout = Layout::of::<K, V>(&spec).unwrap();
        let names: Vec<_> = layout
            .schema
            .fields()
            .map(|field| format!("{} {}", field.name, field.ty))
            .collect();
        names.join("; ")
    }

    #[test]
    fn rows_are_flat() {
        assert_eq!(
            names::<Windowed<u32>, Spend>(spec(&["merchant"], &[])),
            "merchant u32; window_start timestamp; window_end timestamp; name string; total i128; \
             rate option<f64>; top list<tuple<u8, timestamp>>"
        );
        assert_eq!(names::<Named, ()>(spec(&[], &[])), "country string; id u64");
        assert_eq!(names::<Named, ()>(spec(&["a", "b"], &[])), "a string; b u64");
        assert_eq!(names::<Named, ()>(spec(&["who"], &[])), "country string; id u64");
        assert_eq!(
            names::<(u8, bool), (i64, u64)>(spec(&[], &["n", "total"])),
            "key_0 u8; key_1 bool; n i64; total u64"
        );
        assert_eq!(
            names::<Windowed<()>, i64>(spec(&[], &[])),
            "window_start timestamp; window_end timestamp; value i64"
        );
        assert_eq!(
            names::<Window, i64>(spec(&[], &["n"])),
            "window_start timestamp; window_end timestamp; n i64"
        );
        assert_eq!(
            names::<EventTime, Option<u8>>(spec(&[], &[])),
            "key timestamp; value option<u8>"
        );
    }

    #[test]
    fn clashes_and_misfits_are_refused() {
        let error = Layout::of::<u32, Spend>(&spec(&["total"], &[]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("two fields named `total`") && error.contains("hint"),
            "{error}"
        );
        let error = Layout::of::<(u32, u8), ()>(&spec(&["a"], &[]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("2 fields (u32, u8)") && error.contains("1 names (a)"),
            "{error}"
        );
    }

    #[test]
    fn field_by_field_order_is_told_from_other_orders() {
        let ordered = |layout: Result<Layout>| layout.unwrap().ordered_by_field;
        assert!(ordered(Layout::of::<Windowed<(String, i64, Option<bool>)>, ()>(
            &spec(&[], &[])
        )));
        assert!(ordered(Layout::of::<Named, ()>(&spec(&[], &[]))));
        assert!(ordered(Layout::of::<(F64, EventTime, u128, i8), ()>(&spec(
            &[],
            &[]
        ))));
        assert!(ordered(Layout::of::<Sorted<false>, ()>(&spec(&[], &[]))));
        // A scan from the least number on would pass over the NaNs before it.
        assert!(!ordered(Layout::of::<Sorted<true>, ()>(&spec(&[], &[]))));
        assert!(!ordered(Layout::of::<Reverse<u32>, ()>(&spec(&[], &[]))));
        assert!(!ordered(Layout::of::<(u8, Reverse<u32>), ()>(&spec(&[], &[]))));
        assert!(!ordered(Layout::of::<IpAddr, ()>(&spec(&[], &[]))));
    }

    #[test]
    fn json_follows_the_type() {
        let layout = Layout::of::<Windowed<u64>, Spend>(&spec(&["id"], &[])).unwrap();
        let window = Window {
            start: EventTime(0),
            end: EventTime(1_500_000),
        };
        let mut row = layout.key_row(&Windowed { key: 7u64, window });
        let top = vec![(1, EventTime::MIN)];
        let spend = Spend {
            name: "\"A\"".into(),
            total: 1 << 100,
            rate: Some(F64::new(f64::NAN)),
            top,
        };
        layout.add_value(&spend, &mut row);
        let json = |numbers| {
            let mut out = Vec::new();
            layout.schema.write_row(&row, numbers, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            json(Numbers::Exact),
            r#"{"id":7,"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01.5Z","name":"\"A\"","total":1267650600228229401496703205376,"rate":"NaN","top":[[1,"-inf"]]}"#
        );
        let strings = json(Numbers::Strings);
        assert!(
            strings.contains(r#""id":"7""#) && strings.contains(r#""total":"12676506"#),
            "{strings}"
        );
        assert!(
            strings.contains(r#"[[1,"#),
            "narrow integers stay numbers: {strings}"
        );
    }
}
