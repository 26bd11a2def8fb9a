use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::position::{Offset, SourceId};
use crate::source::{Driver, Intake, ReadProgress, Reader};

/// What a partition comes to: events with their offsets, dead letters with cause and detail, count and hash.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<(i64, Offset)>,
    dead: Vec<(&'static str, Option<String>, Offset)>,
    counted: (u64, u64),
}

struct Reading {
    driver: Arc<dyn Driver>,
    reader: Box<dyn Reader<i64>>,
    intake: Intake<i64>,
    seen: Seen,
}

impl Reading {
    fn of(pattern: &Path, partition: u32, from: Offset, until_end: bool) -> Self {
        Self::woken(pattern, partition, from, until_end, Waker::new(|| {}))
    }

    fn woken(pattern: &Path, partition: u32, from: Offset, until_end: bool, waker: Waker) -> Self {
        let env = Environment {
            until_end,
            ..Environment::default()
        };
        let lines = Files::lines(pattern).json::<i64>();
        let lines = lines.event_time(|n| EventTime(*n)).poll(Duration::from_millis(1));
        let opened = Source::open(lines, &env).unwrap();
        let mut reader = (opened.reader)(waker).unwrap();
        reader.assign(partition, from).unwrap();
        Self {
            driver: opened.driver,
            reader,
            intake: Intake::new(SourceId(1), "numbers".into(), partition, Rc::new(opened.rules)),
            seen: Seen::default(),
        }
    }

    fn read(&mut self, until: Offset, records_max: usize) -> Result<ReadProgress> {
        let partition = self.intake.id().partition;
        let progress = self
            .reader
            .read(partition, until, records_max, &mut self.intake)?;
        let (events, dead) = self.intake.take(Vec::new());
        let seen = &mut self.seen;
        seen.events
            .extend(events.into_iter().map(|e| (e.value, e.at.offset)));
        let told = dead.into_iter().map(|d| (d.cause.code(), d.detail, d.at.offset));
        seen.dead.extend(told);
        seen.counted = (self.intake.records, self.intake.hash);
        Ok(progress)
    }

    fn all(mut self, records_max: usize) -> Seen {
        while self.read(Offset::MAX, records_max).unwrap().more {}
        self.seen
    }
}

/// What lines come to by the rules alone. No line end at the end of `text` counts as one.
fn expected(name: &str, text: &[u8]) -> (Vec<(i64, Offset)>, Vec<(&'static str, Option<String>, Offset)>) {
    let (mut events, mut dead, mut at) = (Vec::new(), Vec::new(), 0);
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let text = String::from_utf8_lossy(line);
        let trimmed = text.strip_prefix('\u{feff}').unwrap_or(&text).trim().to_owned();
        if let Ok(value) = trimmed.parse::<i64>() {
            events.push((value, at));
        } else if !trimmed.is_empty() {
            let cause = if trimmed.starts_with('"') {
                "json_type"
            } else {
                "json_syntax"
            };
            dead.push((cause, Some(format!("{name}, line {}", number + 1)), at));
        }
        at += line.len() as Offset + 1;
    }
    (events, dead)
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<u16>().prop_map(|n| n.to_string().into_bytes()),
        1 => any::<u16>().prop_map(|n| format!("{n}\r").into_bytes()),
        1 => Just(b"oops".to_vec()),
        1 => Just(b"\"text\"".to_vec()),
        1 => Just(b" ".to_vec()),
        1 => Just("\u{feff}7\r".into()),
        1 => Just("\u{feff}\"text\"".into()),
        1 => Just("\u{feff}".into()),
        1 => Just(Vec::new()),
    ]
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_line_and_moves_no_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    std::fs::write(&path, "\u{feff}1\r\n\r\n2\n\u{feff}3\r\n4").unwrap();
    let seen = Reading::of(&path, 0, 0, true).all(2);
    assert_eq!(seen.events, [(1, 0), (2, 8), (3, 10), (4, 16)]);
    assert_eq!((seen.dead, seen.counted.0), (vec![], 4));
    // A mark alone is an empty line.
    std::fs::write(&path, "\u{feff}\r\n5\n").unwrap();
    let seen = Reading::of(&path, 0, 0, true).all(2);
    assert_eq!((seen.events, seen.counted.0), (vec![(5, 5)], 1));
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

proptest! {
    #[test]
    fn a_replay_at_any_cuts_reads_what_was_read(
        lines in prop::collection::vec(line(), 0..40), ended: bool,
        pieces in prop::collection::vec((0usize..60, 1usize..5), 0..30), replay_max in 1usize..9,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.jsonl");
        let mut text = lines.join(&b'\n');
        if ended { text.push(b'\n') }
        // Written by pieces, and followed: what was read after each is a range that may have been bound.
        append(&path, b"");
        let mut live = Reading::of(&path, 0, 0, false);
        let (mut rest, mut bound) = (text.as_slice(), Vec::new());
        for (bytes, records_max) in pieces {
            let (now, later) = rest.split_at(bytes.min(rest.len()));
            append(&path, now);
            rest = later;
            let hi = live.read(Offset::MAX, records_max).unwrap().position;
            bound.push((hi, live.seen.counted));
        }
        append(&path, rest);
        // Then a run until the end, from where that one was.
        let from = bound.last().map_or(0, |(hi, _)| *hi);
        let mut last = Reading::of(&path, 0, from, true);
        let end = last.driver.topology().unwrap().partitions[0].end;
        prop_assert_eq!(end, text.len() as Offset);
        while last.read(Offset::MAX, 3).unwrap().more {}
        let (a, b) = (live.seen.counted, last.seen.counted);
        bound.push((end, (a.0.wrapping_add(b.0), a.1.wrapping_add(b.1))));
        // The line that the end cut short goes on afterwards, in another file that nobody has to have seen.
        append(&path, b"7\n8\n");

        let mut replay = Reading::of(&path, 0, 0, false);
        for (hi, counted) in &bound {
            while replay.read(*hi, replay_max).unwrap().position < *hi {}
            prop_assert_eq!(replay.seen.counted, *counted);
        }
        let (events, dead) = expected("n.jsonl", &text);
        prop_assert_eq!(&replay.seen.events, &events);
        prop_assert_eq!(&replay.seen.dead, &dead);
    }
}

#[test]
fn an_unfinished_line_waits_until_its_end_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    append(&path, b"1\n23");
    let (woken, wakes) = channel();
    let waker = Waker::new(move || woken.send(()).unwrap_or(()));
    let mut live = Reading::woken(&path, 0, 0, false, waker);
    assert_eq!(live.driver.topology().unwrap().partitions[0].end, 2);
    let progress = live.read(Offset::MAX, 100).unwrap();
    let waits = ReadProgress {
        position: 2,
        at_end: true,
        more: false,
    };
    assert_eq!(progress, waits);
    assert_eq!(Reading::of(&path, 0, 0, true).all(100).events, [(1, 0), (23, 2)]);
    append(&path, b"4\n5\n");
    while live.read(Offset::MAX, 100).unwrap().position < 8 {
        wakes.recv_timeout(Duration::from_secs(20)).expect("a wake-up");
    }
    assert_eq!(live.seen.events, [(1, 0), (234, 2), (5, 6)]);
}

#[test]
fn what_goes_on_after_a_cut_is_in_the_line_that_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    append(&path, b"1\noops");
    let cut = 6;
    assert_eq!(Reading::of(&path, 0, 0, true).all(100).dead.len(), 1);
    append(&path, b"oops\noops\n");
    let lines = |seen: &Seen| -> Vec<String> {
        let details = seen.dead.iter().filter_map(|(_, detail, _)| detail.clone());
        details
            .map(|detail| detail.replace("n.jsonl, line ", ""))
            .collect()
    };
    let mut replay = Reading::of(&path, 0, 0, false);
    while replay.read(cut, 100).unwrap().position < cut {}
    assert_eq!(lines(&replay.all(100)), ["2", "2", "3"]);
    assert_eq!(lines(&Reading::of(&path, 0, cut, false).all(100)), ["2", "3"]);
}

#[test]
fn a_time_that_cannot_be_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    append(&path, format!("1\n{}\n2\n{}\n", i64::MIN, i64::MAX).as_bytes());
    let seen = Reading::of(&path, 0, 0, false).all(100);
    assert_eq!(seen.events.len(), 2);
    let told = |line: u32| Some(format!("n.jsonl, line {line}"));
    let dead: Vec<_> = seen
        .dead
        .into_iter()
        .map(|(cause, detail, _)| (cause, detail))
        .collect();
    assert_eq!(
        dead,
        [("event_time_invalid", told(2)), ("event_time_invalid", told(4))]
    );
}

#[test]
fn a_line_that_is_longer_than_a_read_is_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    append(&path, b"1\n");
    append(&path, &vec![b' '; 3_000_000]);
    append(&path, b"2\n3\n");
    let seen = Reading::of(&path, 0, 0, false).all(100);
    assert_eq!(seen.events, [(1, 0), (2, 2), (3, 3_000_004)]);
}

#[test]
fn files_are_partitions_by_name_and_new_ones_come_last() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.jsonl", "a.jsonl", ".hidden.jsonl", "c.json"] {
        append(&dir.path().join(name), format!("{}\n", name.len()).as_bytes());
    }
    let pattern = dir.path().join("*.jsonl");
    let reading = Reading::of(&pattern, 1, 0, false);
    let numbers = |driver: &dyn Driver| driver.topology().map(|seen| seen.partitions.len());
    assert_eq!(numbers(&*reading.driver).unwrap(), 2);
    append(&dir.path().join("bb.jsonl"), b"");
    assert_eq!(numbers(&*reading.driver).unwrap(), 3);
    append(&dir.path().join("aa.jsonl"), b"");
    let error = numbers(&*reading.driver).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(
        error.to_string().contains("aa.jsonl is now at the position of"),
        "{error}"
    );
    std::fs::remove_file(dir.path().join("aa.jsonl")).unwrap();
    std::fs::remove_file(dir.path().join("bb.jsonl")).unwrap();
    let error = reading.driver.topology().unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.what().ends_with("bb.jsonl is gone"), "{error}");
    append(&dir.path().join("bb.jsonl"), b"");
    // A folder is all that is in it.
    let folder = Reading::of(dir.path(), 0, 0, false);
    assert_eq!(numbers(&*folder.driver).unwrap(), 4);
}

#[test]
fn what_is_not_there_or_was_cut_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.jsonl");
    let lines = || {
        Files::lines(dir.path().join("*.jsonl"))
            .json::<i64>()
            .event_time(|n| EventTime(*n))
    };
    let opened = Source::open(lines(), &Environment::default()).unwrap();
    let missing = opened.driver.topology().unwrap_err();
    assert_eq!(missing.kind(), Kind::External);
    assert!(missing.what().starts_with("no files match"), "{missing}");

    append(&path, b"1\n2\n");
    let mut bound = Reading::of(&path, 0, 0, false);
    let error = bound.read(6, 100).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    let text = error.to_string();
    let (rename, afresh) = (
        text.find("rename a file").unwrap(),
        text.find("start over").unwrap(),
    );
    assert!(rename < afresh, "{text}");
    let mut live = Reading::of(&path, 0, 0, false);
    live.read(Offset::MAX, 100).unwrap();
    std::fs::write(&path, b"1\n").unwrap();
    assert_eq!(live.read(Offset::MAX, 100).unwrap_err().kind(), Kind::Integrity);
    std::fs::remove_file(&path).unwrap();
    let error = live.read(Offset::MAX, 100).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.what().ends_with("n.jsonl is gone"), "{error}");

    let untimed = Source::open(Files::lines(&path).json::<i64>(), &Environment::default());
    assert_eq!(untimed.err().unwrap().kind(), Kind::Definition);
}
