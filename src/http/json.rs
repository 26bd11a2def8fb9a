//! JSON straight to bytes, in a fixed order of members: an answer's envelope around the rows that a view writes.

use std::fmt::Display;
use std::io::Write;

use crate::time::{Epoch, EventTime};

/// Appends `text` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Names and times need no escaping, nearly always.
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string written to memory can't fail.
        let _infallible = serde_json::to_writer(out, text);
    }
}

/// Appends a number.
pub(crate) fn number(out: &mut Vec<u8>, value: impl Display) {
    let _infallible = write!(out, "{value}");
}

/// Appends a time as a string, `null` where none is known yet.
pub(crate) fn time(out: &mut Vec<u8>, time: EventTime) {
    if time == EventTime::MIN {
        out.extend_from_slice(b"null");
    } else {
        let _infallible = write!(out, "\"{time}\"");
    }
}

/// Appends a number as a string: a member's name.
pub(crate) fn quoted(out: &mut Vec<u8>, value: impl Display) {
    let _infallible = write!(out, "\"{value}\"");
}

/// Appends `"epoch":…,"time":…`, with which every answer begins.
pub(crate) fn moment(out: &mut Vec<u8>, epoch: Epoch) {
    out.extend_from_slice(b"\"epoch\":");
    number(out, epoch.0);
    out.extend_from_slice(b",\"time\":");
    time(out, epoch.opened_at());
}

/// Appends what `write` writes for each item, with commas between.
pub(crate) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_where_they_must_be() {
        for text in ["plain", "Zürich", "a\"b", "back\\slash", "line\nbreak\u{1}", ""] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
