//! Derives the type of a value from its own `Deserialize`: a deserializer that records what is requested and
//! supplies placeholders.
//!
//! ```text
//!   settle    reads the whole until it is accepted: what was refused gets its next placeholder        ─▶ Type
//!   examine   reads it again up to each struct and enum that was met, and gives that less, or more,
//!             than it asks for: its complaints say which fields it needs and how they may be called    ─▶ ReadRules
//! ```
//!
//! A type that validates its input may refuse a placeholder (a `NonZeroU32` refuses 0, a UUID refuses "").
//! Then everything is read again with the next placeholder at that position. A type that inspects the data
//! first (such as an untagged enum) is [`Type::Json`]; the fields around it keep their types if some
//! placeholder satisfies it, and otherwise if serde's order of requests allows. Types are traced
//! structurally, so two structs with the same name, or two instances of a generic struct, are no problem.
//!
//! One reading shows one variant of an enum, so everything is read once per variant; an enum nested inside
//! itself is [`Type::Json`] there. A struct whose fields have aliases names more fields than it reads: then
//! each name is supplied twice, and the error tells which field it belongs to.

mod deserializer;
pub(crate) mod rules;
mod type_check;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeOwned, Error as _};

use self::deserializer::{TraceDeserializer, TraceSpot};
use self::rules::{ReadRules, TypePath};
use self::type_check::{CheckTarget, TypeCheck};
use crate::schema::types::Type;

/// The name of [`EventTime`](crate::time::EventTime) in serde's data model.
pub(crate) const EVENT_TIME: &str = "$thalweg::EventTime";

/// The result of tracing a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Its structure.
    pub ty: Type,
    /// The type's name in serde's data model, if it is a struct with named fields.
    pub name: Option<&'static str>,
    /// How it reads data written by others.
    pub rules: ReadRules,
}

/// Traces `T`.
pub(crate) fn trace<T: DeserializeOwned>() -> Traced {
    trace_with(&mut |trace| T::deserialize(trace).map(drop))
}

/// What can be told, without data, about a type that is read from bytes without names.
pub(crate) struct Samples<T> {
    /// Values made of placeholders: one with something in each option, list and map, one with nothing in the
    /// innermost of them, and so on, to nothing in any.
    pub values: Vec<T>,
    /// Whether a part of the type inspects the data before it knows what to read: it needs a self-describing
    /// format.
    pub self_describing: bool,
}

/// Creates samples of `T`.
pub(crate) fn samples<T: DeserializeOwned>() -> Samples<T> {
    let (sample, mut values) = (Cell::new(None), Vec::new());
    let self_describing = each_sample(
        &mut |trace| {
            sample.set(None);
            sample.set(Some(T::deserialize(trace)?));
            Ok(())
        },
        &mut || values.extend(sample.take()),
    );
    Samples {
        values,
        self_describing,
    }
}

/// Calls `sampled` after each successful reading. Returns whether a part of the type inspects the data before
/// it knows what to read.
fn each_sample(read: Read<'_>, sampled: &mut dyn FnMut()) -> bool {
    let mut state = TraceState {
        binary: true,
        ..TraceState::default()
    };
    for depth in 0..=DEPTH_MAX {
        state.chosen.clear();
        state.attempts = 0;
        state.settle(depth, read);
        sampled();
    }
    state.self_describing
}

/// The structure of a type that is kept as encoded rows, as checkpoints compare it.
pub(crate) fn stored_structure<T: DeserializeOwned>() -> String {
    told(&mut |trace| T::deserialize(trace).map(drop), Traced::stored)
}

/// The structure of a type, as checkpoints compare it.
pub(crate) fn structure<T: DeserializeOwned>() -> String {
    told(&mut |trace| T::deserialize(trace).map(drop), |traced| {
        traced.ty.clone()
    })
}

/// Compiled once, including everything that depends on a trace.
fn told(read: Read<'_>, tell: fn(&Traced) -> Type) -> String {
    tell(&trace_with(read)).to_string()
}

/// Reads the type from a deserializer.
type Read<'r> = &'r mut dyn FnMut(TraceDeserializer<'_>) -> Result<(), TypeRefusal>;

/// Traces what `read` reads: once per variant encountered.
fn trace_with(read: Read<'_>) -> Traced {
    let mut state = TraceState::default();
    let Some(mut ty) = state.read(read) else {
        return Traced {
            ty: Type::Json,
            name: None,
            rules: ReadRules::default(),
        };
    };
    let name = state.now.name;
    let mut unseen: Vec<_> = state.unseen(0..usize::MAX);
    while let Some((prefix, leaf)) = unseen.pop() {
        state.chosen = prefix;
        if let Some(other) = state.read(read) {
            ty.merge(other);
            let inside = (state.now.enums.get(&leaf)).map_or(0..0, |met| met.leaves.clone());
            unseen.extend(state.unseen(inside));
        }
    }
    Traced {
        ty,
        name,
        rules: state.rules,
    }
}

/// Maximum number of readings of one type.
const ATTEMPTS_MAX: usize = 4_096;
/// Below this depth, options, sequences and maps are left empty, which ends recursive types.
const DEPTH_MAX: usize = 6;
/// Below this depth, or beyond this many values, a type counts as infinite.
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

/// The error with which a type refused its input.
#[derive(Debug)]
pub(crate) struct TypeRefusal {
    why: String,
    complaint: NameComplaint,
}

/// What a type's error says about names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameComplaint {
    /// A field is missing, under its own name.
    Missing(&'static str),
    /// A field is duplicated, under its own name.
    Twice(&'static str),
    /// The field or variant is unknown.
    Unknown,
    /// Nothing about names.
    Other,
}

impl TypeRefusal {
    fn new(why: &str) -> Self {
        Self::custom(why)
    }
}

impl fmt::Display for TypeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
impl std::error::Error for TypeRefusal {}
impl serde::de::Error for TypeRefusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            why: message.to_string(),
            complaint: NameComplaint::Other,
        }
    }
    fn missing_field(field: &'static str) -> Self {
        Self {
            complaint: NameComplaint::Missing(field),
            ..Self::custom(format_args!("missing field `{field}`"))
        }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self {
            complaint: NameComplaint::Twice(field),
            ..Self::custom(format_args!("duplicate field `{field}`"))
        }
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self {
            complaint: NameComplaint::Unknown,
            ..Self::custom(format_args!("unknown field `{field}`"))
        }
    }
    fn unknown_variant(variant: &str, _: &'static [&'static str]) -> Self {
        Self {
            complaint: NameComplaint::Unknown,
            ..Self::custom(format_args!("unknown variant `{variant}`"))
        }
    }
}

#[derive(Default)]
struct TraceState {
    /// The placeholder of each leaf, in the order of requests.
    chosen: Vec<usize>,
    /// The observations of the current reading.
    now: TraceReading,
    attempts: usize,
    rules: ReadRules,
    /// The question that the current reading is to answer, if it does not trace the structure.
    probe: Option<TypeCheck>,
    /// Number of values that probes have read.
    probed: usize,
    /// Whether types are to behave as with a binary format.
    binary: bool,
    /// Whether a type asked what the data is.
    self_describing: bool,
}

/// One reading of the type.
#[derive(Default)]
struct TraceReading {
    name: Option<&'static str>,
    leaves: usize,
    /// Number of parts of types that were begun.
    parts: usize,
    /// The first leaf that refused its placeholder, and its number of placeholders.
    refused: Option<(usize, usize)>,
    /// The last leaf that accepted its placeholder, likewise.
    taken: Option<(usize, usize)>,
    /// The enums encountered, by the leaf that chose the variant.
    enums: BTreeMap<usize, Enum>,
    /// The enums that the reading is currently inside of, by variant.
    within: Vec<*const &'static str>,
    /// The number of these that are not followed: their contents are not part of the type.
    unfollowed: usize,
    /// The place of the latest request.
    place: TypePath,
    /// What remains to be examined.
    met: Vec<CheckTarget>,
}

/// An enum that was encountered.
struct Enum {
    variants: usize,
    /// The leaves inside the chosen variant.
    leaves: Range<usize>,
}

impl TraceState {
    /// Reads the type and examines what it encountered.
    fn read(&mut self, read: Read<'_>) -> Option<Type> {
        loop {
            let ty = self.settle(0, read)?;
            if !self.examine(read) {
                return Some(ty);
            }
        }
    }

    /// Reads the type as often as it takes to find placeholders that it accepts. If there are none, returns
    /// the reading that got furthest.
    fn settle(&mut self, depth: usize, read: Read<'_>) -> Option<Type> {
        let mut furthest: Option<(Vec<usize>, TraceReading, Type)> = None;
        while self.attempts < ATTEMPTS_MAX {
            self.attempts += 1;
            let (accepted, ty) = self.once(depth, read);
            if accepted.is_ok() {
                return Some(ty);
            }
            // A type that validates what it has read refuses it late: the last input is to blame.
            let blamed = self.now.refused.or(self.now.taken);
            if (furthest.as_ref()).is_none_or(|(_, reading, _)| reading.parts < self.now.parts) {
                furthest = Some((self.chosen.clone(), std::mem::take(&mut self.now), ty));
            }
            if !blamed.is_some_and(|leaf| self.next_placeholder(leaf)) {
                break;
            }
        }
        let (chosen, reading, ty) = furthest?;
        (self.chosen, self.now) = (chosen, reading);
        Some(ty)
    }

    /// Reads the type once.
    fn once(&mut self, depth: usize, read: Read<'_>) -> (Result<(), TypeRefusal>, Type) {
        self.now = TraceReading::default();
        let mut ty = Type::Json;
        let spot = TraceSpot {
            state: self,
            depth,
            level: 0,
        };
        let accepted = read(TraceDeserializer { spot, ty: &mut ty });
        (accepted, ty)
    }

    /// The choices that lead to unseen variants of enums whose leaves are in `within`.
    fn unseen(&self, within: Range<usize>) -> Vec<(Vec<usize>, usize)> {
        let mut unseen = Vec::new();
        for (leaf, met) in self.now.enums.iter().filter(|(leaf, _)| within.contains(leaf)) {
            for variant in (0..met.variants).filter(|variant| *variant != self.chosen[*leaf]) {
                let mut chosen = self.chosen[..*leaf].to_vec();
                chosen.push(variant);
                unseen.push((chosen, *leaf));
            }
        }
        unseen
    }

    fn leaf(&mut self) -> Result<(usize, usize), TypeRefusal> {
        let leaf = self.now.leaves;
        self.now.leaves += 1;
        if leaf >= LEAVES_MAX {
            return Err(TypeRefusal::new("endless type"));
        }
        if leaf == self.chosen.len() {
            self.chosen.push(0);
        }
        Ok((leaf, self.chosen[leaf]))
    }

    /// Records whether a leaf was accepted.
    fn visited<R>(&mut self, leaf: usize, placeholders: usize, visited: &Result<R, TypeRefusal>) {
        match visited {
            Ok(_) => self.now.taken = Some((leaf, placeholders)),
            Err(_) => drop(self.now.refused.get_or_insert((leaf, placeholders))),
        }
    }

    /// Whether there is another placeholder for a leaf.
    fn next_placeholder(&mut self, (leaf, placeholders): (usize, usize)) -> bool {
        self.chosen[leaf] += 1;
        self.chosen.truncate(leaf + 1);
        self.chosen[leaf] < placeholders
    }
}

#[cfg(test)]
mod tests;
