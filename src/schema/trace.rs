//! The type of a value, asked of its own `Deserialize`: a deserializer that notes what is asked for and feeds
//! placeholders.
//!
//! A type that checks what it reads may refuse a placeholder (a `NonZeroU32` refuses 0, a UUID refuses ""). Then the
//! whole is read again with the next placeholder in that place. What still can't be had (types that must look before
//! they know, such as untagged enums) is [`Type::Json`]; the fields around it keep their types where serde's order of
//! asking allows. Types are traced by structure, so two structs of one name, or one generic struct twice, do no harm.
//!
//! Of an enum one reading shows one variant, so the whole is read once for each; an enum inside itself is [`Type::Json`]
//! there. A struct whose fields have aliases names more fields than it reads: then each name is given twice, and the
//! complaint says whose it is.

mod deserializer;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeOwned, Error as _};

use self::deserializer::Trace;
use crate::schema::types::Type;

/// Name of [`EventTime`](crate::time::EventTime) in serde's data model.
pub(crate) const EVENT_TIME: &str = "$thalweg::EventTime";

/// What a type looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Its structure.
    pub ty: Type,
    /// Its name in serde's data model, if it is a struct with named fields.
    pub name: Option<&'static str>,
}

/// Traces `T`.
pub fn trace<T: DeserializeOwned>() -> Traced {
    trace_with(&mut |trace| T::deserialize(trace).map(drop))
}

/// What can be told of a type that is read from bytes without names, before there are any.
pub struct Samples<T> {
    /// Values made of placeholders: with something in each option, list and map, with nothing in the innermost of them, and
    /// so on, to nothing in any.
    pub values: Vec<T>,
    /// A part of the type looks at the data before it knows what to read: it needs a self-describing format.
    pub self_describing: bool,
}

/// Makes samples of `T`.
pub fn samples<T: DeserializeOwned>() -> Samples<T> {
    let mut state = State {
        binary: true,
        ..State::default()
    };
    let values = (0..=DEPTH_MAX).filter_map(|depth| {
        state.chosen.clear();
        state.attempts = 0;
        let mut sample = None;
        state.read(depth, &mut |trace| {
            sample = None;
            sample = Some(T::deserialize(trace)?);
            Ok(())
        });
        sample
    });
    Samples {
        values: values.collect(),
        self_describing: state.self_describing,
    }
}

/// The structure of a type, as checkpoints compare it.
pub(crate) fn structure<T: DeserializeOwned>() -> String {
    trace::<T>().ty.to_string()
}

/// Traces what `read` reads: once for each variant that is met.
fn trace_with(read: &mut dyn FnMut(Trace<'_>) -> Result<(), Refused>) -> Traced {
    let mut state = State::default();
    let Some(mut traced) = state.read(0, read) else {
        return Traced {
            ty: Type::Json,
            name: None,
        };
    };
    let mut unseen: Vec<_> = state.unseen(0..usize::MAX);
    while let Some((prefix, leaf)) = unseen.pop() {
        state.chosen = prefix;
        if let Some(Traced { ty, .. }) = state.read(0, read) {
            traced.ty.merge(ty);
            let inside = state.enums.get(&leaf).map_or(0..0, |met| met.leaves.clone());
            unseen.extend(state.unseen(inside));
        }
    }
    traced
}

/// Readings of one type.
const ATTEMPTS_MAX: usize = 4_096;
/// Below this, options, sequences and maps are left empty: recursive types end there.
const DEPTH_MAX: usize = 6;
/// Below this, and beyond so many values, the type is taken for endless.
const DEPTH_END: usize = 64;
const LEAVES_MAX: usize = 10_000;

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

/// Why a type did not take what it was given: its own words.
#[derive(Debug)]
pub struct Refused {
    why: String,
    /// A field was there twice, by the name that is its own.
    twice: Option<&'static str>,
}

impl Refused {
    fn new(why: &str) -> Self {
        Self::custom(why)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
impl std::error::Error for Refused {}
impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            why: message.to_string(),
            twice: None,
        }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self {
            twice: Some(field),
            ..Self::custom(format_args!("duplicate field `{field}`"))
        }
    }
}

#[derive(Default)]
struct State {
    name: Option<&'static str>,
    /// Which placeholder each leaf gets, in the order in which leaves are asked for.
    chosen: Vec<usize>,
    leaves: usize,
    /// The first leaf that refused, and how many placeholders it has.
    refused: Option<(usize, usize)>,
    attempts: usize,
    /// The enums that this reading met, by the leaf that chose the variant.
    enums: BTreeMap<usize, Enum>,
    /// Those that the reading is inside of, by their variants.
    within: Vec<*const &'static str>,
    /// The own names of the fields of structs that have aliases, by their names with these.
    own_names: HashMap<*const &'static str, Vec<&'static str>>,
    aliases: Option<Aliases>,
    /// Whether types are to ask as they do of a binary encoding.
    binary: bool,
    /// Whether any of them asked what there is.
    self_describing: bool,
}

/// An enum that was met.
struct Enum {
    variants: usize,
    /// The leaves inside the variant that was chosen.
    leaves: Range<usize>,
}

/// A struct with aliases, and how much is known of its names.
struct Aliases {
    names: &'static [&'static str],
    own: Vec<&'static str>,
}

impl State {
    /// Reads the type, with as many attempts as it takes to find placeholders that it accepts.
    fn read(
        &mut self,
        depth: usize,
        read: &mut dyn FnMut(Trace<'_>) -> Result<(), Refused>,
    ) -> Option<Traced> {
        while self.attempts < ATTEMPTS_MAX {
            self.attempts += 1;
            (self.leaves, self.refused, self.name) = (0, None, None);
            self.enums.clear();
            self.within.clear();
            let (probing, mut ty) = (self.aliases.as_ref().map(|aliases| aliases.own.len()), Type::Json);
            let accepted = read(Trace {
                state: self,
                ty: &mut ty,
                depth,
            });
            if self.aliases.as_ref().map(|aliases| aliases.own.len()) != probing {
                // Another name is known now, or all are, or this is the first time that there are some.
                self.chosen.clear();
                continue;
            }
            let retry = accepted.is_err() && self.next_placeholder();
            if !retry {
                return Some(Traced { ty, name: self.name });
            }
        }
        None
    }

    /// What to choose to see the variants that were not, of enums whose leaves lie in `within`.
    fn unseen(&self, within: Range<usize>) -> Vec<(Vec<usize>, usize)> {
        let mut unseen = Vec::new();
        for (leaf, met) in self.enums.iter().filter(|(leaf, _)| within.contains(leaf)) {
            for variant in (0..met.variants).filter(|variant| *variant != self.chosen[*leaf]) {
                let mut chosen = self.chosen[..*leaf].to_vec();
                chosen.push(variant);
                unseen.push((chosen, *leaf));
            }
        }
        unseen
    }

    fn leaf(&mut self) -> Result<(usize, usize), Refused> {
        let leaf = self.leaves;
        self.leaves += 1;
        if leaf >= LEAVES_MAX {
            return Err(Refused::new("endless type"));
        }
        if leaf == self.chosen.len() {
            self.chosen.push(0);
        }
        Ok((leaf, self.chosen[leaf]))
    }

    fn refuse(&mut self, leaf: usize, placeholders: usize) {
        self.refused.get_or_insert((leaf, placeholders));
    }

    /// Whether there is another placeholder to try.
    fn next_placeholder(&mut self) -> bool {
        let Some((leaf, placeholders)) = self.refused else {
            return false;
        };
        self.chosen[leaf] += 1;
        self.chosen.truncate(leaf + 1);
        self.chosen[leaf] < placeholders
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::*;
    use crate::schema::types;
    use crate::time::{EventTime, Windowed};

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Many {
        some: Option<NonZeroU32>,
        address: IpAddr,
        at: EventTime,
        pairs: (Pair<u8, char>, Pair<String, i128>),
        tree: Tree,
        map: BTreeMap<u64, Vec<f32>>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Pair<A, B> {
        a: A,
        b: B,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Tree {
        Fork(Box<Tree>, Box<Tree>),
        Leaf,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Any {
        Number(u8),
        Text(String),
    }

    #[test]
    fn traces_checked_generic_and_recursive_types() {
        let variant = |name, content| types::Variant { name, content };
        let named = |a, b| Type::Struct(vec![("a", a), ("b", b)]);
        let traced = trace::<Many>();
        assert_eq!(traced.name, Some("Many"));
        assert_eq!(
            traced.ty,
            Type::Struct(vec![
                ("some", Type::Option(Box::new(Type::UInt(32)))),
                ("address", Type::Text),
                ("at", Type::Time),
                (
                    "pairs",
                    Type::Tuple(vec![
                        named(Type::UInt(8), Type::Text),
                        named(Type::Text, Type::Int(128))
                    ])
                ),
                (
                    "tree",
                    Type::Enum(vec![
                        variant("Fork", Some(Type::Tuple(vec![Type::Json, Type::Json]))),
                        variant("Leaf", None)
                    ])
                ),
                (
                    "map",
                    Type::Map(
                        Box::new(Type::UInt(64)),
                        Box::new(Type::List(Box::new(Type::Float(32))))
                    )
                ),
            ])
        );
    }

    #[test]
    fn what_looks_before_it_knows_is_json() {
        assert_eq!(trace::<Any>().ty, Type::Json);
        let traced = trace::<(u8, Any)>();
        assert_eq!(traced.ty, Type::Tuple(vec![Type::UInt(8), Type::Json]));
        assert_eq!(trace::<Windowed<()>>().name, Some("$thalweg::Windowed"));
        assert_eq!(trace::<()>().ty, Type::Unit);
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Payment {
        Card { number: String, kind: CardKind },
        Cash(u32),
        Split(u8, Option<CardKind>),
        Free,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum CardKind {
        Debit,
        Credit { limit: i64 },
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Aliased {
        #[serde(alias = "amt", alias = "zz_total")]
        amount: NonZeroU32,
        #[serde(rename = "by", alias = "bought_by")]
        buyer: String,
        payment: Payment,
    }

    #[test]
    fn every_variant_is_seen_and_aliases_are_told_from_names() {
        let variant = |name, content| types::Variant { name, content };
        let kind = || {
            Type::Enum(vec![
                variant("Debit", None),
                variant("Credit", Some(Type::Struct(vec![("limit", Type::Int(64))]))),
            ])
        };
        let card = Type::Struct(vec![("number", Type::Text), ("kind", kind())]);
        let split = Type::Tuple(vec![Type::UInt(8), Type::Option(Box::new(kind()))]);
        let payment = Type::Enum(vec![
            variant("Card", Some(card)),
            variant("Cash", Some(Type::UInt(32))),
            variant("Split", Some(split)),
            variant("Free", None),
        ]);
        assert_eq!(
            trace::<Aliased>().ty,
            Type::Struct(vec![
                ("amount", Type::UInt(32)),
                ("by", Type::Text),
                ("payment", payment)
            ])
        );
    }

    #[test]
    fn samples_are_empty_and_full() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Row {
            id: NonZeroU32,
            vip: Option<u8>,
            tags: Vec<String>,
            address: IpAddr,
        }
        let samples = samples::<Row>();
        assert!(!samples.self_describing);
        let shapes: Vec<_> = samples
            .values
            .iter()
            .map(|row| (row.vip, row.tags.len()))
            .collect();
        assert_eq!(shapes.first(), Some(&(Some(0), 1)));
        assert_eq!(shapes.last(), Some(&(None, 0)));
        let rows = super::samples::<Option<Row>>().values;
        assert!(
            rows.iter().flatten().any(|row| row.vip.is_none()),
            "empty inside of something"
        );
        assert!(super::samples::<(u8, Any)>().self_describing);
        assert_eq!(super::samples::<Many>().values.len(), DEPTH_MAX + 1);
    }
}
