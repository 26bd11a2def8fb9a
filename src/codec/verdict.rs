//! Verdicts on schema ids: what the ledger binds of a format with a registry.

use crate::position::Offset;

/// A verdict on a schema id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The id.
    pub id: u32,
    /// The fingerprint of its schema, or `None`: the registry does not know it.
    pub fingerprint: Option<u64>,
    /// Set if the id was unknown before: the partition and the offset from which on it is known there.
    pub since: Option<(u32, Offset)>,
}

/// Where a record stands, for verdicts that depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordLocation {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// Whether the ledger has bound it already, and with it what is made of it.
    pub bound: bool,
}
