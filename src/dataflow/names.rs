//! Names of key fields: what URLs, columns and Kafka keys call them.

use crate::dataflow::Dataflow;

/// Names for the fields of a key `K`: `"merchant"` for one, `["merchant", "country"]` for a tuple of two.
#[diagnostic::on_unimplemented(
    message = "these names do not fit a key of type `{K}`",
    label = "one name for each field of the key",
    note = "a key that is one value takes \"name\", a tuple of two takes [\"first\", \"second\"], and so on"
)]
pub trait Names<K> {
    /// The names, in order.
    fn names(self) -> Vec<String>;
}

impl<K> Names<K> for &str {
    fn names(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

macro_rules! tuples { ($($n:literal ($($K:ident),+))+) => { $(
    impl<$($K),+> Names<($($K,)+)> for [&str; $n] {
        fn names(self) -> Vec<String> {
            self.iter().map(|name| (*name).to_owned()).collect()
        }
    }
)+ } }
tuples! { 2 (A, B) 3 (A, B, C) 4 (A, B, C, D) 5 (A, B, C, D, E) 6 (A, B, C, D, E, F) }

/// No key at all: a second candidate, so that the compiler does not infer a key from the number of names and
/// report "mismatched types".
#[doc(hidden)]
pub enum NoKey<const N: u8> {}
#[diagnostic::do_not_recommend]
impl<const N: usize> Names<NoKey<0>> for [&str; N] {
    fn names(self) -> Vec<String> {
        Vec::new()
    }
}
#[diagnostic::do_not_recommend]
impl<const N: usize> Names<NoKey<1>> for [&str; N] {
    fn names(self) -> Vec<String> {
        Vec::new()
    }
}

/// Returns the names, and notes invalid ones: empty names and duplicates.
#[track_caller]
pub(super) fn check_names(flow: Dataflow<'_>, names: Vec<String>) -> Vec<String> {
    let at = std::panic::Location::caller();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            flow.context()
                .mistake(format!("a key at {at} has a field without a name"));
        } else if names[..i].contains(name) {
            flow.context()
                .mistake(format!("a key at {at} has two fields named `{name}`"));
        }
    }
    names
}
