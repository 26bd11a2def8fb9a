//! A trimmed ledger is the same one with less in it.

use proptest::prelude::*;

use super::*;

fn trimmed(disk: &SimDisk, upto: Epoch) -> Option<Trimmed> {
    let trim = Trim::of(disk, dir(), upto);
    trim.prepare().unwrap()
}

proptest! {
    /// Bindings of several runs, trimmed while the last of them goes on; then the power goes.
    #[test]
    fn what_is_left_goes_on_where_the_whole_one_would(
        groups in prop::collection::vec(prop::collection::vec(prop::collection::vec(0u16..4, 0..3), 1..4), 2..8),
        before in 0usize..3, cut in any::<prop::sample::Index>(), late in 0usize..3, seed in any::<u64>(), twice in any::<bool>(),
    ) {
        let steps: Vec<Vec<u16>> = groups.concat();
        let all = linked(&steps);
        let mut sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        let (disk, whole) = (SimDisk::new(), SimDisk::new());
        let mut at = 0;
        let mut take = |sizes: &mut Vec<usize>| {
            let n = sizes.remove(0);
            at += n;
            all[at - n..at].to_vec()
        };
        // Earlier owners.
        for _ in 0..before.min(sizes.len() - 1) {
            let group = take(&mut sizes);
            for disk in [&disk, &whole] {
                open(disk).unwrap().0.append(&group).unwrap();
            }
        }
        let (mut ledger, _) = open(&disk).unwrap();
        let (mut other, _) = open(&whole).unwrap();
        let mut went = None;
        let mut pending = None;
        let upto = all[cut.index(all.len())].epoch;
        let mut left = late;
        while !sizes.is_empty() {
            let group = take(&mut sizes);
            ledger.append(&group).unwrap();
            other.append(&group).unwrap();
            match pending.take() {
                None if went.is_none() || twice => pending = trimmed(&disk, upto),
                None => {}
                Some(prepared) if left > 0 => {
                    // More is written before it is adopted.
                    left -= 1;
                    pending = Some(prepared);
                }
                Some(prepared) => {
                    let upto = prepared.upto;
                    prop_assert!(LedgerStore::adopt(&mut ledger, prepared).unwrap());
                    went = went.max(Some(upto));
                }
            }
        }
        // Two clocks and nonces: the chains differ by the claims alone, so each is held against itself.
        let chain = ledger.chain_hash();
        drop(ledger);
        disk.crash(seed);
        let (mut ledger, mut recovered) = open(&disk).unwrap();
        let (_, expected) = open(&whole).unwrap();
        prop_assert_eq!(&recovered.state, &expected.state);
        prop_assert_eq!((recovered.last, recovered.trimmed), (expected.last, went));
        prop_assert_eq!(recovered.generation, expected.generation);
        let rest: Vec<EpochBinding> = recovered.bindings.by_ref().map(Result::unwrap).collect();
        let behind: Vec<EpochBinding> =
            all.iter().filter(|binding| went.is_none_or(|went| binding.epoch > went)).cloned().collect();
        prop_assert_eq!(&rest, &behind);
        if !rest.is_empty() {
            prop_assert_eq!(recovered.bindings.chain_hash(), Some(chain));
        }
        let next = bare([all.last().unwrap().epoch.0 + 1]);
        ledger.append(&next).unwrap();
        let report = verify_on(&disk, dir()).unwrap();
        prop_assert_eq!((report.trimmed, report.bindings), (went, all.len() as u64 + 1));
        prop_assert!(disk.list(dir()).unwrap().iter().all(|name| !is_draft(name)), "nothing is left over");
    }
}

#[test]
fn a_claim_in_the_midst_of_it_ends_the_owner_or_the_claimant() {
    // Before the draft is adopted: the owner finds it, and stops at its next write.
    let disk = SimDisk::new();
    let (mut owner, _) = open(&disk).unwrap();
    owner.append(&simple(3)).unwrap();
    let prepared = trimmed(&disk, simple(2)[1].epoch);
    assert!(prepared.is_none(), "they were written in one group");
    owner.append(&simple(5)[3..]).unwrap();
    let prepared = trimmed(&disk, simple(4)[3].epoch).unwrap();
    let (mut rival, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last, Some(simple(5)[4].epoch));
    assert!(!LedgerStore::adopt(&mut owner, prepared).unwrap());
    assert!(owner.append(&simple(6)[5..]).is_err());
    rival.append(&simple(6)[5..]).unwrap();

    // After it: a claimant that had the old file open finds that it has no name.
    let host = tempfile::tempdir().unwrap();
    let (mut owner, _) = Ledger::open(host.path(), claim()).unwrap();
    for binding in simple(4) {
        owner.append(&[binding]).unwrap();
    }
    let trim = Trim::of(&HostDisk, host.path(), simple(2)[1].epoch);
    let old = HostDisk.open(&host.path().join(FILE_NAME), true).unwrap();
    let prepared = trim.prepare().unwrap().unwrap();
    assert!(LedgerStore::adopt(&mut owner, prepared).unwrap());
    assert_eq!(old.len().unwrap_err().kind(), io::ErrorKind::NotFound);
    owner.append(&simple(5)[4..]).unwrap();
    drop(owner);
    let (_, recovered) = Ledger::open(host.path(), claim()).unwrap();
    assert_eq!(recovered.trimmed, Some(simple(2)[1].epoch));
    assert_eq!(contents(recovered).unwrap(), simple(5)[2..]);
}

#[test]
fn a_flipped_bit_in_what_it_begins_with_is_damage() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk).unwrap();
    for binding in simple(4) {
        ledger.append(&[binding]).unwrap();
    }
    let prepared = trimmed(&disk, simple(3)[2].epoch).unwrap();
    assert!(LedgerStore::adopt(&mut ledger, prepared).unwrap());
    drop(ledger);
    let bytes = disk.bytes(&file()).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let flipped = SimDisk::new();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        flipped.put(&file(), bytes);
        assert!(open(&flipped).is_err(), "byte {at}");
    }
}
