//! What is learnt of a type from the attempts to read it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Expected, Unexpected};

use super::super::below;
use super::TEXTS;
use crate::codec::avro::schema::Schema;
use crate::codec::fit::Misfit;

pub(super) struct State<'s> {
    pub(super) schema: &'s Schema,
    pub(super) misfits: Vec<Misfit>,
    /// Places that get whatever the type asks for, whatever the schema says.
    pub(super) given: HashSet<String>,
    /// Which placeholder a place gets.
    pub(super) chosen: HashMap<String, usize>,
}

/// Why a type could not be read to its end; `at`: the innermost place that is known.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) at: Option<String>,
    pub(super) every: bool,
    pub(super) why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    Missing(&'static str),
    /// The schema's kind of value is none of the type's.
    Kind(String),
    /// The type did not like the value.
    Value,
    Endless,
}

impl State<'_> {
    pub(super) fn note(&mut self, path: &str, problem: String, remedy: &str, every: bool) {
        // A type is read several times.
        if !self
            .misfits
            .iter()
            .any(|misfit| misfit.path == path && misfit.problem == problem)
        {
            self.misfits.push(Misfit {
                path: path.to_owned(),
                problem,
                remedy: remedy.to_owned(),
                every,
            });
        }
    }

    /// Takes a lesson from a failure; whether another attempt may come further.
    pub(super) fn again(&mut self, stop: Stop) -> bool {
        let at = stop.at.unwrap_or_default();
        match stop.why {
            Why::Missing(field) => {
                let path = below(&at, field);
                let remedy = "write `#[serde(default)]` on it or make it an Option, name the schema's field with `#[serde(alias = …)]`, \
                              or give a reader's schema in which it has a default";
                self.note(
                    &path,
                    "the schema has no such field, and the type needs it".into(),
                    remedy,
                    stop.every,
                );
                self.given.insert(path)
            }
            Why::Kind(what) => {
                self.note(&at, what, "change the type of the field", stop.every);
                self.given.insert(at)
            }
            Why::Value => {
                let chosen = self.chosen.entry(at).or_default();
                *chosen += 1;
                *chosen < TEXTS.len()
            }
            Why::Endless => false,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.why)
    }
}
impl std::error::Error for Stop {}
impl Stop {
    pub(super) fn of(why: Why) -> Self {
        Self {
            at: None,
            every: true,
            why,
        }
    }
}
impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::of(Why::Value)
    }
    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::of(Why::Kind(format!(
            "the schema has {found}, the type wants {wanted}"
        )))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::of(Why::Missing(field))
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::of(Why::Kind(format!(
            "the schema has a field `{field}`, and the type denies those that it lacks"
        )))
    }
}
