//! Sink progress as recorded in the ledger: see
//! [`RecordKind::Progress`](super::record::RecordKind::Progress).

use crate::time::Epoch;
use crate::wire::{ByteInput, put_str, put_u64};

/// The progress of a sink's shard. It is not part of the hash chain, because replays do not depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardProgress {
    /// The sink's name.
    pub sink: String,
    /// The index of the shard.
    pub shard: u32,
    /// The number of shards.
    pub of: u32,
    /// The store has all rows up to this epoch.
    pub complete: Epoch,
    /// The last epoch that delivered rows, if any.
    pub delivered: Option<Epoch>,
}

impl ShardProgress {
    /// Merges it into a group of progress to be written: for each shard the furthest progress wins, in
    /// whatever order it arrives.
    pub(crate) fn add_to(self, all: &mut Vec<Self>) {
        let same = |of: &&mut Self| (&of.sink, of.shard) == (&self.sink, self.shard);
        match all.iter_mut().find(same) {
            Some(known) if known.complete < self.complete => *known = self,
            Some(_) => {}
            None => all.push(self),
        }
    }
}

pub(super) fn encode_progress(progress: &[ShardProgress], out: &mut Vec<u8>) {
    put_u64(out, progress.len() as u64);
    for ShardProgress {
        sink,
        shard,
        of,
        complete,
        delivered,
    } in progress
    {
        put_str(out, sink);
        put_u64(out, u64::from(*shard));
        put_u64(out, u64::from(*of));
        put_u64(out, complete.0);
        out.push(u8::from(delivered.is_some()));
        if let Some(delivered) = delivered {
            put_u64(out, complete.0.wrapping_sub(delivered.0));
        }
    }
}

/// `None` if these bytes are not valid progress.
pub(super) fn decode_progress(input: &mut ByteInput<'_>) -> Option<Vec<ShardProgress>> {
    let one = |input: &mut ByteInput<'_>| {
        let (sink, shard, of) = (input.string()?, input.u64()?, input.u64()?);
        let complete = Epoch(input.u64()?);
        let delivered = match input.bool()? {
            true => Some(Epoch(complete.0.wrapping_sub(input.u64()?))),
            false => None,
        };
        Some(ShardProgress {
            sink,
            shard: u32::try_from(shard).ok()?,
            of: u32::try_from(of)
                .ok()
                .filter(|of| shard < u64::from(*of) && *of <= SHARDS_MAX)?,
            complete,
            delivered,
        })
    };
    (0..input.u64()?).map(|_| one(input)).collect()
}

/// More shards than any sink may have.
pub(crate) const SHARDS_MAX: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn progress()(sink in ".{0,9}", shard in 0u32..9, more in 1u32..9, complete in any::<u64>(),
                      delivered in prop::option::of(any::<u64>())) -> ShardProgress {
            let delivered = delivered.map(Epoch);
            ShardProgress { sink, shard, of: shard + more, complete: Epoch(complete), delivered }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(all in prop::collection::vec(progress(), 0..5), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode_progress(&all, &mut bytes);
            let mut input = ByteInput(&bytes);
            prop_assert_eq!(decode_progress(&mut input), Some(all));
            prop_assert!(input.0.is_empty());
            prop_assert_eq!(decode_progress(&mut ByteInput(&bytes[..cut.index(bytes.len())])), None);
        }
    }

    #[test]
    fn what_reaches_furthest_counts_in_any_order() {
        let reached = |shard, complete| ShardProgress {
            sink: "audit".into(),
            shard,
            of: 2,
            complete: Epoch(complete),
            delivered: Some(Epoch(3)),
        };
        let mut all = Vec::new();
        // The worker reports completeness up to 9 before the task reports what it wrote last.
        for (shard, complete) in [(0, 9), (1, 2), (0, 3), (1, 4)] {
            reached(shard, complete).add_to(&mut all);
        }
        assert_eq!(all, [reached(0, 9), reached(1, 4)]);
    }
}
