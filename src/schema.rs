//! Encoded rows, and the schema that describes them.
//!
//! ```text
//!   typed K, V        ── encode ─▶  Row: key bytes ┊ value bytes      ── RowSchema::row ─▶  datums ── json ─▶ JSON
//!   (users' closures)               (views, checkpoints, hashes)         column by column
//! ```
//!
//! A row is encoded once, when it leaves typed code. From there on it is bytes that a [`RowSchema`]
//! describes, so code that stores, compares, sends or displays rows is compiled once instead of for each
//! type.
//!
//! * [`types`]: the types of fields; [`trace`] derives them from a Rust type's own `Deserialize`.
//! * [`encode`]: keys in an encoding whose byte order is the order of their fields, values in a compact one.
//! * [`decode`]: decoding into a Rust type; [`mod@column`]: decoding into a [`Datum`] per field, without a
//!   Rust type.
//! * [`json`]: datums as JSON.
//!
//! # Fields
//!
//! | the Rust type | fields of a key | fields of a value |
//! |---|---|---|
//! | struct | its fields (renamed by the names of the key, if given) | its fields |
//! | tuple | the names given for the key, or `key_0`, `key_1` … | those for the value, or `value_0` … |
//! | `Windowed<K>` | those of `K`, then `window_start`, `window_end` | one field |
//! | `Ranked<K>` | those of `K`, then `rank` | one field |
//! | `()` | none | none |
//! | any other | one field: the name given, or `key` | one field: the name given, or `value` |
//!
//! Newtypes count as what they wrap. Nested data (a struct in a field) is one field that holds a JSON object.

pub(crate) mod column;
pub mod datum;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod small;
pub(crate) mod trace;
pub mod types;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::schema::datum::Datum;
use crate::schema::encode::{Form, Mismatch};
use crate::schema::types::Type;

/// The names and types of a row's fields, and the encoding of its key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSchema {
    /// The key's fields.
    pub key: Vec<Field>,
    /// The value's fields.
    pub value: Vec<Field>,
    /// The type of the key as a whole. Its encoding is the concatenation of its fields' encodings.
    key_type: Type,
    value_type: Type,
    windowed: bool,
}

/// A named field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, in URLs and in JSON.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// How integers of 64 bits and more are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// As JSON numbers.
    #[default]
    Exact,
    /// As JSON strings, for clients that would round numbers.
    Strings,
}

/// The size of a window at the end of an encoded key: two timestamps.
const WINDOW_LEN: usize = 16;

impl RowSchema {
    /// All fields in the order of a row's datums: the key's, then the value's.
    pub fn fields(&self) -> impl Iterator<Item = &Field> + Clone {
        self.key.iter().chain(&self.value)
    }

    /// Whether the key's last two fields are a window.
    pub fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// The size of the window at the end of an encoded key.
    pub(crate) fn window_len(&self) -> usize {
        if self.windowed { WINDOW_LEN } else { 0 }
    }

    /// Appends the encoding of a key.
    ///
    /// # Errors
    /// If the key's `Serialize` writes something other than its `Deserialize` reads.
    #[inline]
    pub fn encode_key<K: Serialize>(&self, key: &K, out: &mut Vec<u8>) -> Result<(), Mismatch> {
        encode::encode(&self.key_type, Form::Ordered, key, out)
    }

    /// Appends the encoding of a value.
    ///
    /// # Errors
    /// Those of [`RowSchema::encode_key`].
    #[inline]
    pub fn encode_value<V: Serialize>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Mismatch> {
        encode::encode(&self.value_type, Form::Compact, value, out)
    }

    /// Decodes a key; `None` if the bytes are invalid.
    pub fn decode_key<K: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Option<K> {
        decode::decode(&self.key_type, Form::Ordered, bytes).ok()
    }

    /// Decodes a value; `None` if the bytes are invalid.
    pub fn decode_value<V: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Option<V> {
        decode::decode(&self.value_type, Form::Compact, bytes).ok()
    }

    /// The encoded key without its window, which all windows of a key have in common. A key that consists of
    /// a window only is unchanged.
    #[inline]
    pub fn without_window<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        match key.len().checked_sub(WINDOW_LEN) {
            Some(len) if self.windowed && len > 0 => &key[..len],
            _ => key,
        }
    }

    /// The datums of a key's fields; `None` if the bytes are invalid.
    pub fn key_row(&self, key: &[u8]) -> Option<Vec<Datum>> {
        let mut row = Vec::with_capacity(self.key.len() + self.value.len());
        column::read_all(&self.key, Form::Ordered, key, &mut row).then_some(row)
    }

    /// Appends the datums of a value's fields; returns false if the bytes are invalid.
    pub fn add_value(&self, value: &[u8], row: &mut Vec<Datum>) -> bool {
        column::read_all(&self.value, Form::Compact, value, row)
    }

    /// The field at an index of the row.
    pub fn column(&self, key: &[u8], value: &[u8], at: usize) -> Option<Datum> {
        match at.checked_sub(self.key.len()) {
            None => column::read_one(&self.key, Form::Ordered, key, at),
            Some(at) => column::read_one(&self.value, Form::Compact, value, at),
        }
    }

    /// Appends a row as a JSON object to `out`.
    pub fn write_row(&self, row: &[Datum], numbers: Numbers, out: &mut Vec<u8>) {
        write(self.object(row, numbers), out);
    }

    /// A row that serializes as a JSON object.
    pub fn object<'a>(&'a self, row: &'a [Datum], numbers: Numbers) -> impl Serialize + 'a {
        let fields = self.fields();
        json::RowObject { fields, row, numbers }
    }

    /// Appends a key alone (of a row, or of a deletion) as a JSON object.
    pub fn write_key(&self, row: &[Datum], numbers: Numbers, out: &mut Vec<u8>) {
        let fields = self.key.iter();
        write(json::RowObject { fields, row, numbers }, out);
    }

    /// Appends a value as JSON to `out`: a struct as an object, anything else as itself. Returns false if the
    /// bytes are invalid.
    pub fn write_value(&self, value: &[u8], numbers: Numbers, out: &mut Vec<u8>) -> bool {
        write_whole(&self.value_type, Form::Compact, value, numbers, out)
    }

    /// Appends a key as JSON, in the form that records have: a single field as itself, several as an object.
    /// Returns false if the bytes are invalid.
    pub fn write_record_key(&self, key: &[u8], numbers: Numbers, out: &mut Vec<u8>) -> bool {
        if let Some(ty) = self.single_key() {
            return write_whole(ty, Form::Ordered, key, numbers, out);
        }
        let row = self.key_row(key);
        row.inspect(|row| self.write_key(row, numbers, out)).is_some()
    }

    /// The type of a key that is a single field, and not a struct or tuple; `None` for all other keys.
    pub(crate) fn single_key(&self) -> Option<&Type> {
        let is_single = !matches!(self.key_type, Type::Struct(_) | Type::Tuple(_)) && self.key.len() == 1;
        is_single.then_some(&self.key_type)
    }

    /// The type of the whole value.
    pub(crate) fn value_type(&self) -> &Type {
        &self.value_type
    }

    /// Decodes the whole value; `None` if the bytes are invalid.
    pub(crate) fn whole_value(&self, value: &[u8]) -> Option<Datum> {
        let mut reader = column::ColumnReader::new(Form::Compact, value);
        reader.datum(&self.value_type).filter(|_| reader.is_at_end())
    }

    /// The index of a field in a row.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields().position(|field| field.name == name)
    }
}

fn write_whole(ty: &Type, form: Form, bytes: &[u8], numbers: Numbers, out: &mut Vec<u8>) -> bool {
    let mut reader = column::ColumnReader::new(form, bytes);
    match reader.datum(ty) {
        Some(datum) if reader.is_at_end() => {
            let datum = &datum;
            write(json::ShownValue { ty, datum, numbers }, out);
            true
        }
        _ => false,
    }
}

/// Cannot fail: the objects have string names, and writing to memory succeeds.
fn write(object: impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &object).expect("a row is written to memory");
}
