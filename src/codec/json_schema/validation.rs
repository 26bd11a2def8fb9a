//! Validation by the crate `jsonschema`, which is told neither of the network nor of files.

use std::error::Error;

use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;

use super::Validate;
use crate::codec::writer::{Referenced, WriterSchema};
use crate::codec::{Cause, unmarked};

/// Longer places are cut: a name may be as long as the payload.
const PLACE_BYTES_MAX: usize = 256;

/// Holds records against a schema, or says why nothing can be held against it.
pub(super) fn of(schema: &WriterSchema) -> Result<Validate, String> {
    let json: Value =
        serde_json::from_str(&schema.text).map_err(|error| format!("it is no JSON: {error}"))?;
    let validator = jsonschema::options()
        .with_retriever(References(schema.references.clone()))
        .with_pattern_options(PatternOptions::regex())
        .build(&json)
        .map_err(|error| format!("it is no JSON Schema that can be used: {error}"))?;
    Ok(Box::new(move |bytes| validate(&validator, bytes)))
}

fn validate(validator: &Validator, bytes: &[u8]) -> Result<(), (Cause, Box<str>)> {
    let json: Value = match serde_json::from_slice(unmarked(bytes)) {
        Ok(json) => json,
        Err(_) => return Err((Cause::JsonSyntax, "".into())),
    };
    match validator.validate(&json) {
        Ok(()) => Ok(()),
        Err(error) => Err((Cause::JsonSchemaInvalid, place(&error))),
    }
}

/// Where a record does not validate, and by which keyword of the schema: `items[2].price: minimum`. The
/// library's own words are not told, as they change with its version.
fn place(error: &ValidationError<'_>) -> Box<str> {
    let mut place = String::new();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Property(name) => {
                place.push_str(if place.is_empty() { "" } else { "." });
                place.push_str(&name);
            }
            LocationSegment::Index(index) => place.push_str(&format!("[{index}]")),
        }
    }
    if place.len() > PLACE_BYTES_MAX {
        place.truncate(place.floor_char_boundary(PLACE_BYTES_MAX));
        place.push('…');
    }
    let colon = if place.is_empty() { "" } else { ": " };
    format!("{place}{colon}{}", error.kind().keyword()).into()
}

/// What the schema refers to, as the registry gave it.
struct References(Vec<Referenced>);

impl Retrieve for References {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        // Names that are no whole address are relative to the schema's own.
        let is = |name: &str| {
            let rest = uri.as_str().strip_suffix(name);
            rest.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        match self.0.iter().find(|other| is(&other.name)) {
            Some(other) => Ok(serde_json::from_str(&other.text)?),
            None => Err(format!("it refers to {uri}, which is not among its references").into()),
        }
    }
}
