//! Which letters of a partition were replayed: an offset and, where others were left out on the way, the
//! ranges behind it. A consumer group commits both, the ranges as the offset's metadata: `12-15,18`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Brokers keep 4096 bytes beside an offset (`offset.metadata.max.bytes`).
const TEXT_MAX: usize = 4_000;

/// What was replayed of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// All letters before this offset were.
    pub next: i64,
    /// So were those in these ranges, first and last, rising and apart.
    ranges: Vec<(i64, i64)>,
    /// A letter that was not replayed has been passed in this reading.
    is_gap_open: bool,
    /// The letter that was passed last, and was replayed.
    last: Option<i64>,
}

impl Replayed {
    /// As it was committed.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): the metadata is of somebody else.
    pub(super) fn committed(next: i64, metadata: &str) -> Result<Self> {
        let foreign = || {
            Error::integrity(format!(
                "`{metadata}` beside a committed offset is no list of ranges"
            ))
        };
        let number = |text: &str| i64::from_str(text).map_err(|_| foreign());
        let mut ranges = Vec::new();
        for range in metadata.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            ranges.push((number(first)?, number(last)?));
        }
        let follow = |(a, b): (&(i64, i64), &(i64, i64))| a.1 < b.0;
        let is_rising = ranges.iter().zip(ranges.iter().skip(1)).all(follow);
        if !is_rising || ranges.iter().any(|(first, last)| first > last || *first < next) {
            return Err(foreign());
        }
        Ok(Self {
            next,
            ranges,
            ..Self::default()
        })
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        offset < self.next
            || self
                .ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&offset))
    }

    /// The next letter in the partition, in order: replayed now or before, or left out. What lies between two
    /// letters is no letter.
    pub(super) fn pass(&mut self, offset: i64, is_replayed: bool) {
        if offset < self.next {
            return;
        }
        let last = std::mem::replace(&mut self.last, is_replayed.then_some(offset));
        match (is_replayed, self.is_gap_open) {
            (false, _) => self.is_gap_open = true,
            (true, false) => {
                self.next = offset + 1;
                self.ranges.retain(|(_, last)| *last >= self.next);
                if let Some(first) = self.ranges.first_mut() {
                    first.0 = first.0.max(self.next);
                }
            }
            (true, true) => self.add(last.unwrap_or(offset), offset),
        }
    }

    /// Adds a range, and joins it with those that it meets.
    fn add(&mut self, mut first: i64, mut last: i64) {
        self.ranges.retain(|(from, to)| {
            let meets = *from <= last && *to >= first;
            if meets {
                (first, last) = (first.min(*from), last.max(*to));
            }
            !meets
        });
        let at = self.ranges.partition_point(|(from, _)| *from < first);
        self.ranges.insert(at, (first, last));
    }

    /// What is committed beside the offset.
    ///
    /// # Errors
    /// [`Request`](crate::Kind::Request): the letters that were left out are too scattered for a broker to
    /// keep that.
    pub(super) fn metadata(&self) -> Result<String> {
        let text = self.to_string();
        if text.len() > TEXT_MAX {
            let ranges = self.ranges.len();
            return Err(
                Error::request("too many letters would be left out between those that are replayed")
                    .detail(format!(
                        "a group keeps 4 KiB beside an offset, and there would be {ranges} ranges"
                    ))
                    .hint("replay what comes first by another selection, such as another --cause"),
            );
        }
        Ok(text)
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over several readings with selections of their own, cut at any place: a letter counts as replayed
        /// if and only if one of them has replayed it.
        #[test]
        fn letters_are_replayed_once(
            letters in prop::collection::btree_set(0i64..60, 1..30),
            readings in prop::collection::vec(
                (prop::collection::btree_set(0i64..60, 0..40), 0usize..30),
                1..6,
            ),
        ) {
            let (mut committed, mut naive) = ((0, String::new()), BTreeSet::new());
            for (selected, cut) in readings {
                let mut replayed = Replayed::committed(committed.0, &committed.1).unwrap();
                for letter in letters.iter().take(cut) {
                    let was = replayed.contains(*letter);
                    prop_assert_eq!(was, naive.contains(letter), "{} in {:?}", letter, replayed);
                    let is = selected.contains(letter);
                    if is {
                        naive.insert(*letter);
                    }
                    replayed.pass(*letter, was || is);
                }
                committed = (replayed.next, replayed.metadata().unwrap());
                let after = Replayed::committed(committed.0, &committed.1).unwrap();
                for letter in &letters {
                    let (is, expected) = (after.contains(*letter), naive.contains(letter));
                    prop_assert_eq!(is, expected, "{} in {:?}", letter, after);
                }
            }
        }
    }

    #[test]
    fn markers_between_letters_open_no_range() {
        let mut replayed = Replayed::default();
        for (offset, is_replayed) in [(0, false), (2, true), (5, true), (6, false), (9, true)] {
            replayed.pass(offset, is_replayed);
        }
        assert_eq!((replayed.next, replayed.to_string()), (0, "2-5,9".to_owned()));
        let mut again = Replayed::committed(0, "2-5,9").unwrap();
        for offset in [0, 2, 5, 6, 9] {
            again.pass(offset, true);
        }
        assert_eq!((again.next, again.to_string()), (10, String::new()));
    }

    #[test]
    fn what_is_no_list_is_refused_and_so_is_one_that_is_too_long() {
        for foreign in ["x", "5-3", "1,1", "4-5,5", "1-"] {
            assert!(Replayed::committed(0, foreign).is_err(), "{foreign}");
        }
        assert!(Replayed::committed(7, "5").is_err());
        let mut replayed = Replayed::default();
        (0..4_000).for_each(|offset| replayed.pass(offset, offset % 2 == 1));
        let error = replayed.metadata().unwrap_err();
        assert!(error.to_string().contains("2000 ranges"), "{error}");
    }
}
