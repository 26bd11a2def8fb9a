//! A task, its queue and its store, without threads.

use parking_lot::Mutex;

use super::*;
use crate::metrics::SinkMetrics;
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::sink::process::{ProcessSinks, SinkConnection, SinkRun};
use crate::sink::queue::{BYTES_MAX, QueueProducer, ROWS_MAX};
use crate::sink::row::Row;

/// Notes what it is given, while it may.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    taken: Vec<(u64, usize)>,
    stored: Option<Progress>,
    refuses: bool,
    /// Commits, and says that it did not.
    lies: bool,
    opened: usize,
    closed: usize,
}

impl Notes {
    fn take(&self, epochs: &[Batch]) -> Result<(), WriteError> {
        let mut noted = self.0.lock();
        if noted.refuses {
            return Err(Error::external("nobody is there").into());
        }
        let taken = epochs.iter().map(|batch| (batch.epoch.0, batch.rows.len()));
        noted.taken.extend(taken);
        Ok(())
    }

    fn ends(&self) -> Vec<(u64, usize)> {
        self.0.lock().taken.clone()
    }
}

impl Writer for Notes {
    fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
        self.take(epochs)
    }

    fn close(&mut self) -> Result<()> {
        self.0.lock().closed += 1;
        Ok(())
    }
}

impl TransactionalWriter for Notes {
    fn resume(&mut self) -> Result<Option<Progress>> {
        let mut noted = self.0.lock();
        noted.opened += 1;
        match noted.refuses {
            true => Err(Error::external("nobody is there")),
            false => Ok(noted.stored.clone()),
        }
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        self.take(epochs)?;
        let mut noted = self.0.lock();
        noted.stored = Some(progress.clone());
        match std::mem::take(&mut noted.lies) {
            true => Err(Error::external("it took too long").into()),
            false => Ok(()),
        }
    }
}

fn batch(epoch: u64, rows: usize) -> Batch {
    let row = Row::change(b"k", None, Some(b"v"), 1);
    Batch {
        epoch: Epoch(epoch),
        rows: vec![row; rows],
    }
}

fn connect(writers: Writers, halt: &Halt) -> (ProcessSinks, QueueProducer, SinkTask) {
    let run = SinkRun {
        ledger: 1,
        generation: 3,
        last: Some(Epoch(2)),
    };
    let sinks = ProcessSinks::open([("notes", 1, None)].into_iter(), run, None).unwrap();
    let schema = RowSchema::new("it", trace::<u8>(), trace::<u8>(), FieldNames::default()).unwrap();
    let to = SinkConnection {
        sink: "notes".into(),
        shards: 1,
        schema: Arc::new(schema),
        writers,
        halt: halt.clone(),
        metrics: SinkMetrics::default(),
    };
    let producer = sinks.connect(&to, 0, Waker::new(|| {})).unwrap();
    let task = sinks.tasks().pop().unwrap();
    (sinks, producer, task)
}

fn repeating(notes: &Notes) -> (ProcessSinks, QueueProducer, SinkTask) {
    let notes = notes.clone();
    connect(Writers::repeating(move |_| Ok(notes.clone())), &Halt::default())
}

fn transactional(notes: &Notes, halt: &Halt) -> (ProcessSinks, QueueProducer, SinkTask) {
    let notes = notes.clone();
    connect(Writers::transactional(move |_| Ok(notes.clone())), halt)
}

#[test]
fn epochs_are_taken_in_order_some_at_a_time_and_the_queue_has_an_end() {
    let notes = Notes::default();
    let (sinks, producer, mut task) = repeating(&notes);
    assert_eq!(task.turn(), TaskTurn::Idle);
    let sizes = [1, WRITE_MAX, 5, WRITE_MAX - 5, 2 * WRITE_MAX, 1];
    for (epoch, rows) in (1..).zip(sizes) {
        producer.put(batch(epoch, rows));
    }
    let mut ends = Vec::new();
    while task.turn() == TaskTurn::Worked {
        ends.push(notes.ends().last().unwrap().0);
        let oldest = ends.last().unwrap() + 1;
        assert_eq!(
            (sinks.is_clear(Epoch(oldest - 1)), sinks.is_clear(Epoch(oldest))),
            (true, oldest == 7)
        );
    }
    assert_eq!(
        ends,
        [1, 2, 4, 5, 6],
        "no more than {WRITE_MAX} rows at once, but for one epoch"
    );
    let all: Vec<_> = (1..).zip(sizes).collect();
    assert_eq!(notes.ends(), all);
    let mut epoch = 7;
    while producer.has_room() {
        producer.put(batch(epoch, 1000));
        epoch += 1;
    }
    assert_eq!(epoch - 7, (ROWS_MAX as u64).div_ceil(1000));
    while !producer.has_room() {
        assert_eq!(task.turn(), TaskTurn::Worked);
    }
    drop(producer);
    let end = std::iter::repeat_with(|| task.turn()).find(|turn| *turn != TaskTurn::Worked);
    assert_eq!(end, Some(TaskTurn::Ended));
    assert_eq!(notes.ends().last().unwrap().0, epoch - 1);
    assert_eq!(notes.0.lock().closed, 1);
}

#[test]
fn few_rows_of_many_bytes_fill_the_queue_as_well() {
    let (_sinks, producer, mut task) = repeating(&Notes::default());
    let row = Row::change(b"k", None, Some(&vec![7; BYTES_MAX / 4]), 1);
    for epoch in 1..=4 {
        assert!(producer.has_room());
        let rows = vec![row.clone()];
        producer.put(Batch {
            epoch: Epoch(epoch),
            rows,
        });
    }
    assert!(!producer.has_room());
    assert_eq!(task.turn(), TaskTurn::Worked);
    assert!(producer.has_room());
}

#[test]
fn one_that_fails_is_tried_again_ever_more_seldom_and_given_up_only_at_the_end() {
    let notes = Notes::default();
    let (sinks, producer, mut task) = repeating(&notes);
    notes.0.lock().refuses = true;
    producer.put(batch(3, 2));
    let waits: Vec<_> = (0..12).map(|_| task.turn()).collect();
    let wait = |n: u32| TaskTurn::Wait(RETRY_AFTER.0.saturating_mul(1 << n).min(RETRY_AFTER.1));
    assert_eq!(waits, (0..12).map(|n| wait(n.min(10))).collect::<Vec<_>>());
    assert_eq!(waits.last(), Some(&TaskTurn::Wait(RETRY_AFTER.1)));
    assert_eq!(sinks.troubles().len(), 1);
    assert!(sinks.troubles()[0].1.contains("nobody is there"));
    notes.0.lock().refuses = false;
    assert_eq!(task.turn(), TaskTurn::Worked);
    assert!(sinks.troubles().is_empty() && sinks.is_clear(Epoch(3)));
    notes.0.lock().refuses = true;
    producer.put(batch(4, 2));
    assert!(matches!(task.turn(), TaskTurn::Wait(_)) && sinks.take_on());
    sinks.close();
    assert_eq!(task.turn(), TaskTurn::Ended);
    // Whatever else comes is left to the next start, and no checkpoint may stand for it.
    producer.put(batch(5, ROWS_MAX));
    assert!(producer.has_room() && !sinks.take_on());
    assert!(sinks.is_clear(Epoch(3)) && !sinks.is_clear(Epoch(4)));
    assert_eq!(notes.ends(), [(3, 2)]);
}

#[test]
fn a_transaction_in_doubt_is_looked_up_before_anything_is_committed_again() {
    for lies in [false, true] {
        let (notes, halt) = (Notes::default(), Halt::default());
        let (sinks, producer, mut task) = transactional(&notes, &halt);
        producer.put(batch(3, 2));
        assert_eq!(task.turn(), TaskTurn::Worked);
        producer.put(batch(5, 1));
        (notes.0.lock().lies, notes.0.lock().refuses) = (lies, !lies);
        assert!(matches!(task.turn(), TaskTurn::Wait(_)));
        assert!(!sinks.is_clear(Epoch(5)));
        notes.0.lock().refuses = false;
        assert_eq!(task.turn(), TaskTurn::Worked);
        assert!(sinks.is_clear(Epoch(5)));
        assert_eq!(notes.ends(), [(3, 2), (5, 1)]);
        let noted = notes.0.lock();
        assert_eq!(noted.opened, 2, "a writer that failed is replaced");
        let stored = noted.stored.clone().unwrap();
        assert_eq!((stored.epoch, stored.rows, stored.generation), (Epoch(5), 3, 3));
    }
}

#[test]
fn a_store_that_has_lost_what_it_committed_halts_the_service() {
    let (notes, halt) = (Notes::default(), Halt::default());
    let (_sinks, producer, mut task) = transactional(&notes, &halt);
    producer.put(batch(3, 2));
    assert_eq!(task.turn(), TaskTurn::Worked);
    producer.put(batch(4, 2));
    (notes.0.lock().lies, notes.0.lock().refuses) = (false, true);
    assert!(matches!(task.turn(), TaskTurn::Wait(_)));
    (notes.0.lock().stored, notes.0.lock().refuses) = (None, false);
    assert_eq!(task.turn(), TaskTurn::Ended);
    let error = halt.error().unwrap().to_string();
    assert!(error.contains("has lost rows"), "{error}");
}

#[test]
fn rows_that_are_refused_and_panics_halt_the_service_with_the_reason() {
    struct Refuses;
    impl Writer for Refuses {
        fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
            match epochs[0].epoch.0 {
                3 => Err(WriteError::Refused {
                    row: (0, 1),
                    error: Error::external("it is too large"),
                }),
                _ => panic!("too many"),
            }
        }
    }
    for (epoch, said) in [
        (3, ["refuses a row", "it is too large", "\"value\":9"]),
        (4, ["`notes` panicked", "too many", "given to it again"]),
    ] {
        let halt = Halt::default();
        let (_sinks, producer, mut task) = connect(Writers::repeating(|_| Ok(Refuses)), &halt);
        let row = |value: u8| Row::change(&[1], None, Some(&[value]), 1);
        producer.put(Batch {
            epoch: Epoch(epoch),
            rows: vec![row(8), row(9)],
        });
        assert_eq!(task.turn(), TaskTurn::Ended);
        let error = halt.error().unwrap().to_string();
        assert!(said.iter().all(|said| error.contains(said)), "{error}");
    }
}

#[test]
fn a_store_that_rests_is_left_alone_until_the_service_ends() {
    let (sinks, producer, task) = repeating(&Notes::default());
    let queue = task.queue.clone();
    let pause = std::thread::spawn(move || queue.pause(Duration::from_secs(3600)));
    producer.put(batch(3, 2));
    assert!(!pause.is_finished());
    sinks.close();
    pause.join().expect("it ends");
}
