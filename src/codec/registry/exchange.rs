//! One request to a registry and what comes back, whoever it is that answers.

use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::access::Credentials;
use super::{Language, Referenced, WriterSchema};
use crate::codec::avro::schema::check_writer;

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A reference, as registries write it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

/// A schema in an answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaBody {
    schema: String,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Named>>,
}

impl SchemaBody {
    /// What it refers to, by subject and version.
    pub(super) fn references(&self) -> &[Named] {
        self.references.as_deref().unwrap_or_default()
    }

    /// What another schema refers to by `name`.
    pub(super) fn into_referenced(self, name: String) -> Referenced {
        let text = self.schema;
        Referenced { name, text }
    }

    /// With the id that it was asked for by, or that the answer gave, and what it refers to. A registry that
    /// calls a text an Avro schema which is none talks nonsense, and may know better later; one that names
    /// another language has said what the records are.
    pub(super) fn into_schema(self, id: u32, references: Vec<Referenced>) -> Result<WriterSchema, String> {
        let language = Language::named(self.schema_type.as_deref());
        let schema = WriterSchema::of(id, language, self.schema, references);
        match (language == Language::Avro).then(|| check_writer(&schema)) {
            Some(Err(why)) => Err(format!(
                "what it has as schema {id} is no Avro schema ({why}): {}",
                excerpt(schema.text.as_bytes())
            )),
            _ => Ok(schema),
        }
    }
}

/// What came back, whatever it is.
pub(super) struct Response {
    pub(super) status: StatusCode,
    body: Vec<u8>,
}

impl Response {
    /// The registry's own code, if it was the registry that spoke.
    pub(super) fn error_code(&self) -> Option<u32> {
        #[derive(Deserialize)]
        struct ErrorBody {
            error_code: u32,
        }
        serde_json::from_slice::<ErrorBody>(&self.body)
            .ok()
            .map(|complaint| complaint.error_code)
    }

    /// The body as a `B`, or what came instead.
    pub(super) fn expect<B: for<'de> Deserialize<'de>>(&self) -> Result<B, String> {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!(
                    "it answered {}: {} (the login is `registry.username` with `registry.password`, or \
                        `registry.token`)",
                    self.status,
                    self.excerpt()
                ));
            }
            status if !status.is_success() => {
                return Err(format!("it answered {}: {}", self.status, self.excerpt()));
            }
            _ => {}
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("its answer makes no sense ({error}): {}", self.excerpt()))
    }

    fn excerpt(&self) -> String {
        excerpt(&self.body)
    }
}

/// The beginning, for people.
fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(400)])
        .chars()
        .take(200)
        .collect()
}

/// Sends a request and reads the answer, up to a limit.
pub(super) async fn exchange(
    request: reqwest::RequestBuilder,
    login: &Credentials,
) -> Result<Response, String> {
    // An address may hold a password: errors are told without it.
    let told = |error: reqwest::Error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        if text.contains("certificate verify failed") {
            text += " (its certificate is signed by nobody that is trusted here: name the authority's by \
                `registry.ca_file`)";
        }
        text
    };
    let mut response = login.into(request).send().await.map_err(told)?;
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "it answered {status} with more than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        // Some servers repeat the request that they complain about.
        body = login.hide_in(&String::from_utf8_lossy(&body)).into_bytes();
    }
    Ok(Response { status, body })
}
