//! Where the first start begins to read.

use std::str::FromStr;

use crate::error::Error;
use crate::position::Offset;
use crate::time::EventTime;

/// Where reading begins in a topic that the ledger does not contain yet.
///
/// ```
/// use thalweg::prelude::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Payment { cents: i64 }
/// let payments = Kafka::topic("payments.transactions.v1").json::<Payment>().start(Start::Latest);
/// let from_noon: EventTime = "2026-03-01T12:00:00Z".parse()?;
/// let payments = Kafka::topic("payments.transactions.v1").json::<Payment>().start(Start::Timestamp(from_noon));
/// # Ok::<(), thalweg::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that still exists.
    #[default]
    Earliest,
    /// After the newest record.
    Latest,
    /// In each partition, at the first record whose timestamp in the log is not earlier, in whole
    /// milliseconds; after the newest record if there is none.
    Timestamp(EventTime),
    /// At an offset per partition. Partitions not listed begin at their oldest record. Partitions that do not
    /// exist, and offsets outside of the log, are rejected.
    Offsets(Vec<(u32, Offset)>),
}

/// Parses `earliest`, `latest`, or a time such as `2026-03-01T12:00:00Z`.
impl FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => time
                .parse()
                .map(Self::Timestamp)
                .map_err(|_| Error::definition("it is neither `earliest` nor `latest` nor a time")),
        }
    }
}
