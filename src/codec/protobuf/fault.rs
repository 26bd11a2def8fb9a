//! Why a message is no value, and where in it the fault is.

use serde::de::Error;

use crate::codec::Cause;

/// Longer places are cut: a key of a map may be as long as the payload.
const PLACE_BYTES_MAX: usize = 256;

pub(super) type Read<T> = Result<T, Fault>;

/// Why a message is no value. The place is put together on the way out, from the innermost part on.
#[derive(Debug)]
pub(super) struct Fault(Box<Found>);

#[derive(Debug)]
struct Found {
    why: Why,
    steps: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The bytes do not follow the format, or not the schema.
    Invalid,
    /// The type does not take what the schema has.
    Unfit,
    /// A message is written in several parts, which have to be merged first.
    Split,
}

impl Fault {
    #[cold]
    fn new(why: Why) -> Self {
        let steps = Vec::new();
        Self(Box::new(Found { why, steps }))
    }

    /// The bytes do not follow the format, or not the schema.
    pub(super) fn invalid() -> Self {
        Self::new(Why::Invalid)
    }

    /// The type does not take what the schema has.
    pub(super) fn unfit() -> Self {
        Self::new(Why::Unfit)
    }

    /// A message is written in several parts.
    pub(super) fn split() -> Self {
        Self::new(Why::Split)
    }

    pub(super) fn is_split(&self) -> bool {
        self.0.why == Why::Split
    }

    /// The fault is in this field, or at this key.
    #[cold]
    pub(super) fn within(mut self, field: &str) -> Self {
        self.0.steps.push(format!(".{field}"));
        self
    }

    /// The fault is in this item of a list.
    #[cold]
    pub(super) fn item(mut self, index: usize) -> Self {
        self.0.steps.push(format!("[{index}]"));
        self
    }

    pub(super) fn cause(&self) -> Cause {
        match self.0.why {
            Why::Unfit => Cause::SchemaIncompatible,
            Why::Invalid | Why::Split => Cause::ProtobufInvalid,
        }
    }

    /// Where it is, as in `items[2].price`; empty for the whole message.
    pub(super) fn place(&self) -> Box<str> {
        let mut place: String = self.0.steps.iter().rev().map(String::as_str).collect();
        if place.starts_with('.') {
            place.remove(0);
        }
        if place.len() > PLACE_BYTES_MAX {
            place.truncate(place.floor_char_boundary(PLACE_BYTES_MAX));
            place.push('…');
        }
        place.into()
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at `{}`", self.cause().code(), self.place())
    }
}
impl std::error::Error for Fault {}
impl Error for Fault {
    #[cold]
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self::unfit()
    }
    #[cold]
    fn missing_field(field: &'static str) -> Self {
        Self::unfit().within(field)
    }
}
