//! Derives the fields of a row from types, with unique names.

use crate::error::{Error, Result};
use crate::schema::trace::Traced;
use crate::schema::types::Type;
use crate::schema::{Field, RowSchema};

/// Names for fields, if their types have none or others are wanted; empty: the types' own.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldNames<'a> {
    /// The key's fields, without those of its window.
    pub key: &'a [String],
    /// The value's fields.
    pub value: &'a [String],
}

impl RowSchema {
    /// The schema of rows with these types of keys and values. `owner` names the rows in errors, as in ``view
    /// `spend` ``.
    ///
    /// # Errors
    /// If names do not match the types, or two fields have the same name.
    pub fn new(owner: &str, key: Traced, value: Traced, names: FieldNames<'_>) -> Result<Self> {
        let schema = Self::unchecked(owner, key, value, names)?;
        schema.check_names(owner)?;
        Ok(schema)
    }

    /// Like `new`, if fields are not looked up by name, so that duplicates are allowed.
    pub(crate) fn unchecked(owner: &str, key: Traced, value: Traced, names: FieldNames<'_>) -> Result<Self> {
        let (key_type, value_type) = (key.stored(), value.stored());
        let window = match (key.name, &key_type) {
            (Some("$thalweg::Windowed"), Type::Struct(_)) => Window::Beside,
            (Some("$thalweg::Window"), Type::Struct(_)) => Window::Alone,
            _ => Window::None,
        };
        let key_fields = match (key.name, key_type.clone()) {
            (Some("$thalweg::Ranked"), Type::Struct(parts)) => ranked_fields(owner, names.key, parts)?,
            (_, ty) => key_fields(owner, names.key, ty, window)?,
        };
        Ok(Self {
            key: key_fields,
            value: plain_fields(owner, "value", names.value, value_type.clone())?,
            key_type,
            value_type,
            windowed: !matches!(window, Window::None),
        })
    }

    fn check_names(&self, owner: &str) -> Result<()> {
        let mut seen = std::collections::BTreeMap::new();
        let keys = self.key.iter().map(|field| ("key", field));
        let values = self.value.iter().map(|field| ("value", field));
        for (part, field) in keys.chain(values) {
            if let Some(other) = seen.insert(field.name.as_str(), part) {
                return Err(
                    Error::definition(format!("{owner} has two fields named `{}`", field.name))
                        .detail(format!("one is in the {other}, one in the {part}"))
                        .hint("rows are flat: rename one, or drop it from the value with a `map` before"),
                );
            }
        }
        Ok(())
    }
}

/// The position of the window in a key.
#[derive(Clone, Copy)]
enum Window {
    None,
    /// The key is a window.
    Alone,
    /// After another key.
    Beside,
}

fn key_fields(owner: &str, names: &[String], ty: Type, window: Window) -> Result<Vec<Field>> {
    let times = named([("window_start", Type::Time), ("window_end", Type::Time)]);
    match (window, ty) {
        (Window::Alone, _) => Ok(times),
        (Window::Beside, Type::Struct(parts)) => {
            let inner = parts.into_iter().next().map_or(Type::Json, |(_, ty)| ty);
            let mut fields = plain_fields(owner, "key", names, inner)?;
            fields.extend(times);
            Ok(fields)
        }
        (_, ty) => plain_fields(owner, "key", names, ty),
    }
}

/// The fields of a group's key, and the rank. A window in the key is displayed like others, but cannot be
/// selected, because it is not the last part.
fn ranked_fields(owner: &str, names: &[String], parts: Vec<(&'static str, Type)>) -> Result<Vec<Field>> {
    let of_key = parts.into_iter().next().map_or(Type::Json, |(_, ty)| ty);
    let is_window = |ty: &Type| {
        matches!(ty, Type::Struct(parts)
        if parts[..] == [("start", Type::Time), ("end", Type::Time)])
    };
    let window = match &of_key {
        ty if is_window(ty) => Window::Alone,
        Type::Struct(parts) => match &parts[..] {
            [("key", _), ("window", ty)] if is_window(ty) => Window::Beside,
            _ => Window::None,
        },
        _ => Window::None,
    };
    let mut fields = key_fields(owner, names, of_key, window)?;
    fields.extend(named([("rank", Type::UInt(32))]));
    Ok(fields)
}

fn plain_fields(owner: &str, part: &str, names: &[String], ty: Type) -> Result<Vec<Field>> {
    let (has_names, mut fields) = match ty {
        Type::Unit => return Ok(Vec::new()),
        Type::Struct(own) => (true, named(own)),
        Type::Tuple(types) => {
            let numbered = types.into_iter().enumerate().map(|(at, ty)| Field {
                name: format!("{part}_{at}"),
                ty,
            });
            (false, numbered.collect())
        }
        ty => (
            false,
            vec![Field {
                name: part.into(),
                ty,
            }],
        ),
    };
    // A single name for a struct of several fields names it as a whole: its fields keep their own.
    let names_whole = has_names && names.len() == 1 && fields.len() > 1;
    if !names.is_empty() && !names_whole {
        rename(owner, part, names, &mut fields)?;
    }
    Ok(fields)
}

fn named(fields: impl IntoIterator<Item = (&'static str, Type)>) -> Vec<Field> {
    let field = |(name, ty): (&'static str, Type)| Field {
        name: name.into(),
        ty,
    };
    fields.into_iter().map(field).collect()
}

fn rename(owner: &str, part: &str, names: &[String], fields: &mut [Field]) -> Result<()> {
    if names.len() != fields.len() {
        let types: Vec<_> = fields.iter().map(|field| field.ty.to_string()).collect();
        return Err(
            Error::definition(format!("names and fields of {owner} don't match"))
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
    use serde::{Deserialize, Serialize};

    use super::{FieldNames, Result, RowSchema};
    use crate::record::{F64, Ranked, Record};
    use crate::schema::Numbers;
    use crate::schema::trace::trace;
    use crate::time::{EventTime, Window, Windowed};

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

    fn schema<K: Record, V: Record>(key: &[&str], value: &[&str]) -> Result<RowSchema> {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (key, value) = (owned(key), owned(value));
        let names = FieldNames {
            key: &key,
            value: &value,
        };
        RowSchema::new("view `v`", trace::<K>(), trace::<V>(), names)
    }

    fn names<K: Record, V: Record>(key: &[&str], value: &[&str]) -> String {
        let schema = schema::<K, V>(key, value).unwrap();
        let fields = schema
            .fields()
            .map(|field| format!("{} {}", field.name, field.ty));
        fields.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn rows_are_flat() {
        assert_eq!(
            names::<Windowed<u32>, Spend>(&["merchant"], &[]),
            "merchant u32; window_start timestamp; window_end timestamp; name string; total i128; \
             rate option<f64>; top list<tuple<u8, timestamp>>"
        );
        assert_eq!(names::<Named, ()>(&[], &[]), "country string; id u64");
        assert_eq!(names::<Named, ()>(&["a", "b"], &[]), "a string; b u64");
        assert_eq!(names::<Named, ()>(&["who"], &[]), "country string; id u64");
        assert_eq!(
            names::<(u8, bool), (i64, u64)>(&[], &["n", "total"]),
            "key_0 u8; key_1 bool; n i64; total u64"
        );
        assert_eq!(
            names::<Windowed<()>, i64>(&[], &[]),
            "window_start timestamp; window_end timestamp; value i64"
        );
        assert_eq!(
            names::<Window, i64>(&[], &["n"]),
            "window_start timestamp; window_end timestamp; n i64"
        );
        assert_eq!(
            names::<EventTime, Option<u8>>(&[], &[]),
            "key timestamp; value option<u8>"
        );
        assert_eq!(
            names::<Ranked<(u8, bool)>, i64>(&["a", "b"], &["n"]),
            "a u8; b bool; rank u32; n i64"
        );
        assert_eq!(
            names::<Ranked<Windowed<u32>>, i64>(&["merchant"], &[]),
            "merchant u32; window_start timestamp; window_end timestamp; rank u32; value i64"
        );
        assert_eq!(
            names::<Ranked<Window>, i64>(&["window"], &[]),
            "window_start timestamp; window_end timestamp; rank u32; value i64"
        );
    }

    #[test]
    fn clashes_and_misfits_are_refused() {
        let error = schema::<u32, Spend>(&["total"], &[]).unwrap_err().to_string();
        assert!(
            error.contains("two fields named `total`") && error.contains("hint"),
            "{error}"
        );
        let error = schema::<(u32, u8), ()>(&["a"], &[]).unwrap_err().to_string();
        assert!(
            error.contains("2 fields (u32, u8)") && error.contains("1 names (a)"),
            "{error}"
        );
    }

    #[test]
    fn json_follows_the_type() {
        let schema = schema::<Windowed<u64>, Spend>(&["id"], &[]).unwrap();
        let window = Window {
            start: EventTime(0),
            end: EventTime(1_500_000),
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        schema
            .encode_key(&Windowed { key: 7u64, window }, &mut key)
            .unwrap();
        let mut row = schema.key_row(&key).unwrap();
        let top = vec![(1, EventTime::MIN)];
        let spend = Spend {
            name: "\"A\"".into(),
            total: 1 << 100,
            rate: Some(F64::new(f64::NAN)),
            top,
        };
        schema.encode_value(&spend, &mut value).unwrap();
        assert!(schema.add_value(&value, &mut row));
        let json = |numbers| {
            let mut out = Vec::new();
            schema.write_row(&row, numbers, &mut out);
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
