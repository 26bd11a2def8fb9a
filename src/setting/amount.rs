//! Durations and sizes as text: `250ms`, `1m30s`, `64MiB`.

use std::time::Duration;

/// Nanoseconds per unit of time.
const TIMES: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Bytes per unit of size. `M` alone is not a unit, because it is ambiguous.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Parses a duration: numbers with units, one after another. `None` for anything else, including a number
/// without a unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut nanos = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (amount, after) = part(rest, TIMES)?;
        nanos = nanos.checked_add(amount)?;
        rest = after.trim_start();
    }
    Some(Duration::from_nanos(nanos))
}

/// Parses a size in bytes: one number, with or without a unit.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (bytes, rest) = part(text.trim(), SIZES)?;
    rest.is_empty().then_some(bytes)
}

/// Parses a number and its unit, multiplied; returns the rest, too. A fraction must result in a whole number:
/// there is no half byte.
fn part<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let mut amount = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
    if !fraction.is_empty() {
        let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let product = u128::from(fraction.parse::<u64>().ok()?) * u128::from(*factor);
        if product % u128::from(scale) != 0 {
            return None;
        }
        amount = amount.checked_add(u64::try_from(product / u128::from(scale)).ok()?)?;
    } else if number.ends_with('.') {
        return None;
    }
    Some((amount, rest))
}

/// The shortest text that [`duration`] parses as this duration.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIMES
        .iter()
        .rev()
        .filter(|(unit, _)| !["min", "us"].contains(unit))
    {
        let factor = u128::from(*factor);
        if nanos >= factor {
            text += &format!("{}{unit}", nanos / factor);
            nanos %= factor;
        }
    }
    text
}

/// The shortest text that [`size`] parses as this size.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let even = units
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match even {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_as_people_write_them() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, expected) in [
            ("250ms", ms(250)),
            ("5s", ms(5_000)),
            (" 5 s ", ms(5_000)),
            ("1.5s", ms(1_500)),
            ("1m30s", ms(90_000)),
            ("1h 30min", ms(5_400_000)),
            ("0s", ms(0)),
            ("7d", ms(7 * 86_400_000)),
            ("500µs", Some(Duration::from_micros(500))),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 parsecs",
            "-5s",
            "5s5",
            "1.s",
            "99999999999999d",
            "0.5ns",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        for (text, expected) in [
            ("64MiB", Some(64 << 20)),
            ("64 MB", Some(64_000_000)),
            ("1.5KiB", Some(1_536)),
            ("65_536", Some(65_536)),
            ("10B", Some(10)),
            ("64M", None),
            ("1.5B", None),
            ("MiB", None),
            ("-1", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos: u64, bytes: u64) {
            let written = Duration::from_nanos(nanos);
            prop_assert_eq!(duration(&duration_text(written)), Some(written));
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_is_too_much(text in "[0-9._ a-zA-Zµ-]{0,40}") {
            let _either = (duration(&text), size(&text));
        }
    }
}
