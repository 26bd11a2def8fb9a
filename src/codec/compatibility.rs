//! How well a type fits the schemas that a registry has for its topic: what is said at the start, and by a
//! check.
//!
//! ```text
//!   newest schema of `<topic>-value` ─▶ rules: by Avro, into the reader's schema, if there is one ─┐
//!                                       structure: by serde, into the type as it was traced ───────┴─▶ Incompatibility …
//! ```
//!
//! The comparing is in [`avro::compatibility`](super::avro::compatibility). Nothing rests on it: records are
//! judged one by one.

pub(crate) mod subject;
pub(in crate::codec) mod words;

use std::fmt;

use crate::error::Error;

/// A place where schema and type do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatibility {
    /// The field, as in `legs[].venue`; empty for the whole.
    pub path: String,
    /// What does not fit.
    pub problem: String,
    /// What would.
    pub remedy: String,
    /// Whether every record of the schema is a dead letter for it; else only some are.
    pub every: bool,
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            problem,
            remedy,
            every,
        } = self;
        if !path.is_empty() {
            write!(f, "field `{path}`: ")?;
        }
        let whom = if *every {
            "no record decodes"
        } else {
            "some records may not decode"
        };
        write!(f, "{problem} ({whom}); {remedy}")
    }
}

/// What comes of comparing the type of a topic's payloads, or keys, with the schemas of its subject.
#[derive(Clone, Debug)]
pub struct SubjectCompatibility {
    /// The subject: `<topic>-value` or `<topic>-key`.
    pub subject: String,
    /// What was found.
    pub found: SubjectSchema,
}

/// What there was to compare with.
#[derive(Clone, Debug)]
pub enum SubjectSchema {
    /// The newest schema of the subject.
    Newest {
        /// Its id.
        id: u32,
        /// Where it does not fit; nowhere: every record decodes.
        incompatibilities: Vec<Incompatibility>,
        /// Whether records of this or of an older version of the subject may decode.
        readable: bool,
    },
    /// The registry has no such subject: its schemas may go by other names.
    NoSubject,
    /// The registry could not be asked.
    Unseen(Error),
}

impl SubjectCompatibility {
    /// An error if nothing that is registered under the subject could ever be decoded.
    pub fn verdict(&self) -> Result<(), Error> {
        let SubjectSchema::Newest {
            id,
            incompatibilities,
            readable: false,
        } = &self.found
        else {
            return Ok(());
        };
        let what = format!("no record of subject `{}` could be decoded", self.subject);
        let error = incompatibilities
            .iter()
            .fold(Error::definition(what), |error, incompatibility| {
                error.detail(incompatibility)
            });
        Err(error
            .detail(format!(
                "this is said of its newest schema, id {id}, and of the versions before it"
            ))
            .hint(
                "change the type, or give a reader's schema with `.avro_schema(…)` that has the defaults \
                and aliases it takes",
            ))
    }
}

/// A line for people.
impl fmt::Display for SubjectCompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject `{}`", self.subject)?;
        match &self.found {
            SubjectSchema::NoSubject => {
                f.write_str(": the registry has none of that name, so nothing was compared")
            }
            SubjectSchema::Unseen(error) => write!(f, ": not compared, {error}"),
            SubjectSchema::Newest {
                id,
                incompatibilities,
                ..
            } => {
                write!(f, ", schema {id}: ")?;
                match incompatibilities.as_slice() {
                    [] => f.write_str("the type fits"),
                    incompatibilities => {
                        incompatibilities
                            .iter()
                            .enumerate()
                            .try_for_each(|(index, incompatibility)| {
                                write!(f, "{}{incompatibility}", if index > 0 { "; " } else { "" })
                            })
                    }
                }
            }
        }
    }
}
