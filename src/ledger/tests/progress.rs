//! How far sinks have come: written with bindings or alone, by the owner only, and kept when the ledger is
//! trimmed.

use proptest::prelude::*;

use super::*;

fn reached(shard: u32, complete: Epoch) -> ShardProgress {
    ShardProgress {
        sink: "alerts".into(),
        shard,
        of: 2,
        complete,
        delivered: Some(complete),
    }
}

proptest! {
    /// Whatever of a loss of power and of trimming comes between: what was acknowledged is known, and never
    /// less than before.
    #[test]
    fn what_was_acknowledged_is_known_after_a_loss_of_power(
        turns in prop::collection::vec((0u8..4, 0u32..2, any::<u64>()), 1..40),
    ) {
        let disk = SimDisk::new();
        let (all, mut at) = (simple(turns.len()), 0);
        let mut known = [None; 2];
        let (mut ledger, _) = open(&disk).unwrap();
        for (how, shard, seed) in turns {
            let bindings = match how {
                1 if at > 0 => 0,
                _ => 1,
            };
            let group = &all[at..at + bindings];
            let last = all[..at].last().map(|binding| binding.epoch);
            let progress: Vec<_> = last.map(|last| reached(shard, last)).into_iter().filter(|_| how > 0).collect();
            ledger.append_group(group, &progress).unwrap();
            at += bindings;
            for progress in &progress {
                known[progress.shard as usize] = Some(progress.complete);
            }
            if how == 3 {
                if let Some(trimmed) = Trim::of(&disk, dir(), all[at / 2].epoch).prepare().unwrap() {
                    LedgerStore::adopt(&mut ledger, trimmed).unwrap();
                }
                drop(ledger);
                disk.crash(seed);
                let (again, recovered) = open(&disk).unwrap();
                let found = [0, 1].map(|shard| {
                    let shards = recovered.state.sink("alerts")?;
                    shards[shard].as_ref().map(|progress| progress.complete)
                });
                prop_assert_eq!(found, known);
                prop_assert_eq!(recovered.last, all[..at].last().map(|binding| binding.epoch));
                ledger = again;
            }
        }
        let report = verify_on(&disk, dir()).unwrap();
        prop_assert_eq!(report.bindings, at as u64);
        prop_assert_eq!(report.chain, ledger.chain_hash());
    }
}

#[test]
fn progress_of_an_owner_that_was_replaced_does_not_count() {
    let disk = SimDisk::new();
    let all = simple(3);
    let (mut old, _) = open(&disk).unwrap();
    old.append_group(&all[..2], &[reached(0, all[0].epoch)]).unwrap();
    let (mut new, _) = open(&disk).unwrap();
    assert!(old.append_group(&[], &[reached(0, all[1].epoch)]).is_err());
    assert!(
        old.append_group(&[], &[reached(1, all[1].epoch)]).is_err(),
        "it stays stopped"
    );
    new.append(&all[2..]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.state.progress(), [reached(0, all[0].epoch)]);
}

#[test]
fn progress_is_outside_of_the_chain_and_shown() {
    let all = simple(2);
    let chain = |progress: &[ShardProgress]| {
        let disk = SimDisk::new();
        let (mut ledger, _) = open(&disk).unwrap();
        let begun = ledger.chain_hash();
        ledger.append_group(&[], progress).unwrap();
        assert_eq!(ledger.chain_hash(), begun);
        ledger.append_group(&all, progress).unwrap();
        (disk, ledger.chain_hash())
    };
    let (disk, with) = chain(&[reached(1, all[0].epoch)]);
    assert_eq!(verify_on(&disk, dir()).unwrap().chain, with);
    let report = verify_on(&disk, dir()).unwrap().to_string();
    assert!(
        report.contains("sink        alerts/1 of 2  complete up to"),
        "{report}"
    );
    let lines: Vec<_> = show_on(&disk, dir(), ..).unwrap().map(Result::unwrap).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("sink   alerts/1 of 2")),
        "{lines:?}"
    );
    // Other progress of the same sink is that of another one.
    let mut state = verify_on(&disk, dir()).unwrap().state;
    let other = ShardProgress {
        of: 3,
        ..reached(2, all[1].epoch)
    };
    state.note_progress(&other);
    assert_eq!(state.progress(), [other]);
}

/// As a build of before would have written it.
#[test]
fn a_base_without_progress_is_read() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk).unwrap();
    for binding in simple(4) {
        ledger.append(&[binding]).unwrap();
    }
    let trimmed = Trim::of(&disk, dir(), simple(3)[2].epoch)
        .prepare()
        .unwrap()
        .unwrap();
    assert!(LedgerStore::adopt(&mut ledger, trimmed).unwrap());
    drop(ledger);
    assert!(open(&disk).unwrap().1.state.progress().is_empty());
}
