//! What process 0 of a cluster observes, for the others: the partitions of sources and where they end, what
//! does not work, and how far sinks are. With it, every process gives the same answers about them, and is
//! ready when process 0 is.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::peer_request::PeerRequest;
use super::sources::PartitionLook;
use super::{ProcessState, spawn};
use crate::error::Result;
use crate::health::Dependency;
use crate::mesh::Mesh;
use crate::position::{Offset, SourceId};
use crate::sink::queue::ShardStatus;

/// The interval at which the others ask.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Observations {
    partitions: BTreeMap<String, Vec<PartitionLook>>,
    first_ends: BTreeMap<SourceId, BTreeMap<u32, (Offset, Offset)>>,
    troubles: BTreeMap<Dependency, String>,
    sinks: BTreeMap<String, Vec<ShardStatus>>,
}

impl ProcessState {
    /// What this process observes.
    pub(super) fn observations(&self) -> Observations {
        let sinks = self.sinks.states().into_iter();
        Observations {
            partitions: self.partitions.lock().clone(),
            first_ends: self.first_ends.lock().clone(),
            troubles: self.troubles.lock().clone(),
            sinks: sinks.map(|(name, shards)| (name.to_string(), shards)).collect(),
        }
    }

    fn adopt(&self, observed: Observations) {
        *self.partitions.lock() = observed.partitions;
        *self.troubles.lock() = observed.troubles;
        *self.sinks_elsewhere.lock() = observed.sinks;
        // Last: with it, this process may be ready.
        *self.first_ends.lock() = observed.first_ends;
    }
}

/// Adopts what process 0 observes, until this process ends.
pub(super) fn follow(shared: &Arc<ProcessState>, mesh: &Arc<Mesh>) -> Result<()> {
    let (shared, mesh) = (Arc::downgrade(shared), Arc::downgrade(mesh));
    let ask = move || -> Option<()> {
        let request = postcard::to_stdvec(&PeerRequest::Observations).ok()?;
        let asked = Weak::upgrade(&mesh)?.ask(0, &request, EVERY * 10);
        let shared = Weak::upgrade(&shared)?;
        if shared.halt.is_halted() {
            return None;
        }
        if let Ok(observed) = asked.map(|bytes| postcard::from_bytes(&bytes))
            && let Ok(observed) = observed
        {
            shared.adopt(observed);
        }
        Some(())
    };
    spawn("observations", move || {
        while ask().is_some() {
            std::thread::sleep(EVERY);
        }
    })
    .map(drop)
}
