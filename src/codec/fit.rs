//! How well a type fits the schemas that a registry has for its topic: what is said at the start, and by a
//! check.
//!
//! ```text
//!   newest schema of `<topic>-value` ─▶ rules: by Avro, into the reader's schema, if there is one ─┐
//!                                       structure: by serde, into the type as it was traced ───────┴─▶ Misfit …
//! ```
//!
//! The comparing is in [`avro::fit`](super::avro::fit). Nothing rests on it: records are judged one by one.

pub(crate) mod subject;
pub(in crate::codec) mod words;

use std::fmt;

use crate::error::Error;

/// A place where schema and type do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The field, as in `legs[].venue`; empty for the whole.
    pub path: String,
    /// What does not fit.
    pub problem: String,
    /// What would.
    pub remedy: String,
    /// Whether every record of the schema is a dead letter for it; else only some are.
    pub every: bool,
}

impl fmt::Display for Misfit {
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
pub struct SubjectFit {
    /// The subject: `<topic>-value` or `<topic>-key`.
    pub subject: String,
    /// What was found.
    pub found: Found,
}

/// What there was to compare with.
#[derive(Clone, Debug)]
pub enum Found {
    /// The newest schema of the subject.
    Newest {
        /// Its id.
        id: u32,
        /// Where it does not fit; nowhere: every record decodes.
        misfits: Vec<Misfit>,
        /// Whether records of this or of an older version of the subject may decode.
        readable: bool,
    },
    /// The registry has no such subject: its schemas may go by other names.
    NoSubject,
    /// The registry could not be asked.
    Unseen(Error),
}

impl SubjectFit {
    /// An error if nothing that is registered under the subject could ever be decoded.
    pub fn verdict(&self) -> Result<(), Error> {
        let Found::Newest {
            id,
            misfits,
            readable: false,
        } = &self.found
        else {
            return Ok(());
        };
        let what = format!("no record of subject `{}` could be decoded", self.subject);
        let error = misfits
            .iter()
            .fold(Error::definition(what), |error, misfit| error.detail(misfit));
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
impl fmt::Display for SubjectFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject `{}`", self.subject)?;
        match &self.found {
            Found::NoSubject => f.write_str(": the registry has none of that name, so nothing was compared"),
            Found::Unseen(error) => write!(f, ": not compared, {error}"),
            Found::Newest { id, misfits, .. } => {
                write!(f, ", schema {id}: ")?;
                match misfits.as_slice() {
                    [] => f.write_str("the type fits"),
                    misfits => misfits.iter().enumerate().try_for_each(|(index, misfit)| {
                        write!(f, "{}{misfit}", if index > 0 { "; " } else { "" })
                    }),
                }
            }
        }
    }
}
