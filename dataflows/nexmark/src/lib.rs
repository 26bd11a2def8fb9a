//! NEXMark: questions about an online auction, by which stream processors are compared.
//!
//! Each query is a dataflow by itself, a function in one of the modules of [`queries`], and serves a view of
//! its own name. Run one with demo data, or on topics that are there:
//!
//! ```text
//!   cargo run -p nexmark -- demo q5
//!   cargo run -p nexmark -- run q5 --kafka 127.0.0.1:9092
//! ```
//!
//! Queries and numbers are those of <https://github.com/nexmark/nexmark>, which extends the suite of Tucker,
//! Tufte, Papadimos and Maier, "NEXMark – A Benchmark for Queries over Data Streams", 2002. Left out are q10,
//! which writes files, q12, which takes the time of processing for that of the event, and q13, which joins a
//! table of another system. The folder `sql/` has each query in SQL, and a test compares the answers of both.

pub mod generator;
pub mod model;
pub mod queries;
