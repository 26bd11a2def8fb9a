//! From other threads into the workers: everything asynchronous reaches a worker by waking one of its operators.

use std::sync::Arc;

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
