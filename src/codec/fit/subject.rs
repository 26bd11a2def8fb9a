//! Holds what a source reads against the schemas that a registry has for it.

use std::time::Duration;

use super::{Found, Misfit, SubjectFit};
use crate::codec::format::{Compare, Format};
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
    compare: Compare,
}

impl Subject {
    /// The subject `<topic>-<part>`, if the format is one that a registry knows of.
    pub(crate) fn of<T: 'static>(topic: &str, part: &str, format: &dyn Format<T>) -> Option<Self> {
        Some(Self {
            name: format!("{topic}-{part}"),
            compare: format.compare()?,
        })
    }

    async fn fit(self, registry: Registry) -> Result<SubjectFit> {
        let Self { name, compare } = self;
        let Some((newest, schema)) = registry.version(&name, None).await? else {
            return Ok(SubjectFit {
                subject: name,
                found: Found::NoSubject,
            });
        };
        let found = compare(&schema);
        let some = |misfits: &[Misfit]| !misfits.iter().any(|misfit| misfit.every);
        let mut readable = some(&found);
        for version in (newest.saturating_sub(VERSIONS_MAX).max(1)..newest).rev() {
            if readable {
                break;
            }
            let older = registry.version(&name, Some(version)).await?;
            readable = older.is_some_and(|(_, schema)| some(&compare(&schema)));
        }
        let found = Found::Newest {
            id: schema.id,
            misfits: found,
            readable,
        };
        Ok(SubjectFit { subject: name, found })
    }
}

/// Asks the registry for each subject, one after the other. Blocks for a few seconds at most each.
pub(crate) fn compare(subjects: &[Subject], registry: &Registry) -> Vec<SubjectFit> {
    let one = |subject: &Subject| {
        let unseen = |error| SubjectFit {
            subject: subject.name.clone(),
            found: Found::Unseen(error),
        };
        registry
            .wait(PATIENCE, subject.clone().fit(registry.clone()))
            .unwrap_or_else(unseen)
    };
    subjects.iter().map(one).collect()
}
