//! Operators against a from-scratch evaluation: the same result at every epoch, on any number of workers.

mod smoke;
