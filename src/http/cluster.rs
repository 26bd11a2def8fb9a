//! `GET /v1/cluster`: the processes of the cluster, as this one sees them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::http::answer::{self, Time};
use crate::http::problem::Problem;
use crate::http::read;
use crate::http::shared::RequestContext;
use crate::runtime::cluster::PeerStatus;

#[derive(Serialize)]
struct ClusterAnswer {
    process: usize,
    workers: usize,
    processes: Vec<ProcessAnswer>,
}

#[derive(Serialize)]
struct ProcessAnswer {
    process: usize,
    address: String,
    connected: bool,
    silent_ms: Option<u64>,
    epoch: Option<u64>,
    time: Option<Time>,
}

impl From<PeerStatus> for ProcessAnswer {
    fn from(status: PeerStatus) -> Self {
        Self {
            process: status.process,
            address: status.address,
            connected: status.silent.is_some(),
            silent_ms: status.silent.map(|silent| silent.as_millis() as u64),
            epoch: status.closed.map(|epoch| epoch.0),
            time: status.closed.map(|epoch| Time(epoch.opened_at())),
        }
    }
}

/// `GET /v1/cluster`. A single process is a cluster of one without addresses.
pub(crate) async fn cluster(State(shared): State<Arc<RequestContext>>) -> Result<Response, Problem> {
    let now = shared.state.cluster_now.clone();
    let status = read::blocking(&shared, &shared.gathers, move || Ok(now())).await?;
    Ok(answer::json(match status {
        Some(status) => ClusterAnswer {
            process: status.process,
            workers: status.workers,
            processes: status.processes.into_iter().map(ProcessAnswer::from).collect(),
        },
        None => ClusterAnswer {
            process: 0,
            workers: shared.state.views.peers(),
            processes: Vec::new(),
        },
    }))
}
