//! Tuples of up to 12 aggregates are aggregates; longer tuples cannot be compared and so cannot be rows.
//! Tuples may be nested.

use crate::operator::aggregate::Aggregate;

macro_rules! tuples { ($(($($A:ident $i:tt),+))+) => { $(
    impl<T, $($A: Aggregate<T>),+> Aggregate<T> for ($($A,)+) {
        type State = ($($A::State,)+);
        type Out = ($($A::Out,)+);
        fn empty(&self) -> Self::State { ($(self.$i.empty(),)+) }
        #[inline]
        fn add(&self, state: &mut Self::State, value: &T) { $(self.$i.add(&mut state.$i, value);)+ }
        #[inline]
        fn merge(&self, state: &mut Self::State, other: Self::State) {
            $(self.$i.merge(&mut state.$i, other.$i);)+
        }
        fn finish(&self, state: &Self::State) -> Self::Out { ($(self.$i.finish(&state.$i),)+) }
        fn undoes(&self) -> bool { $(self.$i.undoes())&&+ }
        fn undo(&self, state: &mut Self::State, value: &T) { $(self.$i.undo(&mut state.$i, value);)+ }
    }
)+ } }
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11)
}
