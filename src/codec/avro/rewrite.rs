//! Rewrites a datum of the writer's schema into the reader's, by a [`RewritePlan`], checking every byte on
//! the way.
//!
//! Nothing that the bytes say is believed: lengths are held against what is left, the number of items against
//! a budget, nesting and output against limits.

use super::long::{take_long, write_long};
use super::plan::{RecordPiece, RewritePlan, RewriteStep, RewriteStepId};
use crate::codec::Cause;

/// How deep a datum may be nested.
pub(super) const DEPTH_MAX: usize = 64;

/// Items of arrays that a datum may hold beyond one a byte: items may take no bytes at all.
pub(super) const WEIGHTLESS_ITEMS_MAX: usize = 65_536;

/// Bytes that a rewritten datum may take: defaults make it longer.
const OUTPUT_BYTES_MAX: usize = 256 << 20;

impl RewritePlan {
    /// Writes the datum `bytes` to `out` (emptied first) as the reader's schema has it.
    ///
    /// [`Cause::AvroInvalid`]: the bytes do not follow the writer's schema, or are not used up by it;
    /// [`Cause::SchemaIncompatible`]: they do, but this value has no place in the reader's.
    pub(super) fn rewrite(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        out.clear();
        let items_left = bytes.len() + WEIGHTLESS_ITEMS_MAX;
        let mut run = Rewriter {
            steps: &self.steps,
            rest: bytes,
            out,
            items_left,
            depth: 0,
        };
        run.step(self.root)?;
        if run.rest.is_empty() {
            Ok(())
        } else {
            Err(Cause::AvroInvalid)
        }
    }
}

struct Rewriter<'a> {
    steps: &'a [RewriteStep],
    rest: &'a [u8],
    out: &'a mut Vec<u8>,
    items_left: usize,
    depth: usize,
}

impl<'a> Rewriter<'a> {
    fn step(&mut self, id: RewriteStepId) -> Result<(), Cause> {
        let steps = self.steps;
        match &steps[id] {
            RewriteStep::Refuse => return Err(Cause::SchemaIncompatible),
            RewriteStep::Nothing => {}
            RewriteStep::Boolean => match self.take(1)? {
                &[value @ (0 | 1)] => self.out.push(value),
                _ => return Err(Cause::AvroInvalid),
            },
            RewriteStep::Int | RewriteStep::IntToFloat | RewriteStep::IntToDouble => self.int(&steps[id])?,
            RewriteStep::Long | RewriteStep::LongToFloat | RewriteStep::LongToDouble => {
                self.whole(&steps[id])?
            }
            RewriteStep::FloatToDouble => {
                let bytes = self.take(4)?.try_into().map_err(|_| Cause::AvroInvalid)?;
                self.out
                    .extend(f64::from(f32::from_le_bytes(bytes)).to_le_bytes());
            }
            RewriteStep::Raw(len) => {
                let bytes = self.take(*len)?;
                self.out.extend_from_slice(bytes);
            }
            RewriteStep::Bytes => {
                self.bytes()?;
            }
            RewriteStep::Text => self.text()?,
            RewriteStep::Array(items) => self.nested(|run| run.blocks(|run| run.step(*items)))?,
            RewriteStep::Map(values) => self.nested(|run| {
                run.blocks(|run| {
                    run.text()?;
                    run.step(*values)
                })
            })?,
            RewriteStep::Union(branches) => {
                let branch = usize::try_from(self.long()?)
                    .ok()
                    .and_then(|branch| branches.get(branch));
                let branch = *branch.ok_or(Cause::AvroInvalid)?;
                self.nested(|run| run.step(branch))?;
            }
            RewriteStep::Branch(index, step) => {
                write_long(*index as i64, self.out);
                self.step(*step)?;
            }
            RewriteStep::Enum(map) => {
                let symbol = usize::try_from(self.long()?)
                    .ok()
                    .and_then(|symbol| map.get(symbol));
                let symbol = symbol
                    .ok_or(Cause::AvroInvalid)?
                    .ok_or(Cause::SchemaIncompatible)?;
                write_long(symbol as i64, self.out);
            }
            RewriteStep::Record { pieces, order: None } => self.nested(|run| run.pieces(pieces))?,
            RewriteStep::Record {
                pieces,
                order: Some(order),
            } => self.nested(|run| run.shuffled(pieces, order))?,
        }
        if self.out.len() > OUTPUT_BYTES_MAX {
            Err(Cause::AvroInvalid)
        } else {
            Ok(())
        }
    }

    fn nested(&mut self, body: impl FnOnce(&mut Self) -> Result<(), Cause>) -> Result<(), Cause> {
        if self.depth == DEPTH_MAX {
            return Err(Cause::AvroInvalid);
        }
        self.depth += 1;
        body(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn pieces(&mut self, pieces: &[RecordPiece]) -> Result<(), Cause> {
        pieces.iter().try_for_each(|piece| self.piece(piece))
    }

    fn piece(&mut self, piece: &RecordPiece) -> Result<(), Cause> {
        match piece {
            RecordPiece::Keep(step) => self.step(*step)?,
            RecordPiece::Skip(step) => {
                let len = self.out.len();
                self.step(*step)?;
                self.out.truncate(len);
            }
            RecordPiece::Insert(bytes) => self.out.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Fields in the writer's order first, then put in the reader's.
    fn shuffled(&mut self, pieces: &[RecordPiece], order: &[usize]) -> Result<(), Cause> {
        let start = self.out.len();
        let mut ends = Vec::with_capacity(pieces.len() + 1);
        ends.push(0);
        for piece in pieces {
            self.piece(piece)?;
            ends.push(self.out.len() - start);
        }
        let written = self.out.split_off(start);
        for &piece in order {
            self.out.extend_from_slice(&written[ends[piece]..ends[piece + 1]]);
        }
        Ok(())
    }

    /// The blocks of an array or a map. A block may say how long it is in bytes, for those who pass over it:
    /// nobody is held to that, as the fast path and Java's decoder hold nobody to it.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Cause>) -> Result<(), Cause> {
        loop {
            let count = self.long()?;
            if count == 0 {
                self.out.push(0);
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            let count = usize::try_from(count.unsigned_abs()).map_err(|_| Cause::AvroInvalid)?;
            self.items_left = self.items_left.checked_sub(count).ok_or(Cause::AvroInvalid)?;
            write_long(count as i64, self.out);
            (0..count).try_for_each(|_| item(self))?;
        }
    }

    fn text(&mut self) -> Result<(), Cause> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map(drop)
            .map_err(|_| Cause::AvroInvalid)
    }

    /// Copies a length and its bytes.
    fn bytes(&mut self) -> Result<&'a [u8], Cause> {
        let len = self.long()?;
        let bytes = self.take(usize::try_from(len).map_err(|_| Cause::AvroInvalid)?)?;
        write_long(len, self.out);
        self.out.extend_from_slice(bytes);
        Ok(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Cause> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Cause::AvroInvalid)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// An int, as it is or as what it is promoted to.
    fn int(&mut self, step: &RewriteStep) -> Result<(), Cause> {
        let value = i32::try_from(self.long()?).map_err(|_| Cause::AvroInvalid)?;
        match step {
            RewriteStep::IntToFloat => self.out.extend((value as f32).to_le_bytes()),
            RewriteStep::IntToDouble => self.out.extend(f64::from(value).to_le_bytes()),
            _ => write_long(i64::from(value), self.out),
        }
        Ok(())
    }

    /// A long, as it is or as what it is promoted to.
    fn whole(&mut self, step: &RewriteStep) -> Result<(), Cause> {
        let value = self.long()?;
        match step {
            RewriteStep::LongToFloat => self.out.extend((value as f32).to_le_bytes()),
            RewriteStep::LongToDouble => self.out.extend((value as f64).to_le_bytes()),
            _ => write_long(value, self.out),
        }
        Ok(())
    }

    fn long(&mut self) -> Result<i64, Cause> {
        take_long(&mut self.rest).ok_or(Cause::AvroInvalid)
    }
}
