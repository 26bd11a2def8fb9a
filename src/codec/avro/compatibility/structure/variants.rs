//! Enums: by a symbol, by a number or a text in the data, or by the name of a union's branch.

use super::super::leaf::fitting;
use super::{Comparison, DataPath};
use crate::codec::avro::datum::type_name;
use crate::codec::avro::schema::{Node, NodeKind};
use crate::schema::types::{Type, Variant};

impl<'s> Comparison<'s> {
    /// What of a schema that is no union is a variant.
    pub(super) fn variant(&mut self, variants: &[Variant], node: &'s Node, at: DataPath<'_>) {
        let rules = self.rules.of_enum(&self.place);
        match &node.kind {
            NodeKind::Enum(symbols) if !at.by_type => {
                // By a symbol nothing can be told that a variant holds.
                let takes = |symbol: &str| match variants.iter().find(|variant| variant.name == symbol) {
                    Some(variant) => rules.has_aliases || may_be_unit(variant),
                    None => rules.takes_unknown,
                };
                let refused = symbols.symbols.iter().find(|symbol| !takes(symbol));
                if let Some(symbol) = refused {
                    let some = symbols.symbols.iter().any(|symbol| takes(symbol));
                    let problem =
                        format!("the schema's enum has the symbol `{symbol}`, the type has no such variant");
                    let remedy = "add it, with nothing in it, or give one the attribute `#[serde(other)]`";
                    self.note(at.part(at.path, !some), problem, remedy);
                }
            }
            // The data name a variant.
            NodeKind::Int | NodeKind::Long | NodeKind::Bytes | NodeKind::String | NodeKind::Fixed(_)
                if !at.by_type && node.logical.is_none() =>
            {
                if !variants.iter().any(may_be_unit) && !rules.takes_unknown && !rules.has_aliases {
                    self.differs(at, node, "an enum whose variants hold something");
                }
            }
            _ => self.branch(variants, node, at),
        }
    }

    /// The variant with the name of the type that is written.
    fn branch(&mut self, variants: &[Variant], node: &'s Node, at: DataPath<'_>) {
        let rules = self.rules.of_enum(&self.place);
        let name = type_name(node);
        match variants.iter().position(|variant| variant.name == name) {
            Some(part) => {
                // What does not hold anything passes it over.
                if let (Some(content), false) = (&variants[part].content, rules.has_aliases) {
                    self.part(part, |own| own.compare(content, node, at.part(at.path, true)));
                }
            }
            None if rules.takes_unknown => {}
            None => {
                let has = self.schema.says(node);
                let problem =
                    format!("the schema has {has}, the type wants an enum, and has no variant `{name}`");
                self.note(at, problem, fitting(node));
            }
        }
    }
}

fn may_be_unit(variant: &Variant) -> bool {
    matches!(variant.content, None | Some(Type::Json))
}
