//! The context of panics: which step is processing which record on this thread, for the error of a panic in
//! user code.
//!
//! ```text
//!   operator:  enter("window `spend`") ─ at_record(position) ─ closure ─ at_record(position) ─ closure ☠
//!                                                                                                └─▶ describe(): "window `spend`, at topic …"
//! ```
//!
//! This costs two stores per record and a little more per batch. The context is kept when a panic unwinds,
//! for whoever catches it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::position::{Position, SourceId};

thread_local! {
    static STEP: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
    static AT: Cell<Option<Position>> = const { Cell::new(None) };
    /// The description of each source's log, as ``topic `payments` ``.
    static SOURCES: RefCell<BTreeMap<SourceId, String>> = const { RefCell::new(BTreeMap::new()) };
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// The step that is being processed. Ends when dropped, unless by a panic.
#[must_use = "the step is at work until this is dropped"]
pub(crate) struct ActiveStep {
    before: Option<Rc<str>>,
    at: Option<Position>,
}

/// Enters a step; `step` names it in messages: ``window `spend` ``.
#[inline]
pub(crate) fn enter(step: &Rc<str>) -> ActiveStep {
    ActiveStep {
        before: STEP.with(|now| now.replace(Some(step.clone()))),
        at: AT.replace(None),
    }
}

/// Sets the record that is processed from here on.
#[inline]
pub(crate) fn at_record(at: Position) {
    AT.set(Some(at));
}

/// Runs a closure of a step that processes rows without positions.
#[inline]
pub(crate) fn run_in_step<R>(step: &Rc<str>, run: impl FnOnce() -> R) -> R {
    let _work = enter(step);
    run()
}

impl Drop for ActiveStep {
    #[inline]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            STEP.with(|now| now.replace(self.before.take()));
            AT.set(self.at);
        }
    }
}

/// Names the log of `source` in this thread's messages.
pub(crate) fn name_source(source: SourceId, description: &str) {
    SOURCES.with(|sources| sources.borrow_mut().insert(source, description.to_owned()));
}

/// Describes the step and the record being processed; `None` outside of any step.
pub(crate) fn describe() -> Option<String> {
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

/// Sets whether panics of this thread are caught and turned into errors.
pub(crate) fn set_caught(caught: bool) {
    CAUGHT.set(caught);
}

/// Whether panics of this thread are caught. Never in builds that abort on panics.
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
        assert_eq!(describe(), None);
        name_source(SourceId(7), "topic `t`");
        let work = enter(&outer);
        at_record(at(1));
        run_in_step(&inner, || {
            assert_eq!(describe().as_deref(), Some("map after `b`"))
        });
        assert_eq!(
            describe().as_deref(),
            Some("window `a`, at topic `t`, partition 3, offset 1")
        );
        drop(work);
        assert_eq!(describe(), None);
        let caught = std::panic::catch_unwind(|| {
            let _outer = enter(&"map after `b`".into());
            at_record(at(9));
            let quiet: Result<(), &str> = Err("boom");
            std::panic::resume_unwind(Box::new(quiet));
        });
        assert!(caught.is_err());
        assert_eq!(
            describe().as_deref(),
            Some("map after `b`, at topic `t`, partition 3, offset 9")
        );
    }
}
