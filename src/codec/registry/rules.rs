//! What a registry's rules say of a schema before it is registered.

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::subjects::subject_error;
use super::{CONTENT_TYPE, Draft, Registry, SUBJECT_NOT_FOUND};
use crate::error::{Error, Result};

/// What a registry says of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CompatibilityRuling {
    /// Whether it would take it as the next version.
    #[serde(rename = "is_compatible")]
    pub compatible: bool,
    /// Why not, in its own words, where it has any.
    #[serde(default)]
    pub messages: Vec<String>,
}

impl Registry {
    /// Whether the registry would take a schema as the next version of `subject`. To be awaited on a tokio
    /// runtime.
    pub async fn ruling(&self, subject: &str, schema: impl Into<Draft>) -> Result<CompatibilityRuling> {
        let body = schema.into().body();
        let path = ["compatibility", "subjects", subject, "versions"];
        let request = self
            .shared
            .request(Method::POST, &path)
            .header("content-type", CONTENT_TYPE)
            .body(body);
        let ruling = self.shared.send(request).await.and_then(|answer| {
            let new =
                answer.status == StatusCode::NOT_FOUND && answer.error_code() == Some(SUBJECT_NOT_FOUND);
            match new {
                true => Ok(CompatibilityRuling {
                    compatible: true,
                    messages: Vec::new(),
                }),
                false => answer.expect::<CompatibilityRuling>(),
            }
        });
        ruling.map_err(|error| subject_error("cannot compare a schema", subject, error))
    }

    /// The compatibility that new versions of `subject` need: `BACKWARD`, `NONE`, … To be awaited on a tokio
    /// runtime.
    pub async fn level(&self, subject: &str) -> Result<String> {
        let failed = |error| subject_error("cannot get the compatibility", subject, error);
        let own = self.shared.request(Method::GET, &["config", subject]);
        let answer = self.shared.send(own).await.map_err(failed)?;
        if answer.status == StatusCode::NOT_FOUND {
            // It has none of its own.
            return self.global_level().await.map_err(failed);
        }
        answer.expect::<Level>().map(Level::into).map_err(failed)
    }

    /// The compatibility that holds where a subject has none of its own. Small, so that it also tells whether
    /// the registry answers and lets us in. To be awaited on a tokio runtime.
    pub async fn compatibility(&self) -> Result<String> {
        self.global_level().await.map_err(|error| {
            Error::external(format!(
                "the schema registry at {} does not answer as it should",
                self.address()
            ))
            .detail(error)
            .hint(
                "is `registry.url` its address, with the path of its Confluent-compatible API if it has one?",
            )
        })
    }

    async fn global_level(&self) -> Result<String, String> {
        let answer = self
            .shared
            .send(self.shared.request(Method::GET, &["config"]))
            .await?;
        answer.expect::<Level>().map(Level::into)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    compatibility_level: String,
}

impl From<Level> for String {
    fn from(level: Level) -> Self {
        level.compatibility_level
    }
}
