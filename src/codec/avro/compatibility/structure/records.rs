//! Records and maps, as structs and as maps.

use super::lists::{DURATION, DURATION_BITS, is_duration};
use super::{Comparison, DataPath, ENTRY};
use crate::codec::avro::schema::{Node, NodeKind, Record};
use crate::codec::compatibility::Incompatibility;
use crate::codec::compatibility::words::{MISSING, below};
use crate::schema::trace::rules::StructRules;
use crate::schema::types::Type;

/// What a record or a duration has under a name.
#[derive(Clone, Copy)]
enum RecordPart<'s> {
    Node(&'s Node),
    /// A part of the duration that this is.
    Number(&'s Node),
}

impl<'s> Comparison<'s> {
    /// A struct.
    pub(super) fn fields(&mut self, fields: &[(&'static str, Type)], node: &'s Node, at: DataPath<'_>) {
        let rules = self.rules.of_struct(&self.place);
        match &node.kind {
            NodeKind::Record(record) => self.record(fields, rules, self.parts(record), at),
            _ if is_duration(node) => self.record(fields, rules, duration(node), at),
            // Its keys may be the fields.
            NodeKind::Map(values) => {
                let values = self.schema.node(*values);
                for (part, (name, ty)) in fields.iter().enumerate() {
                    let needed = rules.is_some_and(|rules| rules.fields[part].required);
                    let path = below(at.path, name);
                    self.part(part, |own| own.compare(ty, values, at.part(&path, needed)));
                }
            }
            kind => {
                let name = rules.map(|rules| rules.name).filter(|name| !name.is_empty());
                let wanted = name.map_or("a struct".to_owned(), |name| format!("struct {name}"));
                // The items of an array may be its fields, one after the other.
                let every = match kind {
                    NodeKind::Array(item) => self.hopeless(fields, self.schema.node(*item), at),
                    _ => true,
                };
                self.differs(at.part(at.path, every), node, &wanted);
            }
        }
    }

    /// Whether no value of `item` is one of the first of these fields.
    fn hopeless(&mut self, fields: &[(&'static str, Type)], item: &'s Node, at: DataPath<'_>) -> bool {
        let begin = self.incompatibilities.len();
        for (part, (_, ty)) in fields.iter().enumerate() {
            let alone = DataPath {
                path: at.path,
                every: true,
                by_type: false,
            };
            self.part(part, |own| own.compare(ty, item, alone));
        }
        let incompatibilities: Vec<Incompatibility> = self.incompatibilities.drain(begin..).collect();
        incompatibilities
            .iter()
            .any(|incompatibility| incompatibility.every)
    }

    fn record(
        &mut self,
        fields: &[(&'static str, Type)],
        rules: Option<&StructRules>,
        parts: Vec<(&'s str, RecordPart<'s>)>,
        at: DataPath<'_>,
    ) {
        let takes = |part: usize, name: &str| {
            let aliases = rules.map_or(&[][..], |rules| &rules.fields[part].aliases);
            fields[part].0 == name || aliases.contains(&name)
        };
        let mut taken: Vec<Option<&str>> = vec![None; fields.len()];
        for (name, found) in parts {
            let Some(part) = (0..fields.len()).find(|part| takes(*part, name)) else {
                if rules.is_some_and(|rules| rules.denies_unknown) {
                    let problem =
                        format!("the schema has a field `{name}`, and the type denies those that it lacks");
                    self.note(at, problem, "change the type of the field");
                }
                continue;
            };
            if let Some(other) = taken[part].replace(name) {
                let problem =
                    format!("the schema has `{other}` and `{name}`, and both are one field of the type");
                self.note(at, problem, "make them two fields, without the alias");
            }
            let path = below(at.path, name);
            self.part(part, |own| {
                own.found(&fields[part].1, found, at.part(&path, true))
            });
        }
        for (part, (name, _)) in fields.iter().enumerate() {
            let needed = rules.is_some_and(|rules| rules.fields[part].required);
            if needed && taken[part].is_none() {
                self.missing(name, at);
            }
        }
    }

    /// A struct that takes other fields besides those that it needs.
    pub(super) fn flattened(&mut self, fields: &[(&'static str, Type)], node: &'s Node, at: DataPath<'_>) {
        let parts = match &node.kind {
            NodeKind::Record(record) => self.parts(record),
            _ if is_duration(node) => duration(node),
            // Its keys may be the fields.
            NodeKind::Map(_) => return,
            _ => return self.differs(at, node, "a map"),
        };
        for (part, (name, ty)) in fields.iter().enumerate() {
            match parts.iter().find(|(own, _)| own == name) {
                Some((_, found)) => {
                    let path = below(at.path, name);
                    self.part(part, |own| own.found(ty, *found, at.part(&path, true)));
                }
                None => self.missing(name, at),
            }
        }
    }

    fn missing(&mut self, field: &str, at: DataPath<'_>) {
        let path = below(at.path, field);
        let problem = MISSING.to_owned();
        let remedy = "write `#[serde(default)]` on it or make it an Option, name the schema's field with \
                      `#[serde(alias = …)]`, or give a reader's schema in which it has a default";
        self.note(at.part(&path, true), problem, remedy);
    }

    /// A map.
    pub(super) fn entries(&mut self, key: &Type, values: &Type, node: &'s Node, at: DataPath<'_>) {
        let parts = match &node.kind {
            NodeKind::Map(entries) => {
                // It may be empty.
                let some = at.part(at.path, false);
                self.key(key, None, node, some);
                let path = below(at.path, ENTRY);
                let entries = self.schema.node(*entries);
                return self.part(1, |own| own.compare(values, entries, some.part(&path, false)));
            }
            NodeKind::Record(record) => self.parts(record),
            _ if is_duration(node) => duration(node),
            _ => return self.differs(at, node, "a map"),
        };
        for (name, found) in parts {
            self.key(key, Some(name), node, at);
            let path = below(at.path, name);
            self.part(1, |own| own.found(values, found, at.part(&path, true)));
        }
    }

    /// A map's key is text, whatever the type asks for: this one, if it is known.
    fn key(&mut self, key: &Type, name: Option<&str>, node: &Node, at: DataPath<'_>) {
        let (is_newtype, rules) = self.part(0, |own| {
            (own.rules.is_newtype(&own.place), own.rules.of_enum(&own.place))
        });
        let known = |name: &str| match key {
            Type::Enum(variants) => {
                rules.takes_unknown || variants.iter().any(|variant| variant.name == name)
            }
            _ => true,
        };
        let fits = match key {
            _ if is_newtype => false,
            Type::Json | Type::Text | Type::Bytes => true,
            Type::Enum(_) => name.is_none_or(known),
            _ => false,
        };
        if !fits {
            let has = self.schema.says(node);
            let problem = format!("the keys of the schema's {has} are text, and no keys of the type");
            self.note(at, problem, "String takes them");
        }
    }

    fn found(&mut self, ty: &Type, found: RecordPart<'s>, at: DataPath<'_>) {
        match found {
            RecordPart::Node(node) => self.compare(ty, node, at),
            RecordPart::Number(node) => self.unasked(ty, DURATION_BITS, node, at),
        }
    }

    fn parts(&self, record: &'s Record) -> Vec<(&'s str, RecordPart<'s>)> {
        let part = |field: &'s crate::codec::avro::schema::Field| {
            (
                field.name.as_str(),
                RecordPart::Node(self.schema.node(field.node)),
            )
        };
        record.fields.iter().map(part).collect()
    }
}

fn duration(node: &Node) -> Vec<(&str, RecordPart<'_>)> {
    DURATION.map(|name| (name, RecordPart::Number(node))).into()
}
