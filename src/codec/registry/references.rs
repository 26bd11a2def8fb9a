//! What a schema refers to: fetched by subject and version, and what that refers to in its turn.

use std::pin::Pin;

use reqwest::{Method, StatusCode};

use super::exchange::{Named, SchemaBody};
use super::{Referenced, RegistryClient, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, WriterSchema};

/// Schemas that one schema may refer to, all in all, and how deep.
const REFERENCES_MAX: usize = 200;
const DEPTH_MAX: usize = 20;

/// Why the schema is not to be had.
pub(super) enum Incomplete {
    /// The registry did not do its part; it may later.
    Failed(String),
    /// What it has makes no sense.
    Nonsense(String),
}

impl RegistryClient {
    /// The schema in an answer with all that it refers to.
    pub(super) async fn complete(&self, body: SchemaBody, id: u32) -> Result<WriterSchema, Incomplete> {
        let mut found = Vec::new();
        self.collect(body.references(), &mut found, 0).await?;
        body.into_schema(id, found).map_err(Incomplete::Nonsense)
    }

    /// Adds what is referred to, and what that refers to before it.
    fn collect<'a>(
        &'a self,
        references: &'a [Named],
        found: &'a mut Vec<Referenced>,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), Incomplete>> + Send + 'a>> {
        Box::pin(async move {
            for reference in references {
                if found.iter().any(|known| known.name == reference.name) {
                    continue;
                }
                if depth >= DEPTH_MAX || found.len() >= REFERENCES_MAX {
                    let why = format!("it refers to more than {REFERENCES_MAX} others, or in a circle");
                    return Err(Incomplete::Nonsense(why));
                }
                let body = self.referenced(reference).await?;
                self.collect(body.references(), found, depth + 1).await?;
                found.push(body.into_referenced(reference.name.clone()));
            }
            Ok(())
        })
    }

    async fn referenced(&self, reference: &Named) -> Result<SchemaBody, Incomplete> {
        let Named {
            name,
            subject,
            version,
        } = reference;
        let path = ["subjects", subject, "versions", &version.to_string()];
        let answer = self.send(self.request(Method::GET, &path)).await;
        let answer = answer.map_err(Incomplete::Failed)?;
        let unknown = matches!(answer.error_code(), Some(SUBJECT_NOT_FOUND | VERSION_NOT_FOUND));
        if answer.status == StatusCode::NOT_FOUND && unknown {
            let why =
                format!("it refers to `{name}`, and there is no version {version} of subject `{subject}`");
            return Err(Incomplete::Nonsense(why));
        }
        answer.expect().map_err(Incomplete::Failed)
    }
}

impl From<Incomplete> for String {
    fn from(why: Incomplete) -> Self {
        match why {
            Incomplete::Failed(why) | Incomplete::Nonsense(why) => why,
        }
    }
}
