//! What can be said of a finished plan before the first datum.

use super::{Piece, Step, StepId};

/// Whether the plan changes nothing.
pub(super) fn identical(steps: &[Step], root: StepId) -> bool {
    let mut seen = vec![false; steps.len()];
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        // Plans of recursive schemas go round.
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        match &steps[id] {
            Step::Nothing | Step::Boolean | Step::Int | Step::Long => {}
            Step::Raw(_) | Step::Bytes | Step::Text => {}
            Step::IntToFloat | Step::IntToDouble | Step::LongToFloat | Step::LongToDouble => return false,
            Step::FloatToDouble | Step::Branch(..) | Step::Refuse => return false,
            Step::Array(items) => open.push(*items),
            Step::Map(values) => open.push(*values),
            Step::Union(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    match steps[*branch] {
                        Step::Branch(to, step) if to == index => open.push(step),
                        _ => return false,
                    }
                }
            }
            Step::Enum(map) => {
                if map.iter().enumerate().any(|(from, to)| *to != Some(from)) {
                    return false;
                }
            }
            Step::Record { order: Some(_), .. } => return false,
            Step::Record { pieces, order: None } => {
                for piece in pieces {
                    match piece {
                        Piece::Keep(step) => open.push(*step),
                        Piece::Skip(_) | Piece::Insert(_) => return false,
                    }
                }
            }
        }
    }
    true
}
