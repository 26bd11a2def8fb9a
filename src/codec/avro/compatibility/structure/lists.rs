//! Lists: arrays, bytes as numbers, the three parts of a duration.

use super::super::leaf::unasked_number;
use super::{Comparison, DataPath};
use crate::codec::avro::schema::{Logical, Node, NodeKind};
use crate::schema::types::Type;

/// The parts of a duration.
pub(super) const DURATION: [&str; 3] = ["months", "days", "milliseconds"];
/// Bits of each of them, and of a byte.
pub(super) const DURATION_BITS: u8 = 32;
const BYTE_BITS: u8 = 8;

pub(super) fn is_duration(node: &Node) -> bool {
    node.logical == Some(Logical::Duration)
}

impl<'s> Comparison<'s> {
    /// A list or a tuple.
    pub(super) fn items(&mut self, ty: &Type, node: &'s Node, at: DataPath<'_>) {
        match &node.kind {
            NodeKind::Array(item) => {
                let item = self.schema.node(*item);
                // How many there are is known from the data alone.
                self.elements(ty, at, false, |own, ty, at| own.compare(ty, item, at));
            }
            _ if is_duration(node) => {
                if self.counted(ty, DURATION.len(), at) {
                    self.elements(ty, at, true, |own, ty, at| {
                        own.unasked(ty, DURATION_BITS, node, at);
                    });
                }
            }
            NodeKind::Fixed(fixed) => {
                if self.counted(ty, fixed.size, at) {
                    let some = fixed.size > 0;
                    self.elements(ty, at, some, |own, ty, at| own.unasked(ty, BYTE_BITS, node, at));
                }
            }
            NodeKind::Bytes => {
                self.elements(ty, at, false, |own, ty, at| own.unasked(ty, BYTE_BITS, node, at))
            }
            _ => self.differs(at, node, "a list"),
        }
    }

    /// Compares the types of a list's elements; `every`: it has some.
    fn elements(
        &mut self,
        ty: &Type,
        at: DataPath<'_>,
        every: bool,
        mut compare: impl FnMut(&mut Self, &Type, DataPath<'_>),
    ) {
        match ty {
            Type::Tuple(types) => {
                for (part, ty) in types.iter().enumerate() {
                    let path = format!("{}[{part}]", at.path);
                    self.part(part, |own| compare(own, ty, at.part(&path, every)));
                }
            }
            Type::List(ty) => {
                let path = format!("{}[]", at.path);
                self.part(0, |own| compare(own, ty, at.part(&path, every)));
            }
            _ => {}
        }
    }

    /// Whether a type takes so many elements; told of if it does not.
    fn counted(&mut self, ty: &Type, count: usize, at: DataPath<'_>) -> bool {
        match ty {
            Type::Tuple(types) if types.len() != count => {
                let wanted = types.len();
                let problem = format!("the schema has {count} parts, the type wants {wanted}");
                self.note(at, problem, "take all of them");
                false
            }
            _ => true,
        }
    }

    /// A number that the type gets whatever it asks for.
    pub(super) fn unasked(&mut self, ty: &Type, bits: u8, node: &Node, at: DataPath<'_>) {
        let answer = unasked_number(ty, self.rules.is_newtype(&self.place), bits);
        self.leaf(ty, answer, node, at);
    }
}
