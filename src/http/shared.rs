//! The context shared by all requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use hyper::http::request::Parts;
use tokio::sync::Semaphore;

use crate::http::access::Access;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::{HttpSettings, ServerState};
use crate::metrics::RouteMetrics;

/// The context shared by all requests.
pub(crate) struct RequestContext {
    pub settings: HttpSettings,
    pub state: Arc<ServerState>,
    /// Who may read, if not everybody.
    pub access: Option<Access>,
    /// Slots for large scans.
    pub scans: Arc<Semaphore>,
    /// Slots for reads of rows that other processes have.
    pub gathers: Arc<Semaphore>,
    /// By pattern, including [`NONE`].
    pub routes: BTreeMap<&'static str, RouteMetrics>,
}

/// The pattern in metrics for unknown paths.
pub(crate) const NONE: &str = "none";

/// The decoded path segment that the pattern leaves open.
pub(crate) struct PathPart(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Self(part)),
            Err(refused) => Err(Problem::new(ProblemKind::Parameter, refused.body_text())),
        }
    }
}

/// Runs its closure when dropped, for whatever reason (a client may disconnect at any await).
pub(crate) struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
