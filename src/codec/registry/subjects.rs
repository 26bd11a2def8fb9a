//! What a registry has by subject and version, and how it gets more.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::exchange::{Named, SchemaBody};
use super::{CONTENT_TYPE, Language, Registry, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, WriterSchema};
use crate::error::{Error, Result};

/// A schema that a registry may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it is written in.
    pub language: Language,
    /// Its text.
    pub text: String,
    /// The registered schemas that it refers to.
    pub references: Vec<Reference>,
}

/// A registered schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What the other one calls it: a type of Avro, the path of an `import`, the URI of a `$ref`.
    pub name: String,
    /// The subject that it is registered under.
    pub subject: String,
    /// Its version there.
    pub version: u32,
}

/// An Avro schema that stands alone.
impl From<&str> for Draft {
    fn from(text: &str) -> Self {
        Self {
            language: Language::Avro,
            text: text.to_owned(),
            references: Vec::new(),
        }
    }
}

impl Draft {
    /// As requests have it. The word for Avro is left out: old registries know no other language.
    pub(super) fn body(&self) -> String {
        let mut body = serde_json::json!({ "schema": self.text });
        if self.language != Language::Avro {
            body["schemaType"] = self.language.word().into();
        }
        if !self.references.is_empty() {
            let named = |own: &Reference| Named {
                name: own.name.clone(),
                subject: own.subject.clone(),
                version: own.version,
            };
            body["references"] = serde_json::json!(self.references.iter().map(named).collect::<Vec<_>>());
        }
        body.to_string()
    }
}

impl Registry {
    /// Registers a schema under `subject` and gives its id; the same schema has the same id every time. To
    /// be awaited on a tokio runtime.
    pub async fn register(&self, subject: &str, schema: impl Into<Draft>) -> Result<u32> {
        #[derive(Deserialize)]
        struct Registered {
            id: u32,
        }
        let body = schema.into().body();
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
        let schema = self.shared.complete(body, id).await;
        let schema = schema.map_err(|why| failed(why.into()))?;
        Ok(Some((version, Arc::new(schema))))
    }
}

pub(super) fn subject_error(what: &str, subject: &str, error: String) -> Error {
    Error::external(format!("{what} of subject `{subject}`"))
        .detail(error)
        .hint("check the registry's address, and the subject's compatibility if the schema was refused")
}
