//! Where the first start begins to read.

use std::str::FromStr;

use crate::error::Error;
use crate::position::Offset;
use crate::time::EventTime;

/// Where reading begins in a topic that the ledger knows nothing of yet.
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
    /// With the oldest record that is still there.
    #[default]
    Earliest,
    /// With what is written after the start.
    Latest,
    /// In each partition with the first record whose timestamp in the log is no earlier, in whole
    /// milliseconds; where there is none, with what is written after the start.
    Timestamp(EventTime),
    /// At an offset by partition. Those that are not named begin with their oldest record. A partition that
    /// there is not, and an offset that is not in the log, are refused.
    Offsets(Vec<(u32, Offset)>),
}

/// `earliest`, `latest`, or a time such as `2026-03-01T12:00:00Z`.
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
