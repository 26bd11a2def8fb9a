//! Holds what a source reads against the schemas that a registry has for it.

use std::time::Duration;

use super::{Incompatibility, SubjectCompatibility, SubjectSchema};
use crate::codec::format::{Format, SchemaComparison};
use crate::codec::registry::Registry;
use crate::error::Result;

/// How long the registry may take to say what it has for a subject, each time it is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many versions of a subject are looked at, from the newest on.
const VERSIONS_MAX: u32 = 20;

/// What a registry may say of a source's payloads or keys, and how it is compared with the type.
#[derive(Clone)]
pub(crate) struct Subject {
    name: String,
    compare: SchemaComparison,
}

impl Subject {
    /// The subject `<topic>-<part>`, if the format is one that a registry knows of.
    pub(crate) fn of<T: 'static>(topic: &str, part: &str, format: &dyn Format<T>) -> Option<Self> {
        Some(Self {
            name: format!("{topic}-{part}"),
            compare: format.compare()?,
        })
    }

    async fn fit(self, registry: Registry) -> Result<SubjectCompatibility> {
        let Self { name, compare } = self;
        let Some((newest, schema)) = registry.version(&name, None).await? else {
            return Ok(SubjectCompatibility {
                subject: name,
                found: SubjectSchema::NoSubject,
            });
        };
        let found = compare(&schema);
        let some = |incompatibilities: &[Incompatibility]| {
            !incompatibilities
                .iter()
                .any(|incompatibility| incompatibility.every)
        };
        let mut readable = some(&found);
        for version in (newest.saturating_sub(VERSIONS_MAX).max(1)..newest).rev() {
            if readable {
                break;
            }
            let older = registry.version(&name, Some(version)).await?;
            readable = older.is_some_and(|(_, schema)| some(&compare(&schema)));
        }
        let found = SubjectSchema::Newest {
            id: schema.id,
            incompatibilities: found,
            readable,
        };
        Ok(SubjectCompatibility { subject: name, found })
    }
}

/// Asks the registry for each subject, one after the other. Blocks for a few seconds at most each.
pub(crate) fn compare(subjects: &[Subject], registry: &Registry) -> Vec<SubjectCompatibility> {
    let one = |subject: &Subject| {
        let unseen = |error| SubjectCompatibility {
            subject: subject.name.clone(),
            found: SubjectSchema::Unseen(error),
        };
        registry
            .wait(PATIENCE, subject.clone().fit(registry.clone()))
            .unwrap_or_else(unseen)
    };
    subjects.iter().map(one).collect()
}
