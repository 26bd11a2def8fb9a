//! [`ReadRules`]: how a type reads data, beyond what its [`Type`] says.
//!
//! A [`Type`] describes the contents of a value. Data written by others may lack a field, name it
//! differently, or have fields that the type does not know; whether the type accepts that is defined by its
//! own `Deserialize`, and determined when it is traced.

use std::collections::{BTreeMap, BTreeSet};

use crate::schema::trace::Traced;
use crate::schema::types::{Type, Variant};

/// A position in a type: the part to take of each type on the way, from the outermost on. The content of an
/// option or a list is part 0, a map's key 0 and its values 1; fields, elements and variants count from 0.
/// Newtypes are not counted.
pub(crate) type TypePath = Vec<usize>;

/// How the parts of a type read data, by position. Nothing is known about other positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRules {
    pub(super) structs: BTreeMap<TypePath, StructRules>,
    pub(super) flattened: BTreeMap<TypePath, Vec<(&'static str, Type)>>,
    pub(super) enums: BTreeMap<TypePath, EnumRules>,
    pub(super) newtypes: BTreeSet<TypePath>,
}

/// How a struct reads data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StructRules {
    /// Its name in serde's data model.
    pub name: &'static str,
    /// Its fields, in the order of its type.
    pub fields: Vec<FieldRules>,
    /// Whether an unknown field is an error.
    pub denies_unknown: bool,
}

/// How a struct reads a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRules {
    /// Its own name.
    pub name: &'static str,
    /// Its aliases.
    pub aliases: Vec<&'static str>,
    /// Whether the struct cannot be read without it; `false` if that could not be determined.
    pub required: bool,
}

/// How an enum reads data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnumRules {
    /// Whether an unknown variant is read as one without content.
    pub takes_unknown: bool,
    /// Whether several names stand for one variant. Then the content of each is unknown.
    pub has_aliases: bool,
}

impl ReadRules {
    /// How the struct at a position reads data.
    pub fn of_struct(&self, place: &[usize]) -> Option<&StructRules> {
        self.structs.get(place)
    }

    /// The fields that a struct requires if it takes further fields (`#[serde(flatten)]`): its type is a map.
    /// Their positions are counted from 0 below it.
    pub fn of_flattened(&self, place: &[usize]) -> Option<&[(&'static str, Type)]> {
        self.flattened.get(place).map(Vec::as_slice)
    }

    /// How the enum at a position reads data.
    pub fn of_enum(&self, place: &[usize]) -> EnumRules {
        self.enums.get(place).copied().unwrap_or_default()
    }

    /// Whether a newtype is at a position: it is requested before its content.
    pub fn is_newtype(&self, place: &[usize]) -> bool {
        self.newtypes.contains(place)
    }
}

impl Traced {
    /// The type by which rows are encoded: a field that may be left out is distinguished from one that is
    /// present.
    pub fn stored(&self) -> Type {
        stored(&self.ty, &mut Vec::new(), &self.rules)
    }
}

fn stored(ty: &Type, place: &mut TypePath, rules: &ReadRules) -> Type {
    let mut part = |at: usize, ty: &Type| {
        place.push(at);
        let part = stored(ty, place, rules);
        place.pop();
        part
    };
    match ty {
        Type::Option(inner) => Type::Option(Box::new(part(0, inner))),
        Type::Default(inner) => Type::Default(Box::new(part(0, inner))),
        Type::List(inner) => Type::List(Box::new(part(0, inner))),
        Type::Map(key, value) => Type::Map(Box::new(part(0, key)), Box::new(part(1, value))),
        Type::Tuple(types) => Type::Tuple(types.iter().enumerate().map(|(at, ty)| part(at, ty)).collect()),
        Type::Enum(variants) => {
            let variants = variants.iter().enumerate();
            let variant = |(at, variant): (usize, &Variant)| Variant {
                name: variant.name,
                content: variant.content.as_ref().map(|ty| part(at, ty)),
            };
            Type::Enum(variants.map(variant).collect())
        }
        Type::Struct(fields) => {
            let inner = fields.iter().enumerate();
            let mut inner: Vec<_> = inner.map(|(at, (name, ty))| (*name, part(at, ty))).collect();
            let known = rules.of_struct(place).map_or(&[][..], |own| &own.fields);
            for ((name, ty), field) in inner.iter_mut().zip(known) {
                let may_be_null = matches!(ty, Type::Option(_) | Type::Unit | Type::Json);
                if *name == field.name && !field.required && !may_be_null {
                    *ty = Type::Default(Box::new(std::mem::replace(ty, Type::Unit)));
                }
            }
            Type::Struct(inner)
        }
        other => other.clone(),
    }
}
