//! What can be said of a finished plan before the first datum.

use super::{RecordPiece, RewriteStep, RewriteStepId};

/// Whether the plan changes nothing.
pub(super) fn identical(steps: &[RewriteStep], root: RewriteStepId) -> bool {
    let mut seen = vec![false; steps.len()];
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        // Plans of recursive schemas go round.
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        match &steps[id] {
            RewriteStep::Nothing | RewriteStep::Boolean | RewriteStep::Int | RewriteStep::Long => {}
            RewriteStep::Raw(_) | RewriteStep::Bytes | RewriteStep::Text => {}
            RewriteStep::IntToFloat
            | RewriteStep::IntToDouble
            | RewriteStep::LongToFloat
            | RewriteStep::LongToDouble => return false,
            RewriteStep::FloatToDouble | RewriteStep::Branch(..) | RewriteStep::Refuse => return false,
            RewriteStep::Array(items) => open.push(*items),
            RewriteStep::Map(values) => open.push(*values),
            RewriteStep::Union(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    match steps[*branch] {
                        RewriteStep::Branch(to, step) if to == index => open.push(step),
                        _ => return false,
                    }
                }
            }
            RewriteStep::Enum(map) => {
                if map.iter().enumerate().any(|(from, to)| *to != Some(from)) {
                    return false;
                }
            }
            RewriteStep::Record { order: Some(_), .. } => return false,
            RewriteStep::Record { pieces, order: None } => {
                for piece in pieces {
                    match piece {
                        RecordPiece::Keep(step) => open.push(*step),
                        RecordPiece::Skip(_) | RecordPiece::Insert(_) => return false,
                    }
                }
            }
        }
    }
    true
}
