//! Values by type, at most one of each: the settings of connectors, which the engine does not know.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

type Value = Arc<dyn Any + Send + Sync>;

/// At most one value of each type. Clones share the values until one of them is modified.
///
/// ```
/// use thalweg::setting::extensions::Extensions;
/// #[derive(Clone, Default)]
/// struct Limits { rows: usize }
/// let mut settings = Extensions::default();
/// assert!(settings.get::<Limits>().is_none());
/// settings.get_mut::<Limits>().rows = 7;
/// assert_eq!(settings.get::<Limits>().map(|limits| limits.rows), Some(7));
/// ```
#[derive(Clone, Default)]
pub struct Extensions(BTreeMap<TypeId, Value>);

impl Extensions {
    /// A set with this value.
    pub fn of<S: Any + Send + Sync>(value: S) -> Self {
        Self([(TypeId::of::<S>(), Arc::new(value) as Value)].into())
    }

    /// The value of this type, if any.
    pub fn get<S: Any + Send + Sync>(&self) -> Option<&S> {
        self.0.get(&TypeId::of::<S>())?.downcast_ref()
    }

    /// The value of this type, inserting its default if there is none.
    pub fn get_mut<S: Any + Send + Sync + Clone + Default>(&mut self) -> &mut S {
        let id = TypeId::of::<S>();
        let own = match self.0.remove(&id).map(Arc::downcast::<S>) {
            Some(Ok(value)) => Arc::unwrap_or_clone(value),
            _ => S::default(),
        };
        let value = self.0.entry(id).or_insert_with(|| Arc::new(own));
        let value = Arc::get_mut(value).and_then(|value| value.downcast_mut());
        value.expect("it was just made, of this type")
    }

    /// Removes and returns the value of this type, or its default if there is none.
    pub fn take<S: Any + Send + Sync + Clone + Default>(&mut self) -> S {
        let value = std::mem::take(self.get_mut::<S>());
        self.0.remove(&TypeId::of::<S>());
        value
    }
}

/// Shows only the number of values: one of them may be a secret.
impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_does_not_see_what_is_changed_later() {
        let mut one = Extensions::of(vec![1]);
        let other = one.clone();
        one.get_mut::<Vec<i32>>().push(2);
        *one.get_mut::<u8>() += 1;
        assert_eq!((one.get(), other.get()), (Some(&vec![1, 2]), Some(&vec![1])));
        assert_eq!((one.get(), other.get()), (Some(&1u8), None::<&u8>));
    }
}
