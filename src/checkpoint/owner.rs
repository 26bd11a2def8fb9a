//! Fencing: a file in the checkpoint location names the owner of the ledger, who alone may write there.
//!
//! Only the holder of the ledger writes or removes files. The place itself has to say who that is, since a
//! process may be suspended at any point and continue much later. The file names when the ledger was created,
//! the generation, and the nonce of the claim. An earlier generation of a ledger never displaces a later one.
//! Between two ledgers, or a ledger and its copy, the last start owns the place, once it is certain that the
//! start is not refused.

use crate::ledger::Recovered;

const OWNER: &str = "owner-";

/// The owner of a ledger, as identified by the ledger's claims.
///
/// ```text
///   owner-0006418f2c3a1b00-00000000000000000005-9f86d081884c7d65
///         ledger, by when it was made   generation   nonce of the claim
/// ```
///
/// The generation orders two owners of one ledger; it cannot order two ledgers, or a ledger and its copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// When the ledger was created, in microseconds since the Unix epoch.
    pub ledger: u64,
    /// Counts the owners of the ledger.
    pub generation: u64,
    /// Distinguishes two claims of one generation.
    pub nonce: u64,
}

impl Owner {
    /// The owner that has claimed the ledger.
    pub fn of(recovered: &Recovered) -> Self {
        Self {
            ledger: recovered.made_us,
            generation: recovered.generation,
            nonce: recovered.nonce,
        }
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        let Self {
            ledger,
            generation,
            nonce,
        } = self;
        format!("{OWNER}{ledger:016x}-{generation:020}-{nonce:016x}")
    }

    /// The owner that a file name belongs to, if any.
    pub fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(OWNER)?.splitn(3, '-');
        let mut part = || parts.next();
        Some(Self {
            ledger: u64::from_str_radix(part()?, 16).ok()?,
            generation: part()?.parse().ok()?,
            nonce: u64::from_str_radix(part()?, 16).ok()?,
        })
    }

    /// Whether it owned the other's ledger before it.
    pub fn precedes(&self, other: &Self) -> bool {
        self.ledger == other.ledger && self.generation < other.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let owner = Owner {
            ledger: 1_795_000_000_000_000,
            generation: 5,
            nonce: u64::MAX,
        };
        assert_eq!(Owner::of_name(&owner.file_name()), Some(owner));
        for name in [
            "owner-",
            "owner-1-2",
            "owner-x-1-2",
            "00000000000000000005-000.segment",
        ] {
            assert_eq!(Owner::of_name(name), None, "{name}");
        }
    }
}
