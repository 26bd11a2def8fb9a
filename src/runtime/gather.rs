//! Reads of views over all processes of a cluster: see [`remote`](crate::view::remote).

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::peer_request::PeerRequest;
use crate::clock;
use crate::error::{Error, Result};
use crate::mesh::Mesh;
use crate::time::Epoch;
use crate::view::remote::{Gather, RemoteShards, ShardAnswer, ShardError, ShardRead};
use crate::view::serve::ReadError;
use crate::view::{AsOf, Views};

/// Asks the other processes.
pub(super) struct ClusterShards {
    mesh: Arc<Mesh>,
}

/// How much longer than the read an answer may take on its way.
const TRAVEL: Duration = Duration::from_millis(500);

impl ClusterShards {
    pub(super) fn new(mesh: Arc<Mesh>) -> Self {
        Self { mesh }
    }
}

impl RemoteShards for ClusterShards {
    fn ask(&self, read: ShardRead) -> Gather {
        let limit = read.limit + TRAVEL;
        let Ok(body) = postcard::to_stdvec(&PeerRequest::Shards(read)) else {
            return Box::new(|| Err(ReadError::Elsewhere));
        };
        let asked: Vec<_> = self
            .mesh
            .peers()
            .map(|peer| self.mesh.begin(peer, &body))
            .collect();
        Box::new(move || {
            let until = clock::instant() + limit;
            let mut answers = Vec::with_capacity(asked.len());
            for asked in asked {
                let left = until.saturating_duration_since(clock::instant());
                let answer = asked.and_then(|asked| asked.wait(left));
                let answer = answer.map_err(|_away| ReadError::Elsewhere)?;
                let answer: std::result::Result<ShardAnswer, ShardError> =
                    postcard::from_bytes(&answer).map_err(|_malformed| ReadError::Elsewhere)?;
                answers.push(answer?);
            }
            Ok(answers)
        })
    }
}

/// Answers other processes from this one's shards.
pub(super) struct Shards {
    views: Weak<Views>,
    /// To wait for an epoch.
    waiting: tokio::runtime::Runtime,
}

impl Shards {
    pub(super) fn new(views: &Arc<Views>) -> Result<Self> {
        let waiting = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let waiting = waiting.map_err(|error| Error::internal("cannot wait for epochs").detail(error))?;
        Ok(Self {
            views: Arc::downgrade(views),
            waiting,
        })
    }

    /// The encoded answer.
    pub(super) fn answer(&mut self, read: ShardRead) -> Vec<u8> {
        let begun = clock::instant();
        let limit = read.limit;
        let answer = match self.at(read.epoch, limit) {
            Some((views, at)) => match views.shards(&read.view) {
                Some(view) => {
                    let left = limit.saturating_sub(clock::instant() - begun);
                    view.answer(read.query, left, &at)
                }
                None => Err(ShardError::Behind),
            },
            None => Err(ShardError::Behind),
        };
        postcard::to_stdvec(&answer).unwrap_or_default()
    }

    /// The snapshot of an epoch, once it is closed here.
    fn at(&self, epoch: Epoch, limit: Duration) -> Option<(Arc<Views>, Arc<crate::view::Snapshot>)> {
        let views = self.views.upgrade()?;
        let closed = views.closed().is_some_and(|newest| newest.epoch >= epoch);
        if !closed {
            let wait = async { tokio::time::timeout(limit, views.wait(|at| at.epoch >= epoch)).await };
            self.waiting.block_on(wait).ok()?;
        }
        let at = views.snapshot(AsOf::Epoch(epoch)).ok()?;
        (at.epoch == epoch).then_some((views, at))
    }
}
