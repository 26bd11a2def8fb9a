//! Scalars as bytes: see the table in [`encode`](super).

use crate::schema::encode::{Form, short_index};
use crate::wire::{put_bytes, put_i64, put_u64};

#[inline]
pub(in crate::schema) fn signed(form: Form, bits: u8, value: i64, out: &mut Vec<u8>) {
    match form {
        Form::Compact if bits == 8 => out.push(value as u8),
        Form::Compact => put_i64(out, value),
        Form::Ordered => {
            let flipped = (value as u64) ^ (1 << (bits - 1));
            unsigned(form, bits, flipped & (u64::MAX >> (64 - bits)), out);
        }
    }
}

#[inline]
pub(in crate::schema) fn unsigned(form: Form, bits: u8, value: u64, out: &mut Vec<u8>) {
    match form {
        Form::Compact if bits == 8 => out.push(value as u8),
        Form::Compact => put_u64(out, value),
        Form::Ordered => out.extend_from_slice(&value.to_be_bytes()[8 - usize::from(bits / 8)..]),
    }
}

pub(in crate::schema) fn i128(form: Form, value: i128, out: &mut Vec<u8>) {
    match form {
        Form::Compact => leb(((value << 1) ^ (value >> 127)) as u128, out),
        Form::Ordered => out.extend_from_slice(&((value as u128) ^ (1 << 127)).to_be_bytes()),
    }
}

pub(in crate::schema) fn u128(form: Form, value: u128, out: &mut Vec<u8>) {
    match form {
        Form::Compact => leb(value, out),
        Form::Ordered => out.extend_from_slice(&value.to_be_bytes()),
    }
}

fn leb(mut value: u128, out: &mut Vec<u8>) {
    while value > u64::MAX.into() {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    put_u64(out, value as u64);
}

/// The number of NaNs with a sign. `totalOrder` puts them before all numbers; keys have them last, with the
/// other NaNs, like [`F64`](crate::record::F64) and [`Datum`](crate::schema::datum::Datum).
pub(in crate::schema) const NANS_32: u32 = (1 << 23) - 1;
pub(in crate::schema) const NANS_64: u64 = (1 << 52) - 1;

pub(in crate::schema) fn f32(form: Form, value: f32, out: &mut Vec<u8>) {
    let raw = value.to_bits();
    match form {
        Form::Compact => out.extend_from_slice(&raw.to_le_bytes()),
        Form::Ordered => {
            let flip = if raw >> 31 == 1 { u32::MAX } else { 1 << 31 };
            let ordered = (raw ^ flip).wrapping_sub(NANS_32);
            out.extend_from_slice(&ordered.to_be_bytes());
        }
    }
}

pub(in crate::schema) fn f64(form: Form, value: f64, out: &mut Vec<u8>) {
    let raw = value.to_bits();
    match form {
        Form::Compact => out.extend_from_slice(&raw.to_le_bytes()),
        Form::Ordered => {
            let flip = if raw >> 63 == 1 { u64::MAX } else { 1 << 63 };
            let ordered = (raw ^ flip).wrapping_sub(NANS_64);
            out.extend_from_slice(&ordered.to_be_bytes());
        }
    }
}

pub(in crate::schema) fn text(form: Form, bytes: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Compact => put_bytes(out, bytes),
        Form::Ordered => {
            escaped(bytes, out);
            out.extend_from_slice(&[0, 0]);
        }
    }
}

pub(in crate::schema) fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut parts = bytes.split(|byte| *byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(part);
    }
}

pub(in crate::schema) fn index(form: Form, variants: usize, index: u32, out: &mut Vec<u8>) {
    match form {
        Form::Compact => put_u64(out, index.into()),
        Form::Ordered if short_index(variants) => out.push(index as u8),
        Form::Ordered => out.extend_from_slice(&index.to_be_bytes()),
    }
}
