//! What can be said of a finished plan before the first datum.

use std::collections::HashSet;

use super::plan::{Piece, Step, StepId};

/// Looks a finished plan over.
pub(super) struct Survey<'p> {
    pub(super) steps: &'p [Step],
    /// Steps that were looked at: plans of recursive schemas go round.
    pub(super) seen: HashSet<StepId>,
}

impl Survey<'_> {
    /// Whether the plan changes nothing, and whether it has an array of things that take no bytes.
    pub(super) fn run(&mut self, root: StepId) -> (bool, bool) {
        let (mut identical, mut weightless) = (true, false);
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            match &self.steps[id] {
                Step::Nothing | Step::Boolean | Step::Int | Step::Long => {}
                Step::Raw(_) | Step::Bytes | Step::Text => {}
                Step::IntToFloat | Step::IntToDouble | Step::LongToFloat | Step::LongToDouble => {
                    identical = false
                }
                Step::FloatToDouble | Step::Branch(..) | Step::Refuse => identical = false,
                Step::Array(items) => {
                    weightless |= self.weightless(*items, 0);
                    open.push(*items);
                }
                Step::Map(values) => open.push(*values),
                Step::Union(branches) => {
                    for (index, branch) in branches.iter().enumerate() {
                        match self.steps[*branch] {
                            Step::Branch(to, step) if to == index => open.push(step),
                            _ => open.push(*branch),
                        }
                    }
                    identical &= branches
                        .iter()
                        .all(|branch| matches!(self.steps[*branch], Step::Branch(..)));
                }
                Step::Enum(map) => identical &= map.iter().enumerate().all(|(from, to)| *to == Some(from)),
                Step::Record { pieces, order } => {
                    identical &= order.is_none();
                    for piece in pieces {
                        match piece {
                            Piece::Keep(step) => open.push(*step),
                            Piece::Skip(step) => {
                                identical = false;
                                open.push(*step);
                            }
                            Piece::Insert(_) => identical = false,
                        }
                    }
                }
            }
        }
        (identical, weightless)
    }

    /// Whether the writer may have written this in no bytes at all.
    fn weightless(&self, id: StepId, depth: usize) -> bool {
        match &self.steps[id] {
            // A record that holds itself without a union or an array between can't be written.
            _ if depth > 64 => false,
            Step::Nothing | Step::Raw(0) => true,
            Step::Branch(_, step) => self.weightless(*step, depth + 1),
            Step::Record { pieces, .. } => pieces.iter().all(|piece| match piece {
                Piece::Keep(step) | Piece::Skip(step) => self.weightless(*step, depth + 1),
                Piece::Insert(_) => true,
            }),
            _ => false,
        }
    }
}
