//! Wakes workers from other threads: everything asynchronous reaches a worker by waking one of its operators.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Error;

/// Wakes one operator of one worker, from any thread. Cheap to clone and to call.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the operator that `activator` belongs to; does nothing once its worker has gone.
    pub fn of(activator: timely::scheduling::SyncActivator) -> Self {
        Self::new(move || {
            let _gone = activator.activate();
        })
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Halts the whole service with an error; the first one counts.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<Halted>);

#[derive(Debug, Default)]
struct Halted {
    raised: AtomicBool,
    error: Mutex<Option<Error>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Halt {
    /// Raises the error and wakes everyone who must stop.
    pub fn halt(&self, error: Error) {
        {
            let mut first = self.0.error.lock();
            match &*first {
                None => tracing::error!(%error, "service halted"),
                // What goes wrong on the way down would only hide the cause.
                Some(_) => tracing::debug!(%error, "another error after the halt"),
            }
            first.get_or_insert(error);
        }
        self.0.raised.store(true, Ordering::Release);
        for waker in self.0.wakers.lock().iter() {
            waker.wake();
        }
    }

    /// Whether an error was raised.
    pub fn is_halted(&self) -> bool {
        self.0.raised.load(Ordering::Acquire)
    }

    /// The error, if one was raised.
    pub fn error(&self) -> Option<Error> {
        self.0.error.lock().clone()
    }

    /// Registers a waker to be called at a halt.
    pub fn on_halt(&self, waker: Waker) {
        self.0.wakers.lock().push(waker);
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
