//! Compiler messages for steps that a type does not have: what to write instead.
//!
//! Each method here has a bound that nothing satisfies, so it cannot be called. Without them, users would
//! read "no method named `view` found" and have to search. They are hidden from the documentation;
//! `tests/compile` asserts the messages.

use crate::dataflow::collection::{Clock, Collection, Round};
use crate::dataflow::group::Grouped;
use crate::dataflow::keyed::Keyed;
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::dataflow::window::Windows;

macro_rules! misuse { ($($name:ident: $message:literal, $note:literal;)+) => { $(
    #[diagnostic::on_unimplemented(message = $message, label = "has to be written otherwise", note = $note)]
    pub trait $name {
        /// The type that the step would return.
        fn never<T>(&self) -> T;
    }
)+ } }

misuse! {
    ServesEvents: "a stream can't be served: it has no keys to look rows up by",
        "make a table of it: `.key_by(..).window(..).aggregate(..)` in windows, or \
         `.changes().group_by(..).aggregate(..)`; \
         `.for_each_epoch(..)` gives the events to a function";
    WindowsWithoutKey: "a stream is cut into windows by key",
        "give each event a key first: `.key_by(\"merchant\", |event| \
            event.merchant).window(..).aggregate(..)`";
    JoinsEvents: "a stream can't be joined as a table is",
        "with a stream, by key and time: `.key_by(..).interval_join(..)`; with a table, as it is when an \
         event comes: \
         `.key_by(..).lookup(..)`; or join what is aggregated: \
         `.key_by(..).window(..).aggregate(..).join(..)`";
    GroupsEvents: "a stream can't be grouped",
        "group its events in windows: `.key_by(..).window(..).aggregate(..)`; or all of them: \
         `.changes().group_by(..).aggregate(..)`";
    ConcatsEvents: "streams are not concatenated but merged", "write `.merge(&other)`";
    KeepsEvents: "a stream only ever adds, and keeps no rows", "make a collection of it: `.changes()`";
    KeyedWithoutWindow: "events with a key have no rows yet",
        "cut them into windows, and aggregate those: `.window(\"name\", Tumbling::of(..)).aggregate(|a| \
         a.count())`; or \
         aggregate all of them: `.aggregate_all(\"name\", |a| a.count())`";
    NotAggregated: "windows have no rows yet",
        "aggregate them: `.aggregate(|a| a.count())` makes a table, with a row for each key and window";
    GroupsNotAggregated: "groups have no rows yet",
        "aggregate them: `.aggregate(\"name\", |a| a.count())` makes a table, with a row for each group; \
         `.top_k(\"name\", 3, |row| ..)` one with a row for each rank";
    ServesRounds: "a collection inside a loop cannot be served: it has rows for every round",
        "serve what `iterate` returns";
    WindowsRows: "a collection can't be cut into windows: it may take rows back",
        "window the stream before `.changes()`, or group the rows: `.group_by(..).aggregate(..)`";
    AggregatesRows: "a collection is aggregated by groups", "write `.group_by(..).aggregate(\"name\", |a| \
        ..)`";
    JoinsRowsLeft: "a collection has no left join",
        "join tables, or put `.join(..)` and `.antijoin(..)` together with `.concat(..)`";
    MergesRows: "collections are not merged but concatenated", "write `.concat(&other)`";
    ManyRowsOfKey: "a table has at most one row for each key, which this step would not keep to",
        "take its rows as a collection first: `.rows().concat(..)`, and likewise `distinct`, `iterate` \
         and `negate`; \
         `.to_table(\"name\", \"key\")` makes a table again";
    RekeysTable: "a table has a key already",
        "give it another: `.rekey(\"name\", \"key\", |key, value| ..)`, or group its rows by one: \
         `.group_by(..)`";
    WindowsTable: "a table can't be cut into windows: its rows change",
        "window the stream that it comes from, or group its rows: `.group_by(\"name\", |key, value| \
            ..).aggregate(..)`";
    AggregatesTable: "a table is aggregated by groups",
        "write `.group_by(\"name\", |key, value| ..).aggregate(\"name\", |a| ..)`";
}

/// `receiver { bound: methods }`: each method takes as many arguments as its namesake, of any type, and
/// returns the type that follows.
macro_rules! refused {
    ($({$($generics:tt)*} $of:ty {
        $($bound:ident: $($method:ident($($argument:ident),*) -> $out:ty),+;)+
    })+) => { $(
        #[doc(hidden)]
        impl<$($generics)*> $of { $($(
            #[doc(hidden)]
            #[allow(non_camel_case_types)]
            pub fn $method<$($argument),*>(&self, $(_: $argument),*) -> $out
            where
                Self: $bound,
            {
                self.never()
            }
        )+)+ }
    )+ };
}

refused! {
    {'s, T: 'static} Stream<'s, T> {
        ServesEvents: view(name) -> &Self, view_with(name, settings) -> &Self;
        WindowsWithoutKey: window(name, assigner) -> Windows<'s, (), T>,
            aggregate(build) -> Table<'s, (), ()>;
        JoinsEvents: join(name, other, f) -> Table<'s, (), ()>,
            left_join(name, other, f) -> Table<'s, (), ()>,
            join_on(name, other, on, f) -> Table<'s, (), ()>,
            left_join_on(name, other, on, f) -> Table<'s, (), ()>;
        GroupsEvents: group_by(names, key) -> Grouped<'s, (), T>;
        ConcatsEvents: concat(other) -> Self;
        KeepsEvents: distinct(name) -> Self, rows() -> Self;
    }
    {'s, K: 'static, T: 'static} Keyed<'s, K, T> {
        KeyedWithoutWindow: view(name) -> &Self, view_with(name, settings) -> &Self,
            aggregate(build) -> Table<'s, K, ()>, group_by(names, key) -> Grouped<'s, K, T>,
            join(name, other, f) -> Table<'s, K, ()>, left_join(name, other, f) -> Table<'s, K, ()>;
    }
    {'s, K: 'static, T: 'static} Windows<'s, K, T> {
        NotAggregated: view(name) -> &Self, view_with(name, settings) -> &Self,
            group_by(names, key) -> Grouped<'s, K, T>,
            join(name, other, f) -> Table<'s, K, ()>, left_join(name, other, f) -> Table<'s, K, ()>,
            map(f) -> Table<'s, K, ()>, filter(f) -> Table<'s, K, ()>;
    }
    {'s, K: 'static, D: 'static} Grouped<'s, K, D> {
        GroupsNotAggregated: view(name) -> &Self, view_with(name, settings) -> &Self,
            join(name, other, f) -> Table<'s, K, ()>, left_join(name, other, f) -> Table<'s, K, ()>,
            map(f) -> Table<'s, K, ()>, filter(f) -> Table<'s, K, ()>;
    }
    {'s, D: 'static, C: Clock} Collection<'s, D, C> {
        WindowsRows: key_by(names, key) -> &Self, window(name, assigner) -> &Self;
        AggregatesRows: aggregate(build) -> &Self;
        JoinsRowsLeft: left_join(name, other, f) -> &Self;
        MergesRows: merge(other) -> &Self;
    }
    {'s, D: 'static} Collection<'s, D, Round> {
        ServesRounds: view(name) -> &Self, view_with(name, settings) -> &Self;
    }
    {'s, K: 'static, V: 'static} Table<'s, K, V> {
        ManyRowsOfKey: concat(other) -> &Self, merge(other) -> &Self, distinct(name) -> &Self,
            iterate(name, step) -> &Self, negate() -> &Self;
        RekeysTable: key_by(names, key) -> &Self;
        WindowsTable: window(name, assigner) -> &Self;
        AggregatesTable: aggregate(build) -> &Self;
    }
}
