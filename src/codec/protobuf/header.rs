//! Which message of a schema a payload holds, as Confluent's serializers write it behind the schema id: how
//! many indexes, and each of them, as zigzag varints. The first counts the file's messages, the next one
//! those within it, and so on. One index of 0 is a single byte 0.

use super::schema::{MessageId, Schema};
use super::wire::{put_varint, unzigzag, varint};

/// As deep as messages are declared in each other.
const INDEXES_MAX: usize = 32;

/// The message that the indexes name, and the bytes behind them.
#[inline]
pub(super) fn message<'b>(schema: &Schema, bytes: &'b [u8]) -> Option<(MessageId, &'b [u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((*schema.top.first()?, rest)),
        _ => indexed(schema, bytes),
    }
}

fn indexed<'b>(schema: &Schema, bytes: &'b [u8]) -> Option<(MessageId, &'b [u8])> {
    let mut at = 0;
    let mut next = || usize::try_from(unzigzag(varint(bytes, &mut at)?)).ok();
    let count = next()?;
    if count > INDEXES_MAX {
        return None;
    }
    let indexes = (0..count).map(|_| next()).collect::<Option<Vec<usize>>>()?;
    let indexes = if indexes.is_empty() { vec![0] } else { indexes };
    Some((schema.message(&indexes)?, &bytes[at..]))
}

pub(super) fn write(indexes: &[u32], out: &mut Vec<u8>) {
    if indexes == [0] {
        return out.push(0);
    }
    let zigzag = |number: u64| number << 1;
    put_varint(zigzag(indexes.len() as u64), out);
    for index in indexes {
        put_varint(zigzag((*index).into()), out);
    }
}
