//! Which fields of a message a type takes, and where the bytes have them.
//!
//! Protobuf writes fields in any order, leaves out what is at its default, and may write one several times.
//! serde wants each field once. So a message is scanned once: each field that the type takes has a slot, in
//! which the scan notes where its values stand. What nobody takes is passed over.
//!
//! ```text
//!   struct fields: &'static [&'static str] ┐
//!   message of the schema ─────────────────┴─▶ Layout, made when they first meet
//!                                               ├─ number ─▶ slot              for the scan
//!                                               └─ name   ─▶ slot, or those    for serde
//!                                                            of a oneof
//! ```

use std::rc::Rc;

use super::schema::{Field, Known, Message, MessageId, Presence, Schema};

/// Numbers below this are looked up in a table, others searched.
const DENSE: u32 = 256;
const NONE: u16 = u16::MAX;

/// What a type takes of a message.
pub(super) struct Layout {
    /// The fields that have a slot, by their places in the message.
    pub(super) slots: Vec<u16>,
    dense: Vec<u16>,
    sparse: Vec<(u32, u16)>,
    pub(super) gives: Vec<Give>,
}

/// What a type is given.
pub(super) struct Give {
    /// The name that the type has for it.
    pub(super) name: Box<str>,
    pub(super) what: What,
}

pub(super) enum What {
    /// The field in a slot.
    Field(u16),
    /// Whichever of these slots is set.
    Oneof(Vec<u16>),
}

impl Layout {
    fn of(message: &Message, names: Option<&[&str]>) -> Self {
        let mut layout = Self {
            slots: Vec::new(),
            dense: Vec::new(),
            sparse: Vec::new(),
            gives: Vec::new(),
        };
        let wanted: Vec<Option<&str>> = message
            .fields
            .iter()
            .map(|own| called(message, own, names))
            .collect();
        let oneofs: Vec<Option<&str>> = message
            .oneofs
            .iter()
            .map(|own| called_oneof(own, names))
            .collect();
        let taken = |oneof: Option<usize>| {
            oneof.is_some_and(|oneof| {
                let mut members = message.fields.iter().zip(&wanted);
                oneofs[oneof].is_some()
                    || members.any(|(own, name)| own.oneof == Some(oneof) && name.is_some())
            })
        };
        let mut members: Vec<Vec<u16>> = vec![Vec::new(); message.oneofs.len()];
        for (index, field) in message.fields.iter().enumerate() {
            // One member of a oneof clears the others, so all of them are watched.
            if wanted[index].is_none() && !taken(field.oneof) {
                continue;
            }
            let slot = layout.slots.len() as u16;
            layout.slots.push(index as u16);
            layout.number(field.number, slot);
            if let Some(oneof) = field.oneof {
                members[oneof].push(slot);
            }
            if let Some(name) = wanted[index] {
                let what = What::Field(slot);
                layout.gives.push(Give {
                    name: name.into(),
                    what,
                });
            }
        }
        for (name, slots) in oneofs.iter().zip(members) {
            if let Some(name) = name {
                let what = What::Oneof(slots);
                layout.gives.push(Give {
                    name: (*name).into(),
                    what,
                });
            }
        }
        layout.sparse.sort_unstable();
        layout
    }

    fn number(&mut self, number: u32, slot: u16) {
        if number >= DENSE {
            return self.sparse.push((number, slot));
        }
        let at = number as usize;
        if self.dense.len() <= at {
            self.dense.resize(at + 1, NONE);
        }
        self.dense[at] = slot;
    }

    /// The slot of a field's number.
    #[inline]
    pub(super) fn slot(&self, number: u32) -> Option<usize> {
        if number < DENSE {
            let slot = *self.dense.get(number as usize)?;
            return (slot != NONE).then_some(slot as usize);
        }
        let at = self.sparse.binary_search_by_key(&number, |(number, _)| *number);
        at.ok().map(|at| self.sparse[at].1 as usize)
    }
}

/// What a type calls a field, if it takes it. A type that asks for no names takes all.
fn called<'n>(message: &'n Message, field: &'n Field, names: Option<&[&'n str]>) -> Option<&'n str> {
    let Some(names) = names else {
        return Some(&field.name);
    };
    let own = |name: &&&str| **name == field.name;
    let json = |name: &&&str| **name == field.json;
    // The fields of `std::time::Duration`.
    let std =
        |name: &&&str| message.known == Some(Known::Duration) && field.name == "seconds" && **name == "secs";
    let name = names.iter().find(own);
    let name = name.or_else(|| names.iter().find(json));
    name.or_else(|| names.iter().find(std)).copied()
}

/// What a type calls a oneof, if it takes it as a whole.
fn called_oneof<'n>(oneof: &str, names: Option<&[&'n str]>) -> Option<&'n str> {
    names?.iter().find(|name| **name == oneof).copied()
}

/// The layouts of a schema's messages: each is made when a type first meets a message.
#[derive(Default)]
pub(super) struct Layouts {
    by_message: Vec<Made>,
}

/// The layouts of a message: by the list of names that the type asks for, which is always the same one.
#[derive(Default)]
struct Made {
    all: Option<Rc<Layout>>,
    named: Vec<(&'static [&'static str], Rc<Layout>)>,
}

impl Layouts {
    #[inline]
    pub(super) fn of(
        &mut self,
        schema: &Schema,
        id: MessageId,
        names: Option<&'static [&'static str]>,
    ) -> Rc<Layout> {
        let made = self.by_message.get(id);
        let known = made.and_then(|made| match names {
            None => made.all.as_ref(),
            Some(names) => {
                let same = |known: &&(&'static [&'static str], _)| std::ptr::eq(known.0, names);
                made.named.iter().find(same).map(|(_, layout)| layout)
            }
        });
        match known {
            Some(layout) => layout.clone(),
            None => self.make(schema, id, names),
        }
    }

    #[cold]
    fn make(&mut self, schema: &Schema, id: MessageId, names: Option<&'static [&'static str]>) -> Rc<Layout> {
        if self.by_message.len() < schema.messages.len() {
            self.by_message.resize_with(schema.messages.len(), Made::default);
        }
        let (made, message) = (&mut self.by_message[id], &schema.messages[id]);
        let Some(names) = names else {
            let all = made.all.get_or_insert_with(|| Rc::new(Layout::of(message, None)));
            return all.clone();
        };
        let layout = Rc::new(Layout::of(message, Some(names)));
        made.named.push((names, layout.clone()));
        layout
    }
}

/// Where the values of a field stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// The tag of the first.
    pub(super) first: usize,
    /// The last one itself.
    pub(super) last: usize,
    /// How often the field is written.
    pub(super) count: usize,
}

impl Field {
    /// Whether a type is given this field, by how often it is written.
    #[inline]
    pub(super) fn is_given(&self, count: usize) -> bool {
        count > 0 || self.presence == Presence::Implicit || self.default.is_some()
    }
}
