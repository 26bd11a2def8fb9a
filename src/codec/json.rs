//! JSON payloads.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{Cause, Decode, Decoded};
use crate::error::{Error, Result};

/// Decodes JSON by serde's rules: fields that `T` lacks are passed over, fields that the JSON lacks need a default.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// A decoder of `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Json<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match serde_json::from_slice(bytes) {
            Ok(value) => Decoded::Value(value),
            Err(error) => Decoded::Dead(cause(error.classify()), None),
        }
    }
}

/// `Io` can't happen with a slice.
fn cause(category: Category) -> Cause {
    match category {
        Category::Data => Cause::JsonType,
        Category::Syntax | Category::Eof | Category::Io => Cause::JsonSyntax,
    }
}

/// Appends `value` as JSON to `out`. Fails for what JSON can't hold, such as a map whose keys are no scalars.
pub fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, value)
        .map_err(|error| Error::definition("cannot write a value as JSON").detail(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Payment {
        id: u64,
        note: Option<String>,
    }

    fn decode(bytes: &[u8]) -> Result<Payment, Cause> {
        match Json::new().decode(bytes) {
            Decoded::Value(value) => Ok(value),
            Decoded::Dead(cause, None) => Err(cause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tells_what_is_no_json_from_what_does_not_fit() {
        assert_eq!(
            decode(br#"{"id":7,"more":[1]}"#),
            Ok(Payment { id: 7, note: None })
        );
        assert_eq!(decode(br#"{"id":7"#), Err(Cause::JsonSyntax));
        assert_eq!(decode(b""), Err(Cause::JsonSyntax));
        assert_eq!(decode(b"{\"id\":7} x"), Err(Cause::JsonSyntax));
        assert_eq!(decode(br#"{"id":-7}"#), Err(Cause::JsonType));
        assert_eq!(decode(br#"{"note":"a"}"#), Err(Cause::JsonType));
        assert_eq!(decode(&[b'['; 100_000]), Err(Cause::JsonType));
        assert_eq!(
            decode(b"{\"more\":".repeat(100_000).as_slice()),
            Err(Cause::JsonSyntax)
        );
    }

    proptest! {
        #[test]
        fn gives_back_what_was_written(id: u64, note: Option<String>) {
            let mut bytes = Vec::new();
            encode_into(&Payment { id, note: note.clone() }, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes), Ok(Payment { id, note }));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _any = decode(&bytes);
        }
    }
}
