use proptest::prelude::*;

use super::*;
use crate::time::Epoch;

const A: SourceId = SourceId(1);
const B: SourceId = SourceId(2);
const C: SourceId = SourceId(3);

fn binding(watermarks: &[(SourceId, i64)], idle: &[(SourceId, bool)]) -> EpochBinding {
    EpochBinding {
        epoch: Epoch(1),
        now: EventTime(0),
        ranges: Vec::new(),
        watermarks: watermarks.iter().map(|(s, w)| (*s, EventTime(*w))).collect(),
        idle: idle.to_vec(),
        topics: Vec::new(),
        schemas: Vec::new(),
        results: None,
    }
}

#[test]
fn a_source_that_falls_silent_leaves_and_what_is_over_stays_over_when_it_is_back() {
    let mut marks = WatermarkFold::default();
    marks.track(&[A, B]);
    let mut step = |watermarks: &[_], idle: &[_]| marks.apply(&binding(watermarks, idle)).of(&[A, B]).0;
    assert_eq!(step(&[(A, 10)], &[]), i64::MIN, "nothing is known of b yet");
    assert_eq!(step(&[(B, 7)], &[]), 7);
    assert_eq!(step(&[(A, 50)], &[]), 7, "b holds the minimum");
    assert_eq!(step(&[], &[(B, true)]), 50);
    assert_eq!(step(&[(A, 60)], &[]), 60);
    assert_eq!(step(&[], &[(A, true)]), 60, "all idle: E holds");
    assert_eq!(step(&[(B, 20)], &[(B, false)]), 60, "never back");
    assert_eq!(step(&[(B, 65)], &[]), 65, "a is still away");
    assert_eq!(step(&[(B, 70)], &[(A, false)]), 65);
}

#[test]
fn a_source_that_was_silent_from_the_start_leaves_too() {
    let mut marks = WatermarkFold::default();
    marks.track(&[A, B]);
    assert_eq!(
        marks.apply(&binding(&[], &[(B, true)])).of(&[A, B]),
        EventTime::MIN
    );
    assert_eq!(marks.apply(&binding(&[(A, 5)], &[])).of(&[A, B]), EventTime(5));
    assert_eq!(
        marks.apply(&binding(&[(B, 1)], &[(B, false)])).of(&[B, A, B]),
        EventTime(5)
    );
}

#[test]
fn each_set_is_followed_for_itself() {
    let mut marks = WatermarkFold::default();
    for set in [&[B, A][..], &[A, B, C], &[A], &[]] {
        marks.track(set);
    }
    marks.apply(&binding(&[(A, 5), (B, 9)], &[]));
    let now = marks.apply(&binding(&[], &[(C, true)]));
    let of = |set: &[SourceId]| now.of(set).0;
    assert_eq!(
        (of(&[A, B]), of(&[A, B, C]), of(&[B]), of(&[C])),
        (5, 5, 9, i64::MIN)
    );
    assert_eq!(of(&[]), i64::MIN);
    assert_eq!(
        of(&[B, C]),
        i64::MIN,
        "not tracked: the least of all, idle or not"
    );
}

/// One binding: by source, how far its watermark rises and whether it is idle. That of an idle one stays.
fn steps() -> impl Strategy<Value = Vec<[(i64, bool); 3]>> {
    let one = || (prop_oneof![Just(0), 0i64..20], prop::bool::weighted(0.4));
    prop::collection::vec([one(), one(), one()], 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e_is_the_highest_minimum_that_ever_was(steps in steps(), cut in 0usize..30) {
        let sets: [&[SourceId]; 4] = [&[A, B], &[A, C], &[B, C], &[A, B, C]];
        let (mut marks, mut marks_elsewhere) = (WatermarkFold::default(), WatermarkFold::default());
        for set in sets {
            marks.track(set);
        }
        // Begins where bindings up to the cut add up to a base.
        let (mut base, mut seeded) = (binding(&[], &[]), None::<WatermarkFold>);
        sets.iter().rev().for_each(|set| marks_elsewhere.track(set));
        let mut history: Vec<BTreeMap<SourceId, (i64, bool)>> = vec![BTreeMap::new()];
        for (n, step) in steps.iter().enumerate() {
            let (before, mut now) = (history.last().unwrap().clone(), BTreeMap::new());
            let mut bound = binding(&[], &[]);
            for (source, (rise, idle)) in std::iter::zip([A, B, C], step) {
                let (watermark, was_idle) = before.get(&source).copied().unwrap_or((i64::MIN, false));
                let risen = if *idle || *rise == 0 { watermark } else { watermark.max(0) + rise };
                now.insert(source, (risen, *idle));
                if risen > watermark {
                    bound.watermarks.push((source, EventTime(risen)));
                }
                if *idle != was_idle {
                    bound.idle.push((source, *idle));
                }
            }
            let (all, silent) = (now.clone(), now.iter().filter(|(_, (_, idle))| *idle));
            base.watermarks = all.iter().filter(|(_, (w, _))| *w > i64::MIN).map(|(s, (w, _))| (*s, EventTime(*w))).collect();
            base.idle = silent.map(|(source, _)| (*source, true)).collect();
            history.push(now);
            let (here, there) = (marks.apply(&bound), marks_elsewhere.apply(&bound));
            if n == cut {
                let mut marks = WatermarkFold::default();
                sets.iter().for_each(|set| marks.track(set));
                marks.seed(&base, &here.sets());
                seeded = Some(marks);
            } else if let Some(seeded) = &mut seeded {
                seeded.apply(&bound);
            }
            for set in sets {
                let minimum = |facts: &BTreeMap<SourceId, (i64, bool)>| {
                    let of = |source: &SourceId| facts.get(source).copied().unwrap_or((i64::MIN, false));
                    set.iter().map(of).filter(|(_, idle)| !idle).map(|(watermark, _)| watermark).min()
                };
                let highest = history.iter().filter_map(minimum).max().unwrap_or(i64::MIN);
                prop_assert_eq!(here.of(set), EventTime(highest));
                prop_assert_eq!(there.of(set), EventTime(highest));
                if let Some(seeded) = &seeded {
                    prop_assert_eq!(seeded.now.of(set), EventTime(highest));
                }
                // What is said where nothing is tracked is never more.
                let untracked: Watermarks = here.sources.iter().copied().collect();
                prop_assert!(untracked.of(set) <= here.of(set));
            }
        }
    }
}
