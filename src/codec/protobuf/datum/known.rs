//! Google's well-known types: timestamps and durations as text, wrappers, and JSON in messages. Their text is
//! that of [Protobuf's JSON](https://protobuf.dev/programming-guides/json/).

use jiff::Timestamp;

use super::What;
use crate::codec::protobuf::fault::{Fault, Read};
use crate::codec::protobuf::input::{Input, Scalar, Span};
use crate::codec::protobuf::schema::Known;
pub(super) use crate::schema::trace::EVENT_TIME;

const NANOS: i64 = 1_000_000_000;
/// Seconds of a duration, either way: ten thousand years.
const DURATION_MAX: i64 = 315_576_000_000;
/// From the year 1 to the year 9999.
const TIMESTAMP_MIN: i64 = -62_135_596_800;
const TIMESTAMP_MAX: i64 = 253_402_300_799;

impl<'a> Input<'a> {
    /// What is in a message that only wraps that.
    pub(super) fn content(&mut self, span: Span, known: Known) -> Read<What<'a>> {
        let scanned = self.scan(span, None)?;
        let message = self.message(span.message);
        let fields = scanned.layout.slots.iter().enumerate();
        let mut slots =
            fields.map(|(slot, index)| (&message.fields[*index as usize], self.slot(&scanned, slot)));
        let found = match known {
            Known::Value => slots.find(|(_, slot)| slot.count > 0),
            _ => slots.next(),
        };
        self.leave(&scanned);
        match (known, found) {
            // The member `null_value`, or none at all.
            (Known::Value, None) => Ok(What::Null),
            (Known::Value, Some((field, _))) if field.number == 1 => Ok(What::Null),
            (_, Some((field, slot))) => self.what(field, slot),
            (_, None) => Err(Fault::invalid()),
        }
    }

    /// Seconds and nanoseconds.
    fn parts(&mut self, span: Span) -> Read<(i64, i64)> {
        let scanned = self.scan(span, None)?;
        let message = self.message(span.message);
        let mut parts = (0, 0);
        for (slot, index) in scanned.layout.slots.iter().enumerate() {
            let (field, slot) = (&message.fields[*index as usize], self.slot(&scanned, slot));
            let part = match field.number {
                1 => &mut parts.0,
                _ => &mut parts.1,
            };
            if slot.count > 0
                && let Scalar::Int(value) = self.scalar(field.kind, &mut { slot.last })?
            {
                *part = value;
            }
        }
        self.leave(&scanned);
        Ok(parts)
    }

    fn timestamp(&mut self, span: Span) -> Read<(i64, i64)> {
        let (secs, nanos) = self.parts(span)?;
        let fine = (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&secs) && (0..NANOS).contains(&nanos);
        fine.then_some((secs, nanos)).ok_or_else(Fault::invalid)
    }

    /// Microseconds of a timestamp since 1970, rounded down.
    pub(super) fn micros(&mut self, span: Span) -> Read<i64> {
        let (secs, nanos) = self.timestamp(span)?;
        Ok(secs * 1_000_000 + nanos / 1_000)
    }

    /// A timestamp or a duration as text: `2026-11-30T12:00:00Z`, `1.500s`.
    pub(super) fn text_of(&mut self, span: Span, known: Known) -> Read<String> {
        if known == Known::Timestamp {
            let (secs, nanos) = self.timestamp(span)?;
            let time = Timestamp::from_second(secs).map_err(|_| Fault::invalid())?;
            let text = time.to_string();
            // As many digits as it takes, in threes.
            return Ok(format!("{}{}Z", text.trim_end_matches('Z'), fraction(nanos)));
        }
        let (secs, nanos) = self.parts(span)?;
        let alike = secs == 0 || nanos == 0 || (secs < 0) == (nanos < 0);
        if !alike || secs.abs() > DURATION_MAX || nanos.abs() >= NANOS {
            return Err(Fault::invalid());
        }
        let sign = if secs < 0 || nanos < 0 { "-" } else { "" };
        Ok(format!("{sign}{}{}s", secs.abs(), fraction(nanos.abs())))
    }
}

fn fraction(nanos: i64) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}
