//! The types that streams and tables can hold, and how a key is assigned to its worker.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::position::Position;
use crate::time::EventTime;

/// A type that a `Stream` can hold. It needs neither `Ord` nor `Hash`, so `f64` fields are fine in events.
///
/// Implemented for every type that is `Clone + Send + Serialize + Deserialize`; no other derive is needed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in a stream",
    label = "not an `Event`",
    note = "derive `Clone, Serialize, Deserialize`",
    note = "it must own what it holds and may go to another thread: no references, no `Rc`"
)]
pub trait Event: Clone + Send + Serialize + DeserializeOwned + 'static {}
// One error of ours for all that is missing, rather than one for each.
#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Event for T {}

/// A type that a `Collection` or a `Table` can hold: an [`Event`] that can be compared and hashed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in a table",
    label = "not a `Record`",
    note = "derive `Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize`; for a \
        float use `F64`",
    note = "it must own what it holds and may go to another thread: no references, no `Rc`"
)]
pub trait Record: Event + Ord + Hash + Debug + Sync {}
#[diagnostic::do_not_recommend]
impl<T: Event + Ord + Hash + Debug + Sync> Record for T {}

/// An event in transit: the value, its event time, its horizon, and where it was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timed<T> {
    /// The event itself.
    pub value: T,
    /// Its event time.
    pub time: EventTime,
    /// The watermark of its own partition as of the record before it. The event is late for windows that end
    /// at or before this: lateness depends on the log, never on the order in which partitions happened to be
    /// read.
    pub horizon: EventTime,
    /// Where it was read: the tie-breaker wherever order inside an epoch matters.
    pub at: Position,
}

impl<T> Timed<T> {
    /// The same event with another value.
    pub fn with<U>(self, value: U) -> Timed<U> {
        Timed {
            value,
            time: self.time,
            horizon: self.horizon,
            at: self.at,
        }
    }
}

/// An optional row: an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Option`, and there is nothing to flatten",
    label = "always a row",
    note = "give an `Option` for rows that may be left out, or `filter` them"
)]
pub trait Optional: Record {
    /// The row.
    type Item: Record;
    /// Converts into an option.
    fn into_option(self) -> Option<Self::Item>;
}
#[diagnostic::do_not_recommend]
impl<R: Record> Optional for Option<R> {
    type Item = R;
    fn into_option(self) -> Self {
        self
    }
}

/// The net change of one key in one epoch: at most one row before, at most one row after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change<K, V> {
    /// The key.
    pub key: K,
    /// Its row before the epoch.
    pub old: Option<V>,
    /// Its row after the epoch.
    pub new: Option<V>,
}

/// The key of a row with a rank in its group, starting at 1: see
/// [`top_k`](crate::dataflow::group::Grouped::top_k).
///
/// Ordered by key, then rank. Its hash is the key's alone, so that all ranks of a group are on one worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename = "$thalweg::Ranked")]
pub struct Ranked<K> {
    /// The group's key.
    pub key: K,
    /// The rank in the group, starting at 1.
    pub rank: u32,
}

impl<K: Hash> Hash for Ranked<K> {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The hash that determines where a key is held: the high half selects the worker, the low half the bucket on
/// it.
///
/// Fast, and only for use inside one running service. Persistent data (checkpoints, sink shards) uses a named
/// hash.
#[inline]
pub fn route<K: Hash + ?Sized>(key: &K) -> u64 {
    foldhash::fast::FixedState::with_seed(0x7468_616c_7765_6721).hash_one(key)
}

/// The number by which timely's exchange selects the worker for a [`route`].
///
/// Exchange masks the low bits and hash tables use them too, so this takes the high half.
#[inline]
pub fn worker_bits(route: u64) -> u64 {
    route >> 32
}

/// The worker, of `peers`, that owns a [`route`]: the same arithmetic as timely's exchange of
/// [`worker_bits`].
#[inline]
pub fn owner(route: u64, peers: usize) -> usize {
    (worker_bits(route) % peers as u64) as usize
}

/// A float that a table can hold: totally ordered (IEEE 754 `totalOrder`), with `-0.0` stored as `0.0` and a
/// single NaN.
///
/// This holds however it is created, by [`new`](Self::new), `From` or `Deserialize`: two that print alike are
/// one key, one group and one row.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct F64(f64);

impl F64 {
    /// Wraps a float.
    #[inline]
    pub fn new(value: f64) -> Self {
        if value.is_nan() {
            Self(f64::NAN)
        } else {
            Self(value + 0.0)
        }
    }

    /// The float.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for F64 {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}
impl<'de> Deserialize<'de> for F64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}
impl PartialEq for F64 {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for F64 {}
impl PartialOrd for F64 {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for F64 {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl Hash for F64 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Window, Windowed};

    #[test]
    fn all_windows_of_a_key_live_with_the_key() {
        let window = Window {
            start: EventTime(0),
            end: EventTime(9),
        };
        assert_eq!(route(&7u32), route(&Windowed { key: 7u32, window }));
    }

    #[test]
    fn zeros_are_one_value_and_nan_equals_itself() {
        assert_eq!(F64::new(0.0), F64::new(-0.0));
        assert_eq!(F64::new(f64::NAN), F64::new(-f64::NAN));
        assert!(F64::new(-1.0) < F64::new(1.0));
    }

    /// However a float is created, those that print alike are one key.
    #[test]
    fn every_way_in_gives_one_form() {
        #[derive(Deserialize)]
        struct Row {
            price: F64,
        }
        let bits = |value: F64| value.get().to_bits();
        let json = |json: &str| serde_json::from_str::<F64>(json).unwrap();
        assert_eq!(bits(json("-0.0")), 0);
        assert_eq!(bits(json("-0")), 0);
        assert_eq!(bits(json("-1e-999")), 0);
        let row: Row = serde_json::from_str(r#"{"price":-0.0}"#).unwrap();
        assert_eq!(bits(row.price), 0);
        for nan in [
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::from_bits(u64::MAX),
        ] {
            let read: F64 = postcard::from_bytes(&nan.to_le_bytes()).unwrap();
            assert_eq!(bits(read), f64::NAN.to_bits());
            assert_eq!(bits(F64::from(nan)), f64::NAN.to_bits());
        }
        // As a checkpoint of before holds it.
        let read: F64 = postcard::from_bytes(&(-0.0f64).to_le_bytes()).unwrap();
        assert_eq!(bits(read), 0);
        assert_eq!(postcard::to_stdvec(&F64::new(1.5)).unwrap(), 1.5f64.to_le_bytes());
    }
}
