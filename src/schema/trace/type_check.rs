//! Probes what a type accepts besides what it requests, by supplying it.
//!
//! A probe is a reading like any other up to one position. There the type is given fields with chosen names,
//! or a variant with a name that it cannot know, and its error is the answer.

use super::rules::{EnumRules, FieldRules, StructRules, TypePath};
use super::{NameComplaint, Read, TraceState};
use crate::schema::types::Type;

/// A name that no field and no variant has.
pub(super) const UNKNOWN: &str = "$thalweg::unknown";
/// Number of values that all probes of one type may read. What is not determined by then stays unknown.
const PROBED_MAX: usize = 1_000_000;

/// Something that a reading encountered and that can be examined.
pub(super) struct CheckTarget {
    pub(super) place: TypePath,
    /// Number of leaves before it.
    pub(super) leaves: usize,
    pub(super) what: TargetKind,
}

pub(super) enum TargetKind {
    Struct {
        name: &'static str,
        /// The names of its fields, including aliases.
        names: &'static [&'static str],
        /// Number of leaves before each field that it read, in order.
        leaves: Vec<usize>,
        /// Whether it accepted these.
        read_whole: bool,
    },
    /// A map that did not accept its key: a struct that takes further fields.
    Flattened,
    Enum {
        has_aliases: bool,
    },
}

/// A question about what is at a position.
pub(super) struct TypeCheck {
    pub(super) place: TypePath,
    /// The fields that it is given.
    pub(super) fields: Vec<GivenField>,
    /// Their types, as far as they were read.
    pub(super) types: Vec<Type>,
    pub(super) answer: Option<CheckAnswer>,
}

/// A field given to a struct.
#[derive(Clone, Copy)]
pub(super) struct GivenField {
    pub(super) name: &'static str,
    /// The index of the part of the struct, if known.
    pub(super) part: usize,
    /// Number of leaves before it when it was read in order: their placeholders are known to be accepted.
    pub(super) leaf: Option<usize>,
}

impl GivenField {
    /// A field of which nothing is known.
    fn unknown(name: &'static str) -> Self {
        Self {
            name,
            part: usize::MAX,
            leaf: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckAnswer {
    Accepted,
    Refused(NameComplaint),
}

impl TraceState {
    /// Examines what the last reading encountered. Returns whether the type must be read again because it now
    /// reads differently.
    pub(super) fn examine(&mut self, read: Read<'_>) -> bool {
        let (chosen, settled) = (self.chosen.clone(), std::mem::take(&mut self.now));
        let mut again = false;
        // Nothing around a flattened struct is accepted before it is.
        for met in settled
            .met
            .iter()
            .filter(|met| matches!(met.what, TargetKind::Flattened))
        {
            self.chosen.truncate(met.leaves);
            let part = |name, part| GivenField {
                name,
                part,
                leaf: None,
            };
            let (needed, types) = self.needed(met, part, read);
            let fields = needed.into_iter().zip(types).collect();
            self.rules.flattened.insert(met.place.clone(), fields);
            self.chosen.clone_from(&chosen);
            again = true;
        }
        let others = if again { &[] } else { settled.met.as_slice() };
        for met in others {
            match &met.what {
                TargetKind::Flattened => {}
                TargetKind::Struct { names, .. } => {
                    let rules = self.examine_struct(met, read);
                    again |= rules.fields.len() < names.len();
                    self.rules.structs.insert(met.place.clone(), rules);
                }
                TargetKind::Enum { has_aliases } => {
                    let rules = EnumRules {
                        takes_unknown: self.ask(met, &[], read).0 == CheckAnswer::Accepted,
                        has_aliases: *has_aliases,
                    };
                    self.rules.enums.insert(met.place.clone(), rules);
                }
            }
            self.chosen.clone_from(&chosen);
        }
        self.now = settled;
        again
    }

    fn examine_struct(&mut self, met: &CheckTarget, read: Read<'_>) -> StructRules {
        let TargetKind::Struct {
            name,
            names,
            leaves,
            read_whole,
        } = &met.what
        else {
            return StructRules::default();
        };
        let chosen = self.chosen.clone();
        let mut own_names = names.to_vec();
        if !read_whole || leaves.len() < names.len() {
            for own in &mut own_names {
                self.chosen.truncate(met.leaves);
                let twice = [GivenField::unknown(own); 2];
                if let (CheckAnswer::Refused(NameComplaint::Twice(field)), _) = self.ask(met, &twice, read) {
                    *own = field;
                }
            }
            self.chosen = chosen;
        }
        let mut rules: Vec<FieldRules> = Vec::new();
        for (name, own) in names.iter().copied().zip(own_names) {
            let known = rules.iter().position(|field| field.name == own);
            let at = known.unwrap_or_else(|| {
                rules.push(FieldRules {
                    name: own,
                    aliases: Vec::new(),
                    required: false,
                });
                rules.len() - 1
            });
            if name != own {
                rules[at].aliases.push(name);
            }
        }
        let unknown = [GivenField::unknown(UNKNOWN)];
        let denies_unknown = self.ask(met, &unknown, read).0 == CheckAnswer::Refused(NameComplaint::Unknown);
        if *read_whole {
            let own_names: Vec<_> = rules.iter().map(|field| field.name).collect();
            let field = |name, _| {
                let part = own_names.iter().position(|own| *own == name);
                GivenField {
                    name,
                    part: part.unwrap_or(usize::MAX),
                    leaf: part.and_then(|part| leaves.get(part).copied()),
                }
            };
            let (needed, _) = self.needed(met, field, read);
            for field in &mut rules {
                field.required = needed.contains(&field.name);
            }
        }
        StructRules {
            name,
            fields: rules,
            denies_unknown,
        }
    }

    /// The fields that a struct cannot be read without, and their types: each attempt supplies the one that
    /// it reported missing. `field` creates one from its name and the number before it.
    fn needed(
        &mut self,
        met: &CheckTarget,
        field: impl Fn(&'static str, usize) -> GivenField,
        read: Read<'_>,
    ) -> (Vec<&'static str>, Vec<Type>) {
        let mut given: Vec<GivenField> = Vec::new();
        loop {
            let (answer, types) = self.ask(met, &given, read);
            match answer {
                CheckAnswer::Refused(NameComplaint::Missing(name))
                    if !given.iter().any(|field| field.name == name) =>
                {
                    given.push(field(name, given.len()));
                }
                _ => return (given.into_iter().map(|field| field.name).collect(), types),
            }
        }
    }

    /// Supplies these fields, with placeholders that they accept, and returns the answer.
    fn ask(&mut self, met: &CheckTarget, fields: &[GivenField], read: Read<'_>) -> (CheckAnswer, Vec<Type>) {
        let mut types = vec![Type::Json; fields.len()];
        while self.probed < PROBED_MAX {
            self.probe = Some(TypeCheck {
                place: met.place.clone(),
                fields: fields.to_vec(),
                types: vec![Type::Json; fields.len()],
                answer: None,
            });
            drop(self.once(0, read));
            self.probed += self.now.leaves + 1;
            let Some(probe) = self.probe.take() else { break };
            types = probe.types;
            let blamed = self.now.refused.or(self.now.taken);
            let blamed = blamed.filter(|(leaf, _)| *leaf >= met.leaves);
            match (probe.answer, blamed) {
                (Some(CheckAnswer::Refused(NameComplaint::Other)), Some(leaf))
                    if self.next_placeholder(leaf) => {}
                (Some(answer), _) => return (answer, types),
                (None, _) => break,
            }
        }
        (CheckAnswer::Refused(NameComplaint::Other), types)
    }
}
