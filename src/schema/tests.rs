//! Encodings against the values themselves: they come back, they sort alike, and columns are the same by
//! every way.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::record::F64;
use crate::schema::column;
use crate::schema::datum::Datum;
use crate::schema::decode::decode;
use crate::schema::encode::{Form, encode};
use crate::schema::fields::FieldNames;
use crate::schema::json::as_shown;
use crate::schema::trace::trace;
use crate::schema::types::Type;
use crate::schema::{Numbers, RowSchema};
use crate::time::{EventTime, Window, Windowed};

const FORMS: [Form; 2] = [Form::Ordered, Form::Compact];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Scalars {
    bytes: (i8, u8),
    short: (i16, u16),
    int: (i32, u32),
    long: (i64, u64),
    wide: (i128, u128),
    float: F64,
    flag: bool,
    letter: char,
    at: EventTime,
    unit: (),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Means {
    Card { number: String, limit: Option<i64> },
    Cash,
    Split(Box<(u8, Option<String>)>),
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Nested {
    texts: Vec<String>,
    names: BTreeMap<String, i32>,
    means: Means,
    window: Window,
    maybe: Option<Option<u16>>,
}

/// Data that say themselves what they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Number(i64),
    Text(String),
    Pair { left: u8, right: Option<bool> },
    List(Vec<Any>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Small { size: u8 },
    Large { size: i64, tree: Tree },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Tree {
    Leaf(i16),
    Fork(Box<Tree>, Box<Tree>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Odd {
    before: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vip: Option<u8>,
    #[serde(alias = "old_name")]
    name: String,
    tagged: Tagged,
    tree: Tree,
    #[serde(flatten)]
    rest: BTreeMap<String, Any>,
}

fn text() -> impl Strategy<Value = String> {
    vec(select(vec!['\0', '\u{1}', 'a', 'b', 'é', '\u{10ffff}']), 0..5)
        .prop_map(|letters| letters.into_iter().collect())
}

fn scalars() -> impl Strategy<Value = Scalars> {
    let integers = (
        any::<(i8, u8)>(),
        any::<(i16, u16)>(),
        any::<(i32, u32)>(),
        any::<(i64, u64)>(),
        any::<(i128, u128)>(),
    );
    let others = (any::<f64>(), any::<bool>(), any::<char>(), any::<i64>());
    (integers, others).prop_map(
        |((bytes, short, int, long, wide), (float, flag, letter, at))| Scalars {
            bytes,
            short,
            int,
            long,
            wide,
            float: F64::new(float),
            flag,
            letter,
            at: EventTime(at),
            unit: (),
        },
    )
}

fn means() -> impl Strategy<Value = Means> {
    prop_oneof![
        (text(), any::<Option<i64>>()).prop_map(|(number, limit)| Means::Card { number, limit }),
        Just(Means::Cash),
        (0u8..3, proptest::option::of(text())).prop_map(|pair| Means::Split(Box::new(pair))),
        text().prop_map(Means::Other),
    ]
}

fn nested() -> impl Strategy<Value = Nested> {
    let names = btree_map(text(), -2i32..2, 0..3);
    let window = (-3i64..3, -3i64..3);
    let maybe = select(vec![None, Some(None), Some(Some(0)), Some(Some(256))]);
    (vec(text(), 0..3), names, means(), window, maybe).prop_map(
        |(texts, names, means, (start, end), maybe)| Nested {
            texts,
            names,
            means,
            window: Window {
                start: EventTime(start),
                end: EventTime(end),
            },
            maybe,
        },
    )
}

fn anything() -> impl Strategy<Value = Any> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Any::Number),
        text().prop_map(Any::Text),
        any::<(u8, Option<bool>)>().prop_map(|(left, right)| Any::Pair { left, right }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| vec(inner, 0..3).prop_map(Any::List))
}

fn tree() -> impl Strategy<Value = Tree> {
    any::<i16>()
        .prop_map(Tree::Leaf)
        .prop_recursive(5, 16, 2, |inner| {
            (inner.clone(), inner).prop_map(|(left, right)| Tree::Fork(Box::new(left), Box::new(right)))
        })
}

fn odd() -> impl Strategy<Value = Odd> {
    let tagged = prop_oneof![
        any::<u8>().prop_map(|size| Tagged::Small { size }),
        (any::<i64>(), tree()).prop_map(|(size, tree)| Tagged::Large { size, tree }),
    ];
    let name = select(vec!["extra", "more"]).prop_map(str::to_owned);
    let rest = btree_map(name, anything(), 0..2);
    (any::<u32>(), any::<Option<u8>>(), text(), tagged, tree(), rest).prop_map(
        |(before, vip, name, tagged, tree, rest)| Odd {
            before,
            vip,
            name,
            tagged,
            tree,
            rest,
        },
    )
}

fn bytes<T: Serialize>(ty: &Type, form: Form, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(ty, form, value, &mut bytes).unwrap();
    bytes
}

/// Both come back, and the ordered form sorts them as they are.
fn check<T: Ord + Clone + Debug + Serialize + DeserializeOwned>(a: &T, b: &T, sorts: bool) {
    let ty = trace::<T>().ty;
    for form in FORMS {
        for value in [a, b] {
            let encoded = bytes(&ty, form, value);
            assert_eq!(decode::<T>(&ty, form, &encoded).as_ref(), Ok(value), "{ty}");
            // Cut short it is no value, and nothing panics.
            for len in 0..encoded.len() {
                let _ = decode::<T>(&ty, form, &encoded[..len]);
            }
        }
    }
    let ordered = [a, b].map(|value| bytes(&ty, Form::Ordered, value));
    if sorts {
        assert_eq!(
            a.cmp(b),
            ordered[0].cmp(&ordered[1]),
            "{a:?} and {b:?} as {ordered:?}"
        );
    }
    assert_eq!(a == b, ordered[0] == ordered[1]);
}

/// The datums of a row, read in one go, one by one, and written again, are the same.
fn check_columns<K: Serialize + DeserializeOwned, V: Serialize + DeserializeOwned>(
    key: &K,
    value: &V,
) -> Vec<Datum> {
    let schema = RowSchema::new("it", trace::<K>(), trace::<V>(), FieldNames::default()).unwrap();
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    schema.encode_key(key, &mut key_bytes).unwrap();
    schema.encode_value(value, &mut value_bytes).unwrap();
    let mut row = schema.key_row(&key_bytes).unwrap();
    assert!(schema.add_value(&value_bytes, &mut row));
    for (at, datum) in row.iter().enumerate() {
        assert_eq!(schema.column(&key_bytes, &value_bytes, at).as_ref(), Some(datum));
    }
    let (mut key_again, mut value_again) = (Vec::new(), Vec::new());
    for (at, (field, datum)) in schema.fields().zip(&row).enumerate() {
        let written = if at < schema.key.len() {
            column::write(&field.ty, Form::Ordered, datum, &mut key_again)
        } else {
            column::write(&field.ty, Form::Compact, datum, &mut value_again)
        };
        assert!(written.is_some(), "{}: {datum:?}", field.ty);
    }
    assert_eq!((key_again, value_again), (key_bytes, value_bytes));
    row
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn scalars_come_back_and_sort(a in scalars(), b in scalars()) {
        check(&a, &b, true);
        check(&(a.letter.to_string(), a.wide.0, &a.float).1, &b.wide.0, true);
        check_columns(&a, &b.wide);
    }

    #[test]
    fn what_is_nested_comes_back_and_sorts(a in nested(), b in nested()) {
        check(&a, &b, true);
        check(&(a.texts.clone(), a.maybe), &(b.texts.clone(), b.maybe), true);
        // Shown, it is null as what holds it would be.
        let a = Nested { maybe: a.maybe.filter(Option::is_some), ..a };
        check_columns(&a, &(b.means.clone(), b.names.clone()));
    }

    /// Bytes decide by what comes first: a text that ends is below one that goes on, whatever stands behind
    /// it.
    #[test]
    fn what_stands_behind_a_text_does_not_disturb_its_order(a in (text(), any::<i64>()), b in (text(), any::<i64>())) {
        check(&a, &b, true);
    }

    #[test]
    fn what_says_itself_what_it_is_comes_back(a in odd(), b in odd(), c in anything(), d in anything()) {
        check(&a, &b, false);
        check(&c, &d, false);
        check(&vec![(1u8, c.clone())], &vec![(1u8, d)], false);
        let expected = serde_json::to_value(&c).unwrap();
        let schema = RowSchema::new("it", trace::<u8>(), trace::<Any>(), FieldNames::default()).unwrap();
        let mut value = Vec::new();
        schema.encode_value(&c, &mut value).unwrap();
        let mut row = schema.key_row(&[1]).unwrap();
        prop_assert!(schema.add_value(&value, &mut row));
        let mut shown = Vec::new();
        schema.write_row(&row, Numbers::Exact, &mut shown);
        prop_assert_eq!(serde_json::from_slice::<Value>(&shown).unwrap(), json!({"key": 1, "value": expected}));
    }

    #[test]
    fn damaged_bytes_are_no_value(form in select(FORMS.to_vec()), noise in vec(any::<u8>(), 0..40)) {
        let _ = decode::<Nested>(&trace::<Nested>().ty, form, &noise);
        let _ = decode::<Odd>(&trace::<Odd>().ty, form, &noise);
        let schema = RowSchema::new("it", trace::<Nested>(), trace::<Any>(), FieldNames::default()).unwrap();
        let _ = schema.key_row(&noise);
        let _ = schema.add_value(&noise, &mut Vec::new());
    }
}

#[test]
fn windows_of_a_key_have_its_bytes_in_common() {
    let schema = RowSchema::new(
        "it",
        trace::<Windowed<(String, u16)>>(),
        trace::<()>(),
        FieldNames::default(),
    )
    .unwrap();
    let encoded = |start| {
        let window = Window {
            start: EventTime(start),
            end: EventTime(start + 10),
        };
        let key = ("a".to_owned(), 7u16);
        let mut bytes = Vec::new();
        schema.encode_key(&Windowed { key, window }, &mut bytes).unwrap();
        bytes
    };
    let (first, second) = (encoded(-10), encoded(0));
    assert!(first < second);
    assert_eq!(schema.without_window(&first), schema.without_window(&second));
    assert_eq!(schema.without_window(&first), [b'a', 0, 0, 0, 7]);
}

/// Reads what it writes as something else.
#[derive(Debug, PartialEq)]
struct Unlike(u32);

impl Serialize for Unlike {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}
impl<'de> Deserialize<'de> for Unlike {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

#[test]
fn what_is_written_otherwise_than_read_is_told_when_it_is_written() {
    #[derive(Serialize, Deserialize)]
    struct Skips {
        id: u32,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<u8>,
        odd: Option<bool>,
    }
    let error = |ty: &Type, value: &dyn Fn(&Type, &mut Vec<u8>) -> Result<(), super::encode::Mismatch>| {
        value(ty, &mut Vec::new()).unwrap_err().to_string()
    };
    let skips = Skips {
        id: 1,
        tags: Vec::new(),
        odd: None,
    };
    assert_eq!(
        error(&trace::<Skips>().ty, &|ty, out| encode(
            ty,
            Form::Compact,
            &skips,
            out
        )),
        "field `tags` may be left out when written but is required when read"
    );
    assert_eq!(
        error(&trace::<(u8, Unlike)>().ty, &|ty, out| encode(
            ty,
            Form::Compact,
            &(1u8, Unlike(2)),
            out
        )),
        "it is written as string but read as u32"
    );
}

#[test]
fn a_type_that_checks_what_it_reads_is_traced_and_comes_back() {
    let address: IpAddr = "::1".parse().unwrap();
    let other: IpAddr = "10.0.0.1".parse().unwrap();
    check(&(address, 1u8), &(other, 2), false);
    assert_eq!(check_columns(&address, &()), [Datum::Text("::1".into())]);
}

#[test]
fn what_is_shown_alike_is_one_datum_however_deep() {
    let nested = |leaf: &str| {
        let leaf = Datum::Text(leaf.into());
        (0..300).fold(leaf, |inner, _| Datum::List(vec![inner]))
    };
    assert_eq!(as_shown(&nested("a")), as_shown(&nested("a")));
    assert_ne!(as_shown(&nested("a")), as_shown(&nested("b")));
    let one = Datum::Struct(vec![
        ("a", Datum::Int(1)),
        ("b", Datum::Variant(0, "B".into(), None)),
    ]);
    let entry = |name: &str, value| (Datum::Text(name.into()), value);
    let other = Datum::Map(vec![
        entry("b", Datum::Text("B".into())),
        entry("a", Datum::Int(1)),
    ]);
    assert_eq!(as_shown(&one), as_shown(&other));
    let by_number = Datum::Map(vec![(Datum::Int(7), Datum::Null)]);
    assert_eq!(
        as_shown(&by_number),
        as_shown(&Datum::Map(vec![entry("7", Datum::Null)]))
    );
}
