//! Aggregates over the values that meet a condition: SQL's `FILTER (WHERE …)`.

use std::rc::Rc;

use crate::operator::aggregate::{Aggregate, Take};

/// An aggregate over the values that meet a condition: `None` if none does. See [`Aggregate::when`].
///
/// It can be undone if the aggregate can, and takes 8 bytes more per key.
pub struct When<T, A> {
    meets: Take<T, bool>,
    inner: A,
}

impl<T, A> When<T, A> {
    pub(super) fn new(inner: A, meets: impl Fn(&T) -> bool + 'static) -> Self {
        let meets = Rc::new(meets);
        Self { meets, inner }
    }
}

impl<T: 'static, A: Aggregate<T>> Aggregate<T> for When<T, A> {
    /// The number of values that meet the condition, and their aggregate.
    type State = (u64, A::State);
    type Out = Option<A::Out>;
    fn empty(&self) -> Self::State {
        (0, self.inner.empty())
    }
    #[inline]
    fn add(&self, (n, state): &mut Self::State, value: &T) {
        if (self.meets)(value) {
            *n = n.wrapping_add(1);
            self.inner.add(state, value);
        }
    }
    #[inline]
    fn merge(&self, (n, state): &mut Self::State, other: Self::State) {
        *n = n.wrapping_add(other.0);
        self.inner.merge(state, other.1);
    }
    fn finish(&self, (n, state): &Self::State) -> Option<A::Out> {
        (*n != 0).then(|| self.inner.finish(state))
    }
    fn undoes(&self) -> bool {
        self.inner.undoes()
    }
    fn undo(&self, (n, state): &mut Self::State, value: &T) {
        if (self.meets)(value) {
            *n = n.wrapping_sub(1);
            self.inner.undo(state, value);
        }
    }
}

/// An aggregate with a result for zero values, over the values that meet a condition.
///
/// It can be undone if the aggregate can, and takes no further memory.
pub struct Filtered<T, A> {
    meets: Take<T, bool>,
    inner: A,
}

impl<T, A> Filtered<T, A> {
    pub(super) fn new(inner: A, meets: impl Fn(&T) -> bool + 'static) -> Self {
        let meets = Rc::new(meets);
        Self { meets, inner }
    }
}

impl<T: 'static, A: Aggregate<T>> Aggregate<T> for Filtered<T, A> {
    type State = A::State;
    type Out = A::Out;
    fn empty(&self) -> A::State {
        self.inner.empty()
    }
    #[inline]
    fn add(&self, state: &mut A::State, value: &T) {
        if (self.meets)(value) {
            self.inner.add(state, value);
        }
    }
    #[inline]
    fn merge(&self, state: &mut A::State, other: A::State) {
        self.inner.merge(state, other);
    }
    fn finish(&self, state: &A::State) -> A::Out {
        self.inner.finish(state)
    }
    fn undoes(&self) -> bool {
        self.inner.undoes()
    }
    fn undo(&self, state: &mut A::State, value: &T) {
        if (self.meets)(value) {
            self.inner.undo(state, value);
        }
    }
}

/// Gives an aggregate with a result for zero values its own `when`.
macro_rules! shows_nothing_as { ($A:ident $(, $V:ident)?; $shown:literal) => {
    impl<T: 'static $(, $V)?> $A<T $(, $V)?> {
        /// Aggregates only the values that meet a condition:
        #[doc = concat!($shown, " where none does. It stands before [`Aggregate::when`], which shows `None`.")]
        pub fn when(
            self,
            meets: impl Fn(&T) -> bool + 'static,
        ) -> $crate::operator::aggregate::when::Filtered<T, Self> {
            $crate::operator::aggregate::when::Filtered::new(self, meets)
        }
    }
} }
pub(super) use shows_nothing_as;

shows_nothing_as! { Filtered, A; "what it shows of no value" }
