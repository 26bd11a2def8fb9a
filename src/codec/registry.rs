//! Client of a schema registry that speaks Confluent's REST API (Confluent, Apicurio, Karapace, Redpanda).
//!
//! ```text
//!   worker                       tokio
//!   lookup(id) ── first call ──▶ task: GET /schemas/ids/{id}
//!      │ Pending                   │ 200                → known    ┐ wakers called
//!      │                           │ 404, code 40403    → unknown, if it is said for as long as `unknown_wait`
//!      │                           │ anything else      → away: tried again, ever more slowly
//!   lookup(id) ◀── waker ──────────┘
//! ```
//!
//! What the registry says becomes a **verdict** when a source first goes by it. A verdict decides what
//! records become, so it goes into the ledger: [`Registry::seen`] reports it, and a replay brings it back
//! with [`Registry::bind`]. A plain 404 is no verdict: a proxy in front of a registry that is down says 404
//! too. Ids that no registry can have are not asked for.
//!
//! A registry may not know an id *yet*: a follower lags behind its leader, or a schema is registered late. So
//! "unknown" is believed only when it has been said for a while; the partition waits. Even then it is not for
//! ever: while records of the id keep coming, the registry is asked again, a few times a minute. When it
//! knows the id, each partition goes by that from its next record on ([`Verdict::since`]): a new verdict,
//! bound as the first one was, so that a replay, on any number of workers, decodes what this run decodes and
//! leaves undecoded what it leaves.

pub mod access;
mod exchange;
mod fetch;
mod in_flight;
mod references;
mod rules;
mod subjects;
mod verdicts;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, Method, Url};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use self::rules::CompatibilityRuling;
pub use self::subjects::{Draft, Reference};
pub use super::verdict::{RecordLocation, Verdict};
pub use super::writer::{Language, Referenced, WriterSchema, fingerprint};

use self::access::{Credentials, RegistryAccess, wrong};
use self::exchange::{Response, exchange};
use self::in_flight::InFlight;
use self::verdicts::Verdicts;
use crate::bridge::Waker;
use crate::clock;
use crate::error::{Error, Result, count};
use crate::position::Offset;
use crate::time::EventTime;

/// The registry's code for "no schema has this id".
const SCHEMA_NOT_FOUND: u32 = 40403;
/// Its codes for "no such subject" and "no such version of it".
const SUBJECT_NOT_FOUND: u32 = 40401;
const VERSION_NOT_FOUND: u32 = 40402;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What is known of a schema id now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The schema.
    Known(Arc<WriterSchema>),
    /// The schema, from this offset on: the id was unknown before.
    KnownSince(Arc<WriterSchema>, Offset),
    /// The registry said that there is no such schema, or the ledger says that it once did. That may change.
    Unknown,
    /// Not known yet.
    Pending,
}

/// How the registry does: for people and for health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryStatus {
    /// Ids that wait for an answer.
    pub pending: usize,
    /// Set while the registry does not do its part.
    pub away: Option<Outage>,
}

/// Since when the registry is away, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the first try that failed was begun.
    pub since: EventTime,
    /// Tries that failed since. None: the first one has no answer yet.
    pub tries: u64,
    /// What came of the last one.
    pub error: String,
}

impl fmt::Display for RegistryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.away, self.pending) {
            (None, 0) => f.write_str("ready"),
            (None, n) => write!(f, "waiting for {}", count(n as u64, "schema")),
            (Some(away), n) => {
                let secs = clock::now().0.saturating_sub(away.since.0).max(0) / 1_000_000;
                if away.tries == 0 {
                    let schemas = count(n as u64, "schema");
                    return write!(f, "{} for {secs} s, {schemas} to come", away.error);
                }
                write!(
                    f,
                    "away for {secs} s ({}), {} to come: {}",
                    count(away.tries, "attempt"),
                    count(n as u64, "schema"),
                    away.error
                )
            }
        }
    }
}

/// Registries count ids in Java's `int`, and say 404 without a code, as for a path that they don't have, to
/// more than that.
const ID_MAX: u32 = i32::MAX.unsigned_abs();

/// How long to wait for the registry.
#[derive(Clone, Copy, Debug)]
struct RegistryTimeouts {
    /// One request.
    request: Duration,
    /// One request, before people are told.
    silence: Duration,
    /// Pause after the first failure; doubles with every further one.
    pause_min: Duration,
    pause_max: Duration,
    /// Between two times that an unknown id is asked for again.
    again: Duration,
}

const PATIENCE: RegistryTimeouts = RegistryTimeouts {
    request: Duration::from_secs(10),
    silence: Duration::from_secs(2),
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(10),
    again: Duration::from_secs(10),
};

/// The registry, as one source sees it. Clones share what is known and the source's verdicts; each has its
/// own [`Registry::seen`].
pub struct Registry {
    shared: Arc<RegistryClient>,
    source: Arc<Mutex<Verdicts>>,
    /// How many of the source's news this clone has reported.
    reported: usize,
}

impl Clone for Registry {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            source: self.source.clone(),
            reported: 0,
        }
    }
}

struct RegistryClient {
    base: Url,
    login: Credentials,
    client: Client,
    handle: Handle,
    patience: RegistryTimeouts,
    /// How long "unknown" has to be said before it is believed.
    unknown_wait: Duration,
    silence: InFlight,
    /// Whether nobody is to wait any more.
    over: watch::Sender<bool>,
    state: Mutex<RegistryState>,
}

#[derive(Default)]
struct RegistryState {
    ids: HashMap<u32, SchemaEntry>,
    away: Option<Outage>,
    broken: Option<Error>,
    /// When an id was last waited for in vain.
    vain: Option<Instant>,
}

/// What the registry said of an id.
enum SchemaEntry {
    Pending(Vec<Waker>),
    Known(Arc<WriterSchema>),
    Unknown {
        /// When it was asked last.
        asked: Instant,
        /// Whether it has said so for long enough to be believed.
        sure: bool,
    },
}

impl Registry {
    /// A client of the registry at `url`, as in `http://127.0.0.1:8081` or
    /// `http://127.0.0.1:8080/apis/ccompat/v7`; requests run on `handle`. Nothing is connected yet. Fails if
    /// `url` is none, or neither `http` nor `https`.
    pub fn new(url: &str, handle: Handle) -> Result<Self> {
        Self::with_access(&RegistryAccess::open(url), handle)
    }

    /// The same with a login, and with certificates to trust.
    pub fn with_access(access: &RegistryAccess, handle: Handle) -> Result<Self> {
        Self::with_patience(access, handle, PATIENCE)
    }

    fn with_patience(access: &RegistryAccess, handle: Handle, patience: RegistryTimeouts) -> Result<Self> {
        let base = access.base()?;
        // The registry is a neighbour: a proxy for the way out to the internet is none of its business.
        let client = Client::builder()
            .no_proxy()
            .connect_timeout(patience.request)
            .timeout(patience.request);
        let client = access
            .trusted(client)?
            .build()
            .map_err(|error| wrong().detail(error))?;
        Ok(Self::with_client(access, base, client, handle, patience))
    }

    fn with_client(
        access: &RegistryAccess,
        base: Url,
        client: Client,
        handle: Handle,
        patience: RegistryTimeouts,
    ) -> Self {
        let shared = RegistryClient {
            base,
            login: access.login.clone(),
            client,
            handle,
            patience,
            unknown_wait: access.unknown_wait,
            silence: InFlight::default(),
            over: watch::Sender::new(false),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            source: Arc::default(),
            reported: 0,
        }
    }

    /// A registry for decoders that never ask it. All of them have one client: making one reads all
    /// certificates that the system trusts, which is more work than most tests.
    #[cfg(test)]
    pub(crate) fn never_asked() -> Self {
        use std::sync::LazyLock;
        static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.build().expect("a runtime of this thread")
        });
        static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);
        let access = RegistryAccess::open("http://127.0.0.1:9");
        let base = access.base().expect("the address is one");
        Self::with_client(&access, base, CLIENT.clone(), RUNTIME.handle().clone(), PATIENCE)
    }

    /// The same registry for a source of its own: nothing is bound there yet.
    pub fn of_source(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            source: Arc::default(),
            reported: 0,
        }
    }

    /// Gives the text of `id` from elsewhere than the registry: kept with the ledger, or registered by this
    /// process. A text other than the bound one is an error of [`Registry::broken`].
    pub fn provide(&self, schema: WriterSchema) {
        let id = schema.id;
        self.shared
            .settle(id, SchemaEntry::Known(Arc::new(schema)), false);
        self.source.lock().check(id, &self.shared);
    }

    /// Set when the registry contradicts the ledger: going on would give wrong answers. Wakers are called for
    /// it too.
    pub fn broken(&self) -> Option<Error> {
        self.shared.state.lock().broken.clone()
    }

    /// How the registry does.
    pub fn status(&self) -> RegistryStatus {
        let state = self.shared.state.lock();
        let pending = state
            .ids
            .values()
            .filter(|entry| matches!(entry, SchemaEntry::Pending(_)))
            .count();
        let silent = || {
            let waited = self.shared.silence.lasts(self.shared.patience.silence)?;
            Some(Outage {
                since: clock::now().minus(waited),
                tries: 0,
                error: "it has not answered".to_owned(),
            })
        };
        RegistryStatus {
            pending,
            away: state.away.clone().or_else(silent),
        }
    }

    /// Where it is, without what nobody should see.
    fn address(&self) -> String {
        let base = &self.shared.base;
        let port = base.port().map_or(String::new(), |port| format!(":{port}"));
        format!(
            "{}://{}{port}",
            base.scheme(),
            base.host_str().unwrap_or_default()
        )
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("host", &self.shared.base.host_str())
            .finish_non_exhaustive()
    }
}

impl RegistryClient {
    fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.client.request(method, url).header("accept", CONTENT_TYPE)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, String> {
        let _asking = self.silence.ask();
        exchange(request, &self.login).await
    }
}

#[cfg(test)]
mod tests;
