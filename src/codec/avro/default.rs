//! The default of a reader's field: JSON in the schema, bytes in a rewritten datum.

use apache_avro::schema::{EnumSchema, RecordSchema};
use serde_json::Value;

use super::plan::{At, Base, Names, base};
use super::rewrite::write_long;

/// Appends the datum that `json` stands for; `None` if the schema does not allow it.
pub(super) fn encode_default<'s>(
    names: &Names<'s>,
    at: At<'s>,
    json: &Value,
    out: &mut Vec<u8>,
) -> Option<()> {
    let at = at.follow(names)?;
    match base(at.schema) {
        Base::Null => json.is_null().then_some(())?,
        Base::Boolean => out.push(u8::from(json.as_bool()?)),
        Base::Int => write_long(i64::from(i32::try_from(json.as_i64()?).ok()?), out),
        Base::Long => write_long(json.as_i64()?, out),
        Base::Float => out.extend((float(json)? as f32).to_le_bytes()),
        Base::Double => out.extend(float(json)?.to_le_bytes()),
        Base::String => write_bytes(json.as_str()?.as_bytes(), out),
        Base::Bytes => write_bytes(&latin1(json)?, out),
        Base::Fixed(fixed) => {
            let bytes = latin1(json)?;
            (bytes.len() == fixed.size).then(|| out.extend(bytes))?;
        }
        Base::Enum(EnumSchema { symbols, .. }) => {
            let symbol = json.as_str()?;
            write_long(symbols.iter().position(|other| other == symbol)? as i64, out);
        }
        Base::Array(items) => {
            let values = json.as_array()?;
            if !values.is_empty() {
                write_long(values.len() as i64, out);
                values
                    .iter()
                    .try_for_each(|value| encode_default(names, at.within(items), value, out))?;
            }
            out.push(0);
        }
        Base::Map(types) => {
            let entries = json.as_object()?;
            if !entries.is_empty() {
                write_long(entries.len() as i64, out);
                for (key, value) in entries {
                    write_bytes(key.as_bytes(), out);
                    encode_default(names, at.within(types), value, out)?;
                }
            }
            out.push(0);
        }
        // Up to Avro 1.11 the default of a union belongs to its first branch, since 1.12 to any.
        Base::Union(branches) => {
            let start = out.len();
            (0..branches.len()).find(|&index| {
                out.truncate(start);
                write_long(index as i64, out);
                encode_default(names, at.within(&branches[index]), json, out).is_some()
            })?;
        }
        Base::Record(record) => fields(names, at, record, json, out)?,
        Base::Ref => return None,
    }
    Some(())
}

fn fields<'s>(
    names: &Names<'s>,
    at: At<'s>,
    record: &'s RecordSchema,
    json: &Value,
    out: &mut Vec<u8>,
) -> Option<()> {
    let given = json.as_object()?;
    record.fields.iter().try_for_each(|field| {
        let value = given.get(&field.name).or(field.default.as_ref())?;
        encode_default(names, at.within(&field.schema), value, out)
    })
}

/// JSON has no word for what is not a number; schemas in the wild write these as strings.
fn float(json: &Value) -> Option<f64> {
    json.as_f64().or_else(|| match json.as_str()? {
        "NaN" => Some(f64::NAN),
        "INF" | "Infinity" => Some(f64::INFINITY),
        "-INF" | "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    })
}

/// Bytes are written in JSON as a string whose code points are the bytes.
fn latin1(json: &Value) -> Option<Vec<u8>> {
    json.as_str()?
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect()
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}
