//! The default of a reader's field: JSON in the schema, bytes in a rewritten datum.

use serde_json::Value;

use super::long::write_long;
use super::schema::{NodeId, NodeKind, Record, Schema};

/// How deep a default may be nested: records of itself have no end without data.
const DEPTH_MAX: usize = 64;

/// Appends the datum that `json` stands for; `None` if the schema does not allow it.
pub(super) fn encode_default(schema: &Schema, at: NodeId, json: &Value, out: &mut Vec<u8>) -> Option<()> {
    Defaults { schema, depth: 0 }.encode(at, json, out)
}

struct Defaults<'s> {
    schema: &'s Schema,
    depth: usize,
}

impl Defaults<'_> {
    fn encode(&mut self, at: NodeId, json: &Value, out: &mut Vec<u8>) -> Option<()> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let encoded = self.place(at, json, out);
        self.depth -= 1;
        encoded
    }

    fn place(&mut self, at: NodeId, json: &Value, out: &mut Vec<u8>) -> Option<()> {
        let schema = self.schema;
        match schema.kind(at) {
            NodeKind::Null => json.is_null().then_some(())?,
            NodeKind::Boolean => out.push(u8::from(json.as_bool()?)),
            NodeKind::Int => write_long(i64::from(i32::try_from(json.as_i64()?).ok()?), out),
            NodeKind::Long => write_long(json.as_i64()?, out),
            NodeKind::Float => out.extend((float(json)? as f32).to_le_bytes()),
            NodeKind::Double => out.extend(float(json)?.to_le_bytes()),
            NodeKind::String => write_bytes(json.as_str()?.as_bytes(), out),
            NodeKind::Bytes => write_bytes(&latin1(json)?, out),
            NodeKind::Fixed(fixed) => {
                let bytes = latin1(json)?;
                (bytes.len() == fixed.size).then(|| out.extend(bytes))?;
            }
            NodeKind::Enum(symbols) => {
                let symbol = json.as_str()?;
                let place = symbols.symbols.iter().position(|other| other == symbol)?;
                write_long(place as i64, out);
            }
            NodeKind::Array(items) => {
                let values = json.as_array()?;
                if !values.is_empty() {
                    write_long(values.len() as i64, out);
                    values
                        .iter()
                        .try_for_each(|value| self.encode(*items, value, out))?;
                }
                out.push(0);
            }
            NodeKind::Map(values) => {
                let entries = json.as_object()?;
                if !entries.is_empty() {
                    write_long(entries.len() as i64, out);
                    for (key, value) in entries {
                        write_bytes(key.as_bytes(), out);
                        self.encode(*values, value, out)?;
                    }
                }
                out.push(0);
            }
            // Up to Avro 1.11 the default of a union belongs to its first branch, since 1.12 to any.
            NodeKind::Union(branches) => {
                let start = out.len();
                (0..branches.len()).find(|&index| {
                    out.truncate(start);
                    write_long(index as i64, out);
                    self.encode(branches[index], json, out).is_some()
                })?;
            }
            NodeKind::Record(record) => self.fields(record, json, out)?,
        }
        Some(())
    }

    fn fields(&mut self, record: &Record, json: &Value, out: &mut Vec<u8>) -> Option<()> {
        let given = json.as_object()?;
        record.fields.iter().try_for_each(|field| {
            let value = given.get(&field.name).or(field.default.as_ref())?;
            self.encode(field.node, value, out)
        })
    }
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
