//! Which step is at work on which record, on this thread: what a panic in a user's closure is told with.
//!
//! ```text
//!   operator:  begin("window `spend`") ─ on(position) ─ closure ─ on(position) ─ closure ☠
//!                                                                                  └─▶ told(): "window `spend`, at topic …"
//! ```
//!
//! It costs two stores a record and a little more a batch. What was noted stays when a panic passes through,
//! for whoever catches it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::position::{Position, SourceId};

thread_local! {
    static STEP: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
    static AT: Cell<Option<Position>> = const { Cell::new(None) };
    /// What sources read, as ``topic `payments` ``.
    static SOURCES: RefCell<BTreeMap<SourceId, String>> = const { RefCell::new(BTreeMap::new()) };
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// A step that is at work. Ends when it is dropped, unless by a panic.
#[must_use = "the step is at work until this is dropped"]
pub(crate) struct Work {
    before: Option<Rc<str>>,
    at: Option<Position>,
}

/// A step begins to work; `step` names it in a sentence: ``window `spend` ``.
#[inline]
pub(crate) fn begin(step: &Rc<str>) -> Work {
    Work {
        before: STEP.with(|now| now.replace(Some(step.clone()))),
        at: AT.replace(None),
    }
}

/// The record that is worked on from here.
#[inline]
pub(crate) fn on(at: Position) {
    AT.set(Some(at));
}

/// Runs a closure of a step that knows rows and no records.
#[inline]
pub(crate) fn within<R>(step: &Rc<str>, run: impl FnOnce() -> R) -> R {
    let _work = begin(step);
    run()
}

impl Drop for Work {
    #[inline]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            STEP.with(|now| now.replace(self.before.take()));
            AT.set(self.at);
        }
    }
}

/// What this thread's positions of `source` are told with.
pub(crate) fn name(source: SourceId, description: &str) {
    SOURCES.with(|sources| sources.borrow_mut().insert(source, description.to_owned()));
}

/// The step at work, and the record, in words; nothing when no step is.
pub(crate) fn told() -> Option<String> {
    let step = STEP.with(|step| step.try_borrow().ok()?.clone())?;
    let Some(Position { partition, offset }) = AT.get() else {
        return Some(step.to_string());
    };
    let source = SOURCES.with(|sources| {
        let named = sources.try_borrow().ok();
        named.and_then(|named| named.get(&partition.source).cloned())
    });
    let source = source.unwrap_or_else(|| "an unknown source".to_owned());
    Some(format!(
        "{step}, at {source}, partition {}, offset {offset}",
        partition.partition
    ))
}

/// Says that panics of this thread are caught from here on (or no longer), and told of as errors.
pub(crate) fn set_caught(caught: bool) {
    CAUGHT.set(caught);
}

/// Whether panics of this thread are caught. Never where the build aborts on them.
pub(crate) fn is_caught() -> bool {
    cfg!(panic = "unwind") && CAUGHT.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::PartitionId;

    #[test]
    fn a_panic_leaves_its_trail() {
        let (outer, inner): (Rc<str>, Rc<str>) = ("window `a`".into(), "map after `b`".into());
        let at = |offset| Position {
            partition: PartitionId {
                source: SourceId(7),
                partition: 3,
            },
            offset,
        };
        assert_eq!(told(), None);
        name(SourceId(7), "topic `t`");
        let work = begin(&outer);
        on(at(1));
        within(&inner, || assert_eq!(told().as_deref(), Some("map after `b`")));
        assert_eq!(
            told().as_deref(),
            Some("window `a`, at topic `t`, partition 3, offset 1")
        );
        drop(work);
        assert_eq!(told(), None);
        let caught = std::panic::catch_unwind(|| {
            let _outer = begin(&"map after `b`".into());
            on(at(9));
            let quiet: Result<(), &str> = Err("boom");
            std::panic::resume_unwind(Box::new(quiet));
        });
        assert!(caught.is_err());
        assert_eq!(
            told().as_deref(),
            Some("map after `b`, at topic `t`, partition 3, offset 9")
        );
    }
}
