//! Decimals, as Avro writes them: an integer of any width (big-endian, two's complement) and a scale, and
//! what a user's type gets of them.
//!
//! | the type asks for | it gets |
//! |---|---|
//! | a string, or whatever there is | plain decimal text with as many digits behind the point as the scale says: `-12.30` |
//! | an integer | the unscaled one: `-1230` |
//! | a float | the nearest to the value |
//! | bytes | the integer's, as they are |

/// The widest integer that is written in decimal: the time that this takes grows with the square of the
/// width.
const BYTES_MAX: usize = 1_024;
/// The most zeros that a scale may add.
const SCALE_MAX: u64 = 4_096;

/// The integer that `bytes` are, if it has 128 bits at most.
pub(super) fn integer(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (above, below) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut wide = [fill; 16];
    wide[16 - below.len()..].copy_from_slice(below);
    let fits = above.iter().all(|byte| *byte == fill) && (wide[0] & 0x80 != 0) == negative;
    fits.then_some(i128::from_be_bytes(wide))
}

/// The number in decimal, without an exponent. `None`: it would be too long.
pub(super) fn text(bytes: &[u8], scale: i64) -> Option<String> {
    if bytes.len() > BYTES_MAX || scale.unsigned_abs() > SCALE_MAX {
        return None;
    }
    let (negative, mut digits) = match integer(bytes) {
        Some(integer) => (integer < 0, integer.unsigned_abs().to_string()),
        None => (bytes[0] & 0x80 != 0, wide_digits(bytes)),
    };
    let scale_digits = scale.unsigned_abs() as usize;
    if scale < 0 && digits != "0" {
        digits.extend(std::iter::repeat_n('0', scale_digits));
    }
    if scale > 0 {
        if digits.len() <= scale_digits {
            digits.insert_str(0, &"0".repeat(scale_digits + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale_digits, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    Some(digits)
}

/// The nearest float.
pub(super) fn float(bytes: &[u8], scale: i64) -> Option<f64> {
    /// Below this every integer is a float, and below 10^23 every power of ten: one division then rounds
    /// once.
    const EXACT_MAX: u128 = 1 << 53;
    if let Some(integer) = integer(bytes)
        && integer.unsigned_abs() < EXACT_MAX
        && (0..=22).contains(&scale)
    {
        return Some(integer as f64 / 10f64.powi(scale as i32));
    }
    text(bytes, scale)?.parse().ok()
}

/// The digits of an integer of more than 128 bits, without its sign.
fn wide_digits(bytes: &[u8]) -> String {
    const BASE: u64 = 1_000_000_000;
    let negative = bytes[0] & 0x80 != 0;
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (inverted, more) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (inverted, more);
        }
    }
    // Nine decimal digits each, the lowest first.
    let mut limbs: Vec<u64> = vec![0];
    for byte in magnitude {
        let mut carry = u64::from(byte);
        for limb in &mut limbs {
            let value = *limb * 256 + carry;
            (*limb, carry) = (value % BASE, value / BASE);
        }
        if carry > 0 {
            limbs.push(carry);
        }
    }
    let mut limbs = limbs.into_iter().rev();
    let first = limbs.next().unwrap_or_default().to_string();
    limbs.fold(first, |digits, limb| format!("{digits}{limb:09}"))
}

#[cfg(test)]
mod tests;
