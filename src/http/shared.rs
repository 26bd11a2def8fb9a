//! What all requests share.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use hyper::http::request::Parts;
use tokio::sync::Semaphore;

use crate::http::problem::{Kind, Problem};
use crate::http::{HttpSettings, State};
use crate::metrics::RouteMetrics;

/// What all requests share.
pub(crate) struct Shared {
    pub settings: HttpSettings,
    pub state: Arc<State>,
    /// Places for large scans.
    pub scans: Arc<Semaphore>,
    /// By pattern, and [`NONE`].
    pub routes: BTreeMap<&'static str, RouteMetrics>,
}

/// The pattern that stands in metrics for every path that is none.
pub(crate) const NONE: &str = "none";

/// The part of the path that the pattern leaves open, decoded.
pub(crate) struct PathPart(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Self(part)),
            Err(refused) => Err(Problem::new(Kind::Parameter, refused.body_text())),
        }
    }
}

/// Runs its closure when it is dropped, whichever way that comes about (a client may go away at any await).
pub(crate) struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
