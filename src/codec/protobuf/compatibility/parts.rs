//! What has parts: messages as structs and as maps, lists, maps, enums.

use super::{At, Comparison, Has, has, may_be_absent};
use crate::codec::compatibility::words::{MISSING, below, wanted};
use crate::codec::protobuf::schema::{Enum, Field, Kind, Known, MessageId};
use crate::schema::types::{Type, Variant};

const ABSENT: &str = "a record may be without it, and the type needs it";
const OPTIONAL: &str = "make it an Option, or write `#[serde(default)]` on it";

impl<'s> Comparison<'s> {
    /// A struct.
    pub(super) fn fields(&mut self, fields: &[(&'static str, Type)], id: MessageId, at: At<'_>) {
        let (rules, message) = (self.rules.of_struct(&self.place), &self.schema.messages[id]);
        for (part, (name, ty)) in fields.iter().enumerate() {
            let rule = rules.map(|rules| &rules.fields[part]);
            let needed = rule.is_some_and(|rule| rule.required);
            let aliases = rule.map_or(&[][..], |rule| &rule.aliases);
            let names = || std::iter::once(name).chain(aliases);
            let path = below(at.path, name);
            let std = |field: &&Field| {
                message.known == Some(Known::Duration) && field.name == "seconds" && *name == "secs"
            };
            let named = |field: &&Field| names().any(|name| field.is_called(name)) || std(field);
            let oneof = message
                .oneofs
                .iter()
                .position(|oneof| names().any(|name| name == oneof));
            match (message.fields.iter().find(named), oneof) {
                (Some(field), _) => {
                    let absent = may_be_absent(field);
                    if absent && needed {
                        self.note(
                            At {
                                every: false,
                                ..at.part(&path, true)
                            },
                            ABSENT.to_owned(),
                            OPTIONAL,
                        );
                    }
                    self.part(part, |own| own.compare(ty, has(field), at.part(&path, !absent)));
                }
                (None, Some(oneof)) => {
                    if needed {
                        self.note(
                            At {
                                every: false,
                                ..at.part(&path, true)
                            },
                            ABSENT.to_owned(),
                            OPTIONAL,
                        );
                    }
                    let has = Has::Oneof(id, oneof);
                    self.part(part, |own| own.compare(ty, has, at.part(&path, false)));
                }
                (None, None) if needed => {
                    let remedy = "write `#[serde(default)]` on it or make it an Option, or name the schema's field \
                                  with `#[serde(rename = …)]`";
                    self.note(at.part(&path, true), MISSING.to_owned(), remedy);
                }
                (None, None) => {}
            }
        }
    }

    /// A struct that takes other fields besides those that it needs.
    pub(super) fn flattened(&mut self, fields: &[(&'static str, Type)], has_: Has<'s>, at: At<'_>) {
        let Has::One(Kind::Message(id) | Kind::Group(id)) = has_ else {
            return self.differs(at, has_, "a struct");
        };
        let message = &self.schema.messages[id];
        for (part, (name, ty)) in fields.iter().enumerate() {
            let path = below(at.path, name);
            match message.fields.iter().find(|field| field.name == *name) {
                Some(field) => {
                    let every = !may_be_absent(field);
                    self.part(part, |own| own.compare(ty, has(field), at.part(&path, every)));
                }
                None => {
                    let remedy = "name the schema's field with `#[serde(rename = …)]`";
                    self.note(at.part(&path, true), MISSING.to_owned(), remedy);
                }
            }
        }
    }

    /// A map.
    pub(super) fn entries(&mut self, key: &Type, values: &Type, given: Has<'s>, at: At<'_>) {
        match given {
            Has::Map(field) => {
                let Some(entry) = field.kind.message() else { return };
                let path = format!("{}{{}}", at.path);
                // It may be empty.
                let some = at.part(&path, false);
                for field in &self.schema.messages[entry].fields {
                    match field.number {
                        1 => self.part(0, |own| own.compare(key, Has::Key(field.kind), some)),
                        _ => self.part(1, |own| own.compare(values, has(field), some)),
                    }
                }
            }
            Has::One(Kind::Message(id) | Kind::Group(id)) => {
                let message = &self.schema.messages[id];
                for field in &message.fields {
                    let path = below(at.path, &field.name);
                    let every = !may_be_absent(field);
                    self.part(1, |own| own.compare(values, has(field), at.part(&path, every)));
                }
            }
            _ => self.differs(at, given, "a map"),
        }
    }

    /// A list or a tuple.
    pub(super) fn items(&mut self, ty: &Type, has: Has<'s>, at: At<'_>) {
        let path = format!("{}[]", at.path);
        // How many there are is known from the data alone.
        let some = at.part(&path, false);
        match (ty, has) {
            (Type::List(item), Has::Many(kind)) => {
                self.part(0, |own| own.compare(item, Has::One(kind), some))
            }
            (Type::Tuple(types), Has::Many(kind)) => {
                for (part, ty) in types.iter().enumerate() {
                    self.part(part, |own| own.compare(ty, Has::One(kind), some));
                }
            }
            (_, Has::One(Kind::Bytes)) => {}
            _ => self.differs(at, has, &wanted(ty)),
        }
    }

    /// An enum: by the values of the schema's, or by the members of a oneof.
    pub(super) fn variant(&mut self, variants: &[Variant], has: Has<'s>, at: At<'_>) {
        match has {
            Has::One(Kind::Enum(id)) => self.symbols(variants, &self.schema.enums[id], at),
            Has::One(Kind::String) | Has::Key(Kind::String) => {}
            Has::Oneof(id, oneof) => self.members(variants, id, oneof, at),
            Has::One(Kind::Message(id) | Kind::Group(id)) => match self.schema.messages[id].alternative() {
                Some(oneof) => self.members(variants, id, oneof, at),
                None => self.differs(at, has, "an enum"),
            },
            _ => self.differs(at, has, "an enum"),
        }
    }

    fn symbols(&mut self, variants: &[Variant], symbols: &Enum, at: At<'_>) {
        let rules = self.rules.of_enum(&self.place);
        if rules.takes_unknown || rules.has_aliases {
            return;
        }
        let takes = |name: &str| variants.iter().any(|own| own.name == name && may_be_unit(own));
        let values = symbols.values.iter();
        let refused: Vec<_> = values
            .filter(|value| !takes(&value.name) && !takes(&value.variant))
            .collect();
        if let Some(first) = refused.first() {
            let every = refused.len() == symbols.values.len();
            let problem = format!(
                "the schema's enum has the value `{}`, the type has no such variant",
                first.name
            );
            let remedy = format!(
                "add `{}`, with nothing in it, or give one variant the attribute `#[serde(other)]`",
                first.variant
            );
            self.note(at.part(at.path, every), problem, &remedy);
        }
    }

    fn members(&mut self, variants: &[Variant], id: MessageId, oneof: usize, at: At<'_>) {
        let rules = self.rules.of_enum(&self.place);
        let message = &self.schema.messages[id];
        let members = message.fields.iter().filter(|field| field.oneof == Some(oneof));
        for field in members {
            let takes = |own: &&Variant| field.is_called(own.name) || field.variant == own.name;
            match variants.iter().position(|own| takes(&own)) {
                Some(part) => {
                    if let (Some(content), false) = (&variants[part].content, rules.has_aliases) {
                        let path = below(at.path, &field.name);
                        self.part(part, |own| {
                            own.compare(content, has(field), at.part(&path, false))
                        });
                    }
                }
                None if rules.takes_unknown || rules.has_aliases => {}
                None => {
                    let problem = format!(
                        "the schema's oneof has the member `{}`, the type has no such variant",
                        field.name
                    );
                    let remedy = format!("add `{}`, or a variant with `#[serde(other)]`", field.variant);
                    self.note(at.part(at.path, false), problem, &remedy);
                }
            }
        }
    }
}

fn may_be_unit(variant: &Variant) -> bool {
    matches!(variant.content, None | Some(Type::Json))
}
