//! What a file with a dataflow needs: `use thalweg::prelude::*;`.

pub use std::process::ExitCode;
pub use std::time::Duration;

pub use serde::{Deserialize, Serialize};

pub use crate::codec::avro::format::Avsc;
pub use crate::codec::json_schema::JsonSchemaFormat;
#[cfg(feature = "protobuf")]
pub use crate::codec::protobuf::format::Proto;
pub use crate::connect::files::Files;
pub use crate::connect::kafka::Kafka;
#[cfg(feature = "postgres")]
pub use crate::connect::postgres::Postgres;
pub use crate::dataflow::collection::{Collection, Loop};
pub use crate::dataflow::keyed::Keyed;
pub use crate::dataflow::stream::Stream;
pub use crate::dataflow::table::Table;
pub use crate::dataflow::window::{Hopping, Sessions, Tumbling, WindowAssigner, Windows};
pub use crate::dataflow::{Dataflow, dataflow};
pub use crate::demo::generator::Generator;
pub use crate::error::{Error, Result};
pub use crate::late::Late;
pub use crate::operator::aggregate::{Aggregate, AggregateBuilder};
pub use crate::operator::interval_join::Interval;
pub use crate::record::{Change, Event, F64, Ranked, Record, Timed};
pub use crate::source::{Deletes, Start};
pub use crate::time::{Epoch, EventTime, Window, Windowed};
