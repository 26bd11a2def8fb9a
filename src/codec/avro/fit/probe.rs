//! A type's own `Deserialize`, fed with what a schema says: a deserializer that notes where the two do not agree.
//!
//! The rules are those of [`datum`](crate::codec::avro::datum), which decodes the records. A type is read as often as it
//! takes: where a value is missing or of another kind it is given what it asks for the next time, so that all of its fields are looked at. What
//! a type says of a *value* (this text is no address) is never held against the schema.

mod access;
mod answer;
mod lesson;

use std::collections::{HashMap, HashSet};

use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};

use self::access::{Entries, Parts, Variant};
use self::answer::{Answer, BYTE, DURATION, Hint, PART, answer, fitting, is_duration};
use self::lesson::{State, Stop, Why};
use super::below;
use crate::codec::avro::schema::{Kind, Logical, Node, NodeId, Record, Schema};
use crate::codec::fit::Misfit;

const ATTEMPTS_MAX: usize = 500;
/// Arrays and maps below this are empty: schemas may contain themselves.
const DEPTH_MAX: usize = 8;
const DEPTH_END: usize = 64;
const TEXTS: [&str; 9] = [
    "",
    "A",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "00:00:00",
    "127.0.0.1",
    "::1",
];

/// Where data of `schema` do not fit `T`.
pub(super) fn probe<T: DeserializeOwned>(schema: &Schema) -> Vec<Misfit> {
    let mut state = State {
        schema,
        misfits: Vec::new(),
        given: HashSet::new(),
        chosen: HashMap::new(),
    };
    for _ in 0..ATTEMPTS_MAX {
        let whole = Probe {
            state: &mut state,
            at: Some(schema.node(schema.root())),
            path: String::new(),
            every: true,
            depth: 0,
        };
        match T::deserialize(whole) {
            Err(stop) => {
                if !state.again(stop) {
                    break;
                }
            }
            Ok(_) => break,
        }
    }
    state.misfits
}

struct Probe<'a, 's> {
    state: &'a mut State<'s>,
    /// `None`: the schema has nothing here that fits, so the type gets what it asks for.
    at: Option<&'s Node>,
    path: String,
    /// Whether every record has this place.
    every: bool,
    depth: usize,
}

impl<'a, 's> Probe<'a, 's> {
    /// The schema here. Of a union the first branch that may be something; `null` is told of, unless the type takes it.
    fn schema(&mut self, optional: bool) -> Option<&'s Node> {
        if self.state.given.contains(&self.path) {
            return None;
        }
        let at = self.at?;
        let Kind::Union(branches) = &at.kind else {
            return Some(at);
        };
        let schema = self.state.schema;
        self.every = self.every && branches.len() == 1;
        let is_null = |branch: &&NodeId| *schema.kind(**branch) == Kind::Null;
        if !optional && branches.iter().any(|branch| is_null(&branch)) {
            let problem = "may be null, and the type does not take that".to_owned();
            self.state.note(&self.path, problem, "make it an Option", false);
        }
        let some = branches
            .iter()
            .find(|branch| !is_null(branch))
            .or(branches.first())?;
        Some(schema.node(*some))
    }

    /// Tells of what the schema has here, unless all of it is what is asked for.
    fn leaf(&mut self, hint: Hint, wanted: &str) {
        let (whole, every, schema) = (self.at, self.every, self.state.schema);
        let Some(first) = self.schema(false) else { return };
        // Of a union, what is not null: null was told of.
        let found: Vec<&'s Node> = match whole.map(|at| &at.kind) {
            Some(Kind::Union(branches)) => (branches.iter())
                .map(|branch| schema.node(*branch))
                .filter(|branch| branch.kind != Kind::Null)
                .collect(),
            _ => vec![first],
        };
        let hopeless = !found.iter().any(|at| !matches!(answer(hint, at), Answer::None));
        for at in found {
            let has = schema.says(at);
            match answer(hint, at) {
                Answer::All => {}
                Answer::Some => {
                    let problem = format!("the schema has {has}, and {wanted} does not hold all of it");
                    let remedy = match (hint, at.logical) {
                        (_, Some(Logical::Decimal { .. } | Logical::BigDecimal)) => {
                            "a String holds every decimal, an i128 the unscaled integer of up to 38 digits"
                        }
                        (Hint::Int(_) | Hint::UInt(_), _) => "i64 holds every int and long",
                        _ => "a type of bytes holds them all",
                    };
                    self.state.note(&self.path, problem, remedy, false);
                }
                Answer::None => {
                    let problem = format!("the schema has {has}, the type wants {wanted}");
                    self.state
                        .note(&self.path, problem, fitting(at), every && hopeless);
                }
            }
        }
    }

    fn text(&self) -> &'static str {
        let chosen = self.state.chosen.get(&self.path).copied().unwrap_or(0);
        TEXTS[chosen.min(TEXTS.len() - 1)]
    }

    fn number(&self) -> u8 {
        u8::from(
            self.state
                .chosen
                .get(&self.path)
                .is_some_and(|chosen| *chosen > 0),
        )
    }

    fn below<'b>(
        state: &'b mut State<'s>,
        at: Option<&'s Node>,
        path: String,
        every: bool,
        depth: usize,
    ) -> Result<Probe<'b, 's>, Stop> {
        if depth >= DEPTH_END {
            return Err(Stop::of(Why::Endless));
        }
        Ok(Probe {
            state,
            at,
            path,
            every,
            depth: depth + 1,
        })
    }

    /// Says where it was that a type stopped, unless that is known better already.
    fn placed<R>(path: &str, every: bool, read: Result<R, Stop>) -> Result<R, Stop> {
        read.map_err(|mut stop| {
            if stop.at.is_none() {
                stop.at = Some(path.to_owned());
                stop.every = every;
            }
            stop
        })
    }
}

macro_rules! leaves {
    ($($method:ident $visit:ident $ty:ty: $hint:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            self.leaf($hint, stringify!($ty));
            Self::placed(&self.path, self.every, visitor.$visit(self.number() as $ty))
        }
    )*};
}

impl<'de, 'a, 's> Deserializer<'de> for Probe<'a, 's> {
    type Error = Stop;

    leaves! {
        deserialize_i8 visit_i8 i8: Hint::Int(8);
        deserialize_i16 visit_i16 i16: Hint::Int(16);
        deserialize_i32 visit_i32 i32: Hint::Int(32);
        deserialize_i64 visit_i64 i64: Hint::Int(64);
        deserialize_i128 visit_i128 i128: Hint::Int(128);
        deserialize_u8 visit_u8 u8: Hint::UInt(8);
        deserialize_u16 visit_u16 u16: Hint::UInt(16);
        deserialize_u32 visit_u32 u32: Hint::UInt(32);
        deserialize_u64 visit_u64 u64: Hint::UInt(64);
        deserialize_u128 visit_u128 u128: Hint::UInt(128);
        deserialize_f32 visit_f32 f32: Hint::Float;
        deserialize_f64 visit_f64 f64: Hint::Float;
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let Some(at) = self.schema(true) else {
            return Self::placed(&self.path, self.every, visitor.visit_unit());
        };
        let (path, every, number) = (self.path.clone(), self.every, self.number());
        let schema = self.state.schema;
        let read = match &at.kind {
            Kind::Null | Kind::Union(_) => visitor.visit_unit(),
            Kind::Boolean => visitor.visit_bool(number > 0),
            Kind::Int => visitor.visit_i32(i32::from(number)),
            Kind::Long => visitor.visit_i64(i64::from(number)),
            Kind::Float => visitor.visit_f32(f32::from(number)),
            Kind::Double => visitor.visit_f64(f64::from(number)),
            Kind::String => visitor.visit_str(self.text()),
            Kind::Bytes | Kind::Fixed(_) => match at.logical {
                None => visitor.visit_bytes(&[]),
                Some(Logical::Duration) => visitor.visit_map(self.entries(duration(), true)),
                Some(_) => visitor.visit_str(self.text()),
            },
            Kind::Enum(symbols) => visitor.visit_str(symbols.symbols.first().map_or("", String::as_str)),
            Kind::Array(items) => {
                let parts = vec![(format!("{path}[]"), Some(schema.node(*items)))];
                visitor.visit_seq(self.parts(parts, false))
            }
            Kind::Map(values) => {
                let values = schema.node(*values);
                visitor.visit_map(self.entries(vec![("A".to_owned(), Some(values))], false))
            }
            Kind::Record(record) => visitor.visit_map(self.record(record)),
        };
        Self::placed(&path, every, read)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }
    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Hint::Bool, "bool");
        Self::placed(&self.path, self.every, visitor.visit_bool(self.number() > 0))
    }
    fn deserialize_char<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Hint::Text, "char");
        Self::placed(&self.path, self.every, visitor.visit_char('A'))
    }
    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Hint::Text, "a string");
        let text = self.text();
        Self::placed(&self.path, self.every, visitor.visit_str(text))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Hint::Bytes, "bytes");
        Self::placed(&self.path, self.every, visitor.visit_bytes(&[]))
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Hint::Unit, "nothing");
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        match self.schema(true) {
            Some(at) if at.kind == Kind::Null => visitor.visit_none(),
            None => visitor.visit_none(),
            // Schemas may contain themselves.
            Some(_) if self.depth >= DEPTH_MAX => visitor.visit_none(),
            at => {
                self.at = at;
                visitor.visit_some(self)
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let parts = match self.items() {
            Some((item, count)) if self.depth < DEPTH_MAX => {
                vec![(format!("{}[]", self.path), Some(item)); count.unwrap_or(1)]
            }
            _ => Vec::new(),
        };
        let (path, every) = (self.path.clone(), self.every);
        Self::placed(&path, every, visitor.visit_seq(self.parts(parts, false)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let items = self.items();
        if let Some((_, Some(count))) = items
            && count != len
        {
            let problem = format!("the schema has {count} parts, the type wants {len}");
            self.state
                .note(&self.path, problem, "take all of them", self.every);
        }
        let parts = (0..len)
            .map(|index| (format!("{}[{index}]", self.path), items.map(|(item, _)| item)))
            .collect();
        let (path, every) = (self.path.clone(), self.every);
        Self::placed(&path, every, visitor.visit_seq(self.parts(parts, false)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let (path, at) = (self.path.clone(), self.schema(false));
        let (every, schema) = (self.every, self.state.schema);
        let read = match at.map(|at| (at, &at.kind)) {
            Some((_, Kind::Record(record))) => visitor.visit_map(self.record(record)),
            Some((at, _)) if is_duration(at) => visitor.visit_map(self.entries(duration(), true)),
            Some((_, Kind::Map(values))) if self.depth < DEPTH_MAX => {
                let values = schema.node(*values);
                visitor.visit_map(self.entries(vec![("A".to_owned(), Some(values))], false))
            }
            other => {
                if let Some((at, found)) = other
                    && !matches!(found, Kind::Map(_))
                {
                    let problem = format!("the schema has {}, the type wants a map", schema.says(at));
                    self.state.note(&path, problem, fitting(at), every);
                }
                visitor.visit_map(self.entries(Vec::new(), false))
            }
        };
        Self::placed(&path, every, read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let (path, at) = (self.path.clone(), self.schema(false));
        let every = self.every;
        let read = match at.map(|at| (at, &at.kind)) {
            Some((_, Kind::Record(record))) => visitor.visit_map(self.record(record)),
            Some((at, _)) if is_duration(at) => visitor.visit_map(self.entries(duration(), true)),
            other => {
                match other {
                    // Its keys may be the fields.
                    None | Some((_, Kind::Map(_))) => {}
                    Some((at, _)) => {
                        let has = self.state.schema.says(at);
                        let problem = format!("the schema has {has}, the type wants struct {name}");
                        self.state.note(&path, problem, fitting(at), every);
                    }
                }
                let asked = fields.iter().map(|field| (below(&path, field), None)).collect();
                visitor.visit_seq(self.parts(asked, false))
            }
        };
        Self::placed(&path, every, read)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if variants.is_empty() {
            return Err(Stop::of(Why::Endless));
        }
        // Deep down the variants take turns: in a recursive type one of them ends it.
        let turn = self.depth.saturating_sub(DEPTH_MAX) + usize::from(self.number());
        let union = self.at.is_some_and(|at| matches!(at.kind, Kind::Union(_)));
        if !union && let Some(at) = self.schema(true) {
            match &at.kind {
                Kind::Enum(symbols) => {
                    let unknown = symbols
                        .symbols
                        .iter()
                        .find(|symbol| !variants.contains(&symbol.as_str()));
                    let known = symbols
                        .symbols
                        .iter()
                        .any(|symbol| variants.contains(&symbol.as_str()));
                    if let Some(symbol) = unknown {
                        let problem = format!(
                            "the schema's enum has the symbol `{symbol}`, the type has no such variant"
                        );
                        let remedy =
                            "add it, or give one the attribute `#[serde(other)]`, which this can't see";
                        self.state.note(&self.path, problem, remedy, self.every && !known);
                    }
                }
                Kind::Boolean | Kind::Float | Kind::Double | Kind::Array(_) | Kind::Map(_) => {
                    let has = self.state.schema.says(at);
                    let problem = format!("the schema has {has}, the type wants an enum");
                    self.state.note(&self.path, problem, fitting(at), self.every);
                }
                _ => {}
            }
        }
        let (path, every) = (self.path.clone(), self.every);
        let read = visitor.visit_enum(Variant {
            index: (turn % variants.len()) as u32,
            inner: self,
        });
        Self::placed(&path, every, read)
    }
}

impl<'a, 's> Probe<'a, 's> {
    /// The schema of a list's items, and how many there are, if it is not the data that say it; told of if it is none.
    fn items(&mut self) -> Option<(&'s Node, Option<usize>)> {
        let at = self.schema(false)?;
        match &at.kind {
            Kind::Array(items) => Some((self.state.schema.node(*items), None)),
            _ if is_duration(at) => Some((&PART, Some(DURATION.len()))),
            Kind::Fixed(fixed) => Some((&BYTE, Some(fixed.size))),
            Kind::Bytes => Some((&BYTE, None)),
            _ => {
                let has = self.state.schema.says(at);
                let problem = format!("the schema has {has}, the type wants a list");
                self.state.note(&self.path, problem, fitting(at), self.every);
                None
            }
        }
    }

    fn parts(self, parts: Vec<(String, Option<&'s Node>)>, every: bool) -> Parts<'a, 's> {
        Parts {
            state: self.state,
            parts: parts.into_iter(),
            every: self.every && every,
            depth: self.depth,
        }
    }

    fn entries(self, entries: Vec<(String, Option<&'s Node>)>, every: bool) -> Entries<'a, 's> {
        Entries {
            state: self.state,
            path: self.path,
            entries: entries.into_iter(),
            value: None,
            every: self.every && every,
            depth: self.depth,
        }
    }

    /// The fields of a record, and those that the type asked for in vain before.
    fn record(self, record: &'s Record) -> Entries<'a, 's> {
        let mut entries: Vec<_> = record
            .fields
            .iter()
            .map(|field| (field.name.clone(), Some(self.state.schema.node(field.node))))
            .collect();
        let prefix = below(&self.path, "");
        let mut asked: Vec<_> = (self.state.given.iter())
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter(|field| {
                !field.contains(['.', '[']) && !record.fields.iter().any(|own| own.name == *field)
            })
            .map(|field| (field.to_owned(), None))
            .collect();
        asked.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        entries.extend(asked);
        self.entries(entries, true)
    }
}

/// The parts of a duration.
fn duration<'s>() -> Vec<(String, Option<&'s Node>)> {
    DURATION.map(|part| (part.to_owned(), Some(&PART))).into()
}
