//! Rows as JSON. The form depends on a field's type, never on a value's magnitude.
//!
//! Integers of any width are numbers (strings from 64 bits up, if requested), floats have the shortest form
//! that reads back the same, `"NaN"`, `"Infinity"` and `"-Infinity"` are strings; bytes are base64 (standard
//! alphabet, padded); times are RFC 3339 in UTC with as many fractional digits as needed for microseconds (0
//! to 6), and `"-inf"`, `"+inf"` outside the calendar; a variant without data is its name, one with data an
//! object with one member.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::schema::datum::Datum;
use crate::schema::types::Type;
use crate::schema::{Field, Numbers};

static ANY: Type = Type::Json;

/// A row, or its key alone, as a JSON object of fields and datums, up to the end of the shorter list.
pub(crate) struct RowObject<'a, F> {
    /// The fields.
    pub fields: F,
    /// The datums.
    pub row: &'a [Datum],
    /// How wide integers are written.
    pub numbers: Numbers,
}

impl<'a, F: Iterator<Item = &'a Field> + Clone> Serialize for RowObject<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (field, datum) in self.fields.clone().zip(self.row) {
            let (ty, numbers) = (&field.ty, self.numbers);
            object.serialize_entry(&field.name, &ShownValue { ty, datum, numbers })?;
        }
        object.end()
    }
}

/// One value.
#[derive(Clone, Copy)]
pub(crate) struct ShownValue<'a> {
    /// Its type.
    pub ty: &'a Type,
    /// The value.
    pub datum: &'a Datum,
    /// How wide integers are written.
    pub numbers: Numbers,
}

impl<'a> ShownValue<'a> {
    /// A value of unknown type.
    fn untyped(datum: &'a Datum) -> Self {
        Self {
            ty: &ANY,
            datum,
            numbers: Numbers::Exact,
        }
    }

    /// A part of the value.
    fn part(self, ty: Option<&'a Type>, datum: &'a Datum) -> Self {
        let ty = ty.unwrap_or(&ANY);
        Self { ty, datum, ..self }
    }
}

impl Serialize for ShownValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.ty, self.datum) {
            (Type::Option(inner) | Type::Default(inner), datum) => {
                self.part(Some(inner), datum).serialize(serializer)
            }
            (Type::Int(64..) | Type::UInt(64..), Datum::Int(value)) if self.numbers == Numbers::Strings => {
                serializer.collect_str(value)
            }
            (Type::UInt(64..), Datum::UInt(value)) if self.numbers == Numbers::Strings => {
                serializer.collect_str(value)
            }
            (Type::Float(32), Datum::Float(float)) if float.is_finite() => {
                serializer.serialize_f32(*float as f32)
            }
            (Type::Tuple(types), Datum::List(items)) if types.len() == items.len() => {
                let items = types.iter().zip(items);
                serializer.collect_seq(items.map(|(ty, item)| self.part(Some(ty), item)))
            }
            (ty, Datum::List(items)) => {
                let inner = match ty {
                    Type::List(inner) => Some(&**inner),
                    _ => None,
                };
                serializer.collect_seq(items.iter().map(|item| self.part(inner, item)))
            }
            (ty, Datum::Struct(members)) => {
                let fields = match ty {
                    Type::Struct(fields) => fields.as_slice(),
                    _ => &[],
                };
                let typed = |name: &str| fields.iter().find(|(other, _)| *other == name).map(|(_, ty)| ty);
                let members = members.iter();
                serializer.collect_map(members.map(|(name, item)| (*name, self.part(typed(name), item))))
            }
            (ty, Datum::Map(entries)) => {
                let inner = match ty {
                    Type::Map(_, inner) => Some(&**inner),
                    _ => None,
                };
                let entries = entries.iter();
                serializer.collect_map(entries.map(|(key, item)| (name_of(key), self.part(inner, item))))
            }
            (ty, Datum::Variant(index, name, Some(held))) => {
                let known = match ty {
                    Type::Enum(variants) => variants.get(*index as usize),
                    _ => None,
                };
                let content = known.and_then(|variant| variant.content.as_ref());
                serializer.collect_map([(&**name, self.part(content, held))])
            }
            (_, scalar) => scalar_of(scalar, serializer),
        }
    }
}

fn scalar_of<S: Serializer>(datum: &Datum, serializer: S) -> Result<S::Ok, S::Error> {
    match datum {
        Datum::Bool(value) => serializer.serialize_bool(*value),
        Datum::Int(value) => serializer.serialize_i128(*value),
        Datum::UInt(value) => serializer.serialize_u128(*value),
        Datum::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
        Datum::Float(value) => serializer.serialize_str(non_finite(*value)),
        Datum::Time(time) => serializer.collect_str(time),
        Datum::Text(value) => serializer.serialize_str(value),
        Datum::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
        Datum::Variant(_, name, _) => serializer.serialize_str(name),
        Datum::Null | Datum::List(_) | Datum::Struct(_) | Datum::Map(_) => serializer.serialize_unit(),
    }
}

/// The representative of all datums with the same JSON, regardless of the order of members.
pub(crate) fn as_shown(datum: &Datum) -> Datum {
    match datum {
        Datum::Null | Datum::Bool(_) | Datum::Int(_) | Datum::UInt(_) | Datum::Text(_) => datum.clone(),
        Datum::Float(value) if value.is_finite() => datum.clone(),
        Datum::Float(value) => Datum::Text(non_finite(*value).into()),
        Datum::Time(time) => Datum::Text(time.to_string()),
        Datum::Bytes(bytes) => Datum::Text(STANDARD.encode(bytes)),
        Datum::Variant(_, name, None) => Datum::Text(name.to_string()),
        Datum::Variant(_, name, Some(held)) => object_of([(name.to_string(), as_shown(held))].into()),
        Datum::List(items) => Datum::List(items.iter().map(as_shown).collect()),
        Datum::Struct(members) => {
            let members = members.iter();
            object_of(
                members
                    .map(|(name, item)| ((*name).to_owned(), as_shown(item)))
                    .collect(),
            )
        }
        Datum::Map(entries) => {
            let entries = entries.iter();
            object_of(
                entries
                    .map(|(key, item)| (name_of(key), as_shown(item)))
                    .collect(),
            )
        }
    }
}

fn object_of(members: BTreeMap<String, Datum>) -> Datum {
    let members = members.into_iter();
    Datum::Map(members.map(|(name, item)| (Datum::Text(name), item)).collect())
}

/// Names in JSON are strings: any other key is named by its own JSON.
fn name_of(key: &Datum) -> String {
    if let Datum::Text(name) = as_shown(key) {
        return name;
    }
    let shown = ShownValue::untyped(key);
    serde_json::to_string(&shown).expect("names are strings here")
}

/// How floats without a JSON number are written and read.
pub(crate) fn non_finite(value: f64) -> &'static str {
    match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}
