use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::codec::bytes::Bytes;
use crate::codec::text::Text;
use crate::codec::{Decode, Decoded};
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;

fn schema<K: DeserializeOwned + 'static, V: DeserializeOwned + 'static>() -> RowSchema {
    RowSchema::new("it", trace::<K>(), trace::<V>(), FieldNames::default()).unwrap()
}

/// Key and payload of a row.
fn written<K, V>(plain: Plain, key: &K, value: Option<&V>) -> (Vec<u8>, Option<Vec<u8>>)
where
    K: Serialize + DeserializeOwned + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    let schema = Arc::new(schema::<K, V>());
    let encoding = plain.rows(Method::UpsertTo).unwrap();
    let of = RowsOf {
        schema: &schema,
        topic: "t",
        registry: None,
    };
    let mut encoder = (encoding.encoder)(&of).unwrap();
    let (mut bytes, mut after) = (Vec::new(), Vec::new());
    schema.encode_key(key, &mut bytes).unwrap();
    value
        .iter()
        .for_each(|value| schema.encode_value(value, &mut after).unwrap());
    let row = Row::change(&bytes, None, value.map(|_| &*after), 1);
    let (mut key, mut payload) = (Vec::new(), Vec::new());
    assert!(encoder.key(&row, &mut key).unwrap());
    let has_payload = encoder.payload(&row, &mut payload).unwrap();
    (key, has_payload.then_some(payload))
}

fn value<T>(decoded: Decoded<T>) -> Option<T> {
    match decoded {
        Decoded::Value(value) => Some(value),
        _ => None,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(key: u32, wide: i128, narrow: i16, text: String, flag: bool,
        float in prop::num::f64::NORMAL, half in prop::num::f32::NORMAL) {
        fn check<T>(key: u32, given: T) -> Result<(), TestCaseError>
        where
            T: Serialize + DeserializeOwned + PartialEq + Clone + std::fmt::Debug + 'static,
        {
            let (text_key, text) = written(Plain::Text, &key, Some(&given));
            prop_assert_eq!(value(Text::<u32>::new().decode(&text_key)), Some(key));
            prop_assert_eq!(value(Text::<T>::new().decode(&text.unwrap())), Some(given.clone()));
            let (byte_key, bytes) = written(Plain::Bytes, &key, Some(&given));
            prop_assert_eq!(byte_key, key.to_be_bytes());
            prop_assert_eq!(value(Bytes::<T>::new().decode(&bytes.unwrap())), Some(given));
            Ok(())
        }
        check(key, wide)?;
        check(key, narrow)?;
        check(key, wide as u128)?;
        check(key, flag)?;
        check(key, float)?;
        check(key, half)?;
        // A byte order mark is no part of a text.
        check(key, text.trim_start_matches('\u{feff}').to_owned())?;
    }
}

#[test]
fn a_row_that_is_gone_leaves_a_tombstone() {
    let none = written::<u32, String>(Plain::Text, &7, None);
    assert_eq!(none, (b"7".to_vec(), None));
}

#[test]
fn rows_of_several_fields_are_refused() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Pair {
        a: u32,
        b: u32,
    }
    let refused = |schema: RowSchema, plain: Plain, method| {
        let encoding = plain.rows(method).unwrap();
        (encoding.check)(&schema).unwrap_err().to_string()
    };
    let value = refused(schema::<u32, Pair>(), Plain::Text, Method::UpsertTo);
    assert!(
        value.contains("a value of type struct<a: u32, b: u32>") && value.contains("hint"),
        "{value}"
    );
    let key = refused(schema::<Pair, u32>(), Plain::Bytes, Method::UpsertTo);
    assert!(key.contains("a key of several fields"), "{key}");
    let event = refused(schema::<(), Pair>(), Plain::Text, Method::AppendTo);
    assert!(event.contains("an event of type struct"), "{event}");
    assert!(Plain::Text.rows(Method::ChangesTo).is_none());
}
