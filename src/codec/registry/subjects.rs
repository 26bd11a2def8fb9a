//! What a registry has by subject and version, and how it gets more.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::exchange::SchemaBody;
use super::{CONTENT_TYPE, Registry, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, WriterSchema};
use crate::error::{Error, Result};

impl Registry {
    /// Registers `text` under `subject` and gives its id; the same text has the same id every time. To be
    /// awaited on a tokio runtime.
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32> {
        #[derive(Deserialize)]
        struct Registered {
            id: u32,
        }
        let body = serde_json::json!({ "schema": text }).to_string();
        let request = self
            .shared
            .request(Method::POST, &["subjects", subject, "versions"]);
        let request = request.header("content-type", CONTENT_TYPE).body(body);
        let answer = self.shared.send(request).await;
        let registered = answer.and_then(|answer| answer.expect::<Registered>());
        Ok(registered
            .map_err(|error| subject_error("cannot register a schema", subject, error))?
            .id)
    }

    /// The newest schema of `subject`. To be awaited on a tokio runtime.
    pub async fn latest(&self, subject: &str) -> Result<Arc<WriterSchema>> {
        let missing = || {
            subject_error(
                "cannot get a schema",
                subject,
                "there is no such subject".to_owned(),
            )
        };
        Ok(self.version(subject, None).await?.ok_or_else(missing)?.1)
    }

    /// A version of `subject`, the newest where none is named, with its number; `None` where the registry has
    /// no such subject or version. To be awaited on a tokio runtime.
    pub async fn version(
        &self,
        subject: &str,
        version: Option<u32>,
    ) -> Result<Option<(u32, Arc<WriterSchema>)>> {
        #[derive(Deserialize)]
        struct Version {
            id: u32,
            version: u32,
            #[serde(flatten)]
            body: SchemaBody,
        }
        let named = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = ["subjects", subject, "versions", &named];
        let failed = |error| subject_error("cannot get a schema", subject, error);
        let answer = self
            .shared
            .send(self.shared.request(Method::GET, &path))
            .await
            .map_err(failed)?;
        if answer.status == StatusCode::NOT_FOUND
            && matches!(answer.error_code(), Some(SUBJECT_NOT_FOUND | VERSION_NOT_FOUND))
        {
            return Ok(None);
        }
        let Version { id, version, body } = answer.expect::<Version>().map_err(failed)?;
        Ok(Some((version, Arc::new(body.into_schema(id).map_err(failed)?))))
    }
}

pub(super) fn subject_error(what: &str, subject: &str, error: String) -> Error {
    Error::outside(format!("{what} of subject `{subject}`"))
        .detail(error)
        .hint("check the registry's address, and the subject's compatibility if the schema was refused")
}
