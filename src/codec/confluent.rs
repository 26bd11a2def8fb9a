//! The wire format of Confluent's serializers: which schema a payload was written with.
//!
//! ```text
//!   0        1                    5
//!   ├────────┼────────────────────┼──────────────
//!   │ 0x00   │ schema id, u32 BE  │ datum …
//! ```

use super::Cause;

/// Bytes of the header.
pub const HEADER_LEN: usize = 5;

/// Splits a payload into the schema id and the datum.
///
/// ```
/// use thalweg::codec::{Cause, confluent::split};
/// assert_eq!(split(&[0, 0, 0, 1, 2, 9]), Ok((258, &[9][..])));
/// assert_eq!(split(&[0, 0]), Err(Cause::WireTruncated));
/// assert_eq!(split(b"{\"id\":7}"), Err(Cause::WireMagic));
/// ```
#[inline]
pub fn split(bytes: &[u8]) -> Result<(u32, &[u8]), Cause> {
    match bytes {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] | [] => Err(Cause::WireTruncated),
        _ => Err(Cause::WireMagic),
    }
}

/// Appends the header for a schema id.
#[inline]
pub fn write(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn splits_what_was_written(id: u32, datum: Vec<u8>) {
            let mut bytes = Vec::new();
            write(id, &mut bytes);
            bytes.extend(&datum);
            prop_assert_eq!(split(&bytes), Ok((id, &datum[..])));
            for cut in 0..HEADER_LEN {
                prop_assert_eq!(split(&bytes[..cut]), Err(Cause::WireTruncated));
            }
        }
    }
}
