//! Protobuf's wire format: varints, tags, and how to pass over a value whose type nobody knows.
//!
//! Nothing that the bytes say is believed: lengths are held against what is left, groups against a limit of
//! nesting. The format is [Protobuf's own](https://protobuf.dev/programming-guides/encoding/).

/// How a value is written.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const GROUP: u8 = 3;
pub(super) const GROUP_END: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// How deep messages may be nested, as in Protobuf's own parsers.
pub(super) const DEPTH_MAX: usize = 100;

/// The largest number of a field.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// Reads a varint at `at`, which moves behind it.
#[inline]
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The number behind a zigzag code.
#[inline]
pub(super) fn unzigzag(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

/// Reads the number of a field and how its value is written.
#[inline]
pub(super) fn tag(bytes: &[u8], at: &mut usize) -> Option<(u32, u8)> {
    let tag = varint(bytes, at)?;
    let number = tag >> 3;
    (1..=NUMBER_MAX)
        .contains(&number)
        .then_some((number as u32, (tag & 7) as u8))
}

/// Reads a length and passes over as many bytes; where they begin and end.
#[inline]
pub(super) fn delimited(bytes: &[u8], at: &mut usize) -> Option<(usize, usize)> {
    let len = usize::try_from(varint(bytes, at)?).ok()?;
    let (start, end) = (*at, at.checked_add(len)?);
    *at = end;
    (end <= bytes.len()).then_some((start, end))
}

/// Passes over a value of field `number`.
#[inline]
pub(super) fn skip(bytes: &[u8], at: &mut usize, number: u32, written: u8) -> Option<()> {
    match written {
        VARINT => drop(varint(bytes, at)?),
        FIXED64 => *at = at.checked_add(8)?,
        FIXED32 => *at = at.checked_add(4)?,
        BYTES => drop(delimited(bytes, at)?),
        GROUP => drop(group(bytes, at, number)?),
        _ => return None,
    }
    (*at <= bytes.len()).then_some(())
}

/// Passes over a group whose tag was read, and its end; where what is within it ends.
pub(super) fn group(bytes: &[u8], at: &mut usize, number: u32) -> Option<usize> {
    let mut open = vec![number];
    loop {
        let end = *at;
        let (number, written) = tag(bytes, at)?;
        match written {
            GROUP if open.len() < DEPTH_MAX => open.push(number),
            GROUP => return None,
            GROUP_END => {
                if open.pop() != Some(number) {
                    return None;
                }
                if open.is_empty() {
                    return Some(end);
                }
            }
            _ => skip(bytes, at, number, written)?,
        }
    }
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a tag.
pub(super) fn put_tag(number: u32, written: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(written), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_are_read_as_they_were_written(value: u64, more: Vec<u8>) {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            let len = bytes.len();
            for cut in 0..len {
                prop_assert_eq!(varint(&bytes[..cut], &mut 0), None);
            }
            bytes.extend(more);
            let mut at = 0;
            prop_assert_eq!(varint(&bytes, &mut at), Some(value));
            prop_assert_eq!(at, len);
        }

        #[test]
        fn any_bytes_are_passed_over_or_refused(bytes: Vec<u8>, number in 1..9u32, written in 0..8u8) {
            let mut at = 0;
            if skip(&bytes, &mut at, number, written).is_some() {
                prop_assert!(at <= bytes.len());
            }
        }
    }

    #[test]
    fn numbers_end_where_the_format_says() {
        assert_eq!(varint(&[0xff; 10], &mut 0), None);
        assert_eq!(varint(&[&[0xff; 9][..], &[1]].concat(), &mut 0), Some(u64::MAX));
        assert_eq!(tag(&[0], &mut 0), None, "no field has the number 0");
        assert_eq!([0, 1, 2, 3].map(unzigzag), [0, -1, 1, -2]);
        assert_eq!(unzigzag(u64::MAX), i64::MIN);
    }

    #[test]
    fn groups_end_with_their_own_number() {
        let tags = |tags: &[(u32, u8)]| {
            let mut bytes = Vec::new();
            tags.iter()
                .for_each(|(number, written)| put_tag(*number, *written, &mut bytes));
            bytes
        };
        let good = tags(&[(2, GROUP), (2, GROUP_END), (1, GROUP_END)]);
        assert_eq!(group(&good, &mut 0, 1), Some(2));
        assert_eq!(group(&tags(&[(2, GROUP), (1, GROUP_END)]), &mut 0, 1), None);
        assert_eq!(group(&tags(&[(2, GROUP); 1_000]), &mut 0, 1), None);
    }
}
