//! Client of a schema registry that speaks Confluent's REST API (Confluent, Apicurio, Karapace, Redpanda).
//!
//! ```text
//!   worker                       tokio
//!   lookup(id) ── first call ──▶ task: GET /schemas/ids/{id}
//!      │ Pending                   │ 200                → Known    ┐ verdicts: kept for ever,
//!      │                           │ 404, code 40403    → Unknown  ┘ wakers called
//!      │                           │ anything else      → away: tried again, ever more slowly
//!   lookup(id) ◀── waker ──────────┘
//! ```
//!
//! A verdict decides what records become, so it goes into the ledger: [`Registry::seen`] reports it, and a replay
//! brings it back with [`Registry::bind`]. A plain 404 is no verdict: a proxy in front of a registry that is down says
//! 404 too. Nor is a text that is no schema. Ids that no registry can have are not asked for.

pub mod access;
mod exchange;
mod rules;
mod silence;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

pub use self::rules::Ruling;

use self::access::{Access, Login, wrong};
use self::exchange::{Response, SchemaBody, exchange};
use self::silence::Silence;
use crate::bridge::Waker;
use crate::clock;
use crate::error::{Error, Result, count};
use crate::time::EventTime;

/// The registry's code for "no schema has this id".
const SCHEMA_NOT_FOUND: u32 = 40403;
/// Its codes for "no such subject" and "no such version of it".
const SUBJECT_NOT_FOUND: u32 = 40401;
const VERSION_NOT_FOUND: u32 = 40402;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A fixed hash of a schema's text: what the ledger knows a schema by.
pub fn fingerprint(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSchema {
    /// The registry's id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// [`fingerprint`] of the text.
    pub fingerprint: u64,
    /// Whether it is an Avro schema that stands alone: neither JSON Schema nor Protobuf, no references to others.
    pub avro: bool,
}

impl WriterSchema {
    /// An Avro schema.
    pub fn new(id: u32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            id,
            fingerprint: fingerprint(&text),
            text,
            avro: true,
        }
    }
}

/// What is known of a schema id now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The schema.
    Known(Arc<WriterSchema>),
    /// The registry said that there is no such schema, or the ledger says that it once did.
    Unknown,
    /// Not known yet.
    Pending,
}

/// How the registry does: for people and for health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Ids that wait for an answer.
    pub pending: usize,
    /// Set while the registry does not do its part.
    pub away: Option<Away>,
}

/// Since when the registry is away, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// When the first try that failed was begun.
    pub since: EventTime,
    /// Tries that failed since. None: the first one has no answer yet.
    pub tries: u64,
    /// What came of the last one.
    pub error: String,
}

impl fmt::Display for Status {
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

/// Registries count ids in Java's `int`, and say 404 without a code, as for a path that they don't have, to more than that.
const ID_MAX: u32 = i32::MAX.unsigned_abs();

/// How long to wait for the registry.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// One request.
    request: Duration,
    /// One request, before people are told.
    silence: Duration,
    /// Pause after the first failure; doubles with every further one.
    pause_min: Duration,
    pause_max: Duration,
}

const PATIENCE: Patience = Patience {
    request: Duration::from_secs(10),
    silence: Duration::from_secs(2),
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(10),
};

/// The registry of one source. Clones share what is known; each clone has its own [`Registry::seen`].
pub struct Registry {
    shared: Arc<Shared>,
    /// How many of `State::resolved` this clone has reported.
    reported: usize,
}

impl Clone for Registry {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            reported: 0,
        }
    }
}

struct Shared {
    base: Url,
    login: Login,
    client: Client,
    handle: Handle,
    patience: Patience,
    silence: Silence,
    /// Whether nobody is to wait any more.
    over: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ids: HashMap<u32, Entry>,
    /// What the ledger has bound ids to.
    bound: HashMap<u32, u64>,
    /// Verdicts in the order in which they came, without those that came from the ledger.
    resolved: Vec<(u32, Option<u64>)>,
    away: Option<Away>,
    broken: Option<Error>,
}

enum Entry {
    Pending(Vec<Waker>),
    Known(Arc<WriterSchema>),
    Unknown,
}

/// What a request came to.
enum Answer {
    Schema(WriterSchema),
    NoSuchSchema,
}

impl Registry {
    /// A client of the registry at `url`, as in `http://127.0.0.1:8081` or `http://127.0.0.1:8080/apis/ccompat/v7`;
    /// requests run on `handle`. Nothing is connected yet. Fails if `url` is none, or neither `http` nor `https`.
    pub fn new(url: &str, handle: Handle) -> Result<Self> {
        Self::with_access(&Access::open(url), handle)
    }

    /// The same with a login, and with certificates to trust.
    pub fn with_access(access: &Access, handle: Handle) -> Result<Self> {
        Self::with_patience(access, handle, PATIENCE)
    }

    fn with_patience(access: &Access, handle: Handle, patience: Patience) -> Result<Self> {
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
        let shared = Shared {
            base,
            login: access.login.clone(),
            client,
            handle,
            patience,
            silence: Silence::default(),
            over: watch::Sender::new(false),
            state: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            reported: 0,
        })
    }

    /// What is known of `id`. The first call starts to ask for it; on [`Lookup::Pending`], `waker` is called when there
    /// is a verdict. Never blocks.
    pub fn lookup(&self, id: u32, waker: &Waker) -> Lookup {
        let mut state = self.shared.state.lock();
        match state.ids.get_mut(&id) {
            Some(Entry::Pending(wakers)) => {
                wakers.push(waker.clone());
                Lookup::Pending
            }
            Some(entry) => entry.look(),
            None => {
                state.ids.insert(id, Entry::Pending(vec![waker.clone()]));
                drop(state);
                if id > ID_MAX {
                    self.shared.settle(id, Answer::NoSuchSchema, false);
                    return self.peek(id);
                }
                self.shared.handle.spawn(pursue(Arc::downgrade(&self.shared), id));
                Lookup::Pending
            }
        }
    }

    /// What is known of `id`, asking nobody.
    pub fn peek(&self, id: u32) -> Lookup {
        self.shared
            .state
            .lock()
            .ids
            .get(&id)
            .map_or(Lookup::Pending, Entry::look)
    }

    /// Binds `id` to the ledger's verdict. `None`: it is unknown, whatever the registry says by now. A fingerprint: its
    /// schema is that one, and another is an error of [`Registry::broken`]. To be called before the records that the
    /// verdict is for are read; decoders keep what they were told.
    pub fn bind(&self, id: u32, verdict: Option<u64>) {
        let mut state = self.shared.state.lock();
        let wakers = match verdict {
            None => {
                state.bound.remove(&id);
                state.ids.insert(id, Entry::Unknown).map(Entry::wakers)
            }
            Some(expected) => {
                state.bound.insert(id, expected);
                match state.ids.get(&id) {
                    Some(Entry::Known(schema)) if schema.fingerprint != expected => {
                        let found =
                            format!("the registry's text has fingerprint {:016x}", schema.fingerprint);
                        state.broken.get_or_insert_with(|| broken(id, expected, &found));
                        None
                    }
                    // Unknown once, known when this was bound: ask again.
                    Some(Entry::Unknown) => state.ids.remove(&id).map(Entry::wakers),
                    _ => None,
                }
            }
        };
        drop(state);
        wakers.into_iter().flatten().for_each(|waker| waker.wake());
    }

    /// Gives the text of `id` from elsewhere than the registry: kept with the ledger, or registered by this process.
    /// A text other than the bound one is an error of [`Registry::broken`].
    pub fn provide(&self, schema: WriterSchema) {
        self.shared.settle(schema.id, Answer::Schema(schema), false);
    }

    /// Verdicts that came since the last call: id and fingerprint, or `None` for an unknown id. Those that the ledger
    /// had bound are left out. Every verdict that a decoder has gone by is in here or was before, as a decoder can't
    /// know of it sooner.
    pub fn seen(&mut self) -> Vec<(u32, Option<u64>)> {
        let state = self.shared.state.lock();
        let news = state.resolved[self.reported..].to_vec();
        self.reported = state.resolved.len();
        news
    }

    /// Set when the registry contradicts the ledger: going on would give wrong answers. Wakers are called for it too.
    pub fn broken(&self) -> Option<Error> {
        self.shared.state.lock().broken.clone()
    }

    /// How the registry does.
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        let pending = state
            .ids
            .values()
            .filter(|entry| matches!(entry, Entry::Pending(_)))
            .count();
        let silent = || {
            let waited = self.shared.silence.lasts(self.shared.patience.silence)?;
            Some(Away {
                since: clock::now().minus(waited),
                tries: 0,
                error: "it has not answered".to_owned(),
            })
        };
        Status {
            pending,
            away: state.away.clone().or_else(silent),
        }
    }

    /// Registers `text` under `subject` and gives its id; the same text has the same id every time. To be awaited on a
    /// tokio runtime.
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32> {
        #[derive(Deserialize)]
        struct Registered {
            id: u32,
        }
        let body = serde_json::json!({ "schema": text }).to_string();
        let request = self
            .shared
            .request(Method::POST, &["subjects", subject, "versions"]);
        let request = request.header("content-type", CONTENT_TYPE).body(body);
        let answer = self.shared.send(request).await;
        let registered = answer.and_then(|answer| answer.expect::<Registered>());
        Ok(registered
            .map_err(|error| subject_error("cannot register a schema", subject, error))?
            .id)
    }

    /// The newest schema of `subject`. To be awaited on a tokio runtime.
    pub async fn latest(&self, subject: &str) -> Result<Arc<WriterSchema>> {
        let missing = || {
            subject_error(
                "cannot get a schema",
                subject,
                "there is no such subject".to_owned(),
            )
        };
        Ok(self.version(subject, None).await?.ok_or_else(missing)?.1)
    }

    /// A version of `subject`, the newest where none is named, with its number; `None` where the registry has no such
    /// subject or version. To be awaited on a tokio runtime.
    pub async fn version(
        &self,
        subject: &str,
        version: Option<u32>,
    ) -> Result<Option<(u32, Arc<WriterSchema>)>> {
        #[derive(Deserialize)]
        struct Version {
            id: u32,
            version: u32,
            #[serde(flatten)]
            body: SchemaBody,
        }
        let named = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = ["subjects", subject, "versions", &named];
        let failed = |error| subject_error("cannot get a schema", subject, error);
        let answer = self
            .shared
            .send(self.shared.request(Method::GET, &path))
            .await
            .map_err(failed)?;
        if answer.status == StatusCode::NOT_FOUND
            && matches!(answer.error_code(), Some(SUBJECT_NOT_FOUND | VERSION_NOT_FOUND))
        {
            return Ok(None);
        }
        let Version { id, version, body } = answer.expect::<Version>().map_err(failed)?;
        Ok(Some((version, Arc::new(body.into_schema(id).map_err(failed)?))))
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

impl Entry {
    fn look(&self) -> Lookup {
        match self {
            Entry::Pending(_) => Lookup::Pending,
            Entry::Known(schema) => Lookup::Known(schema.clone()),
            Entry::Unknown => Lookup::Unknown,
        }
    }

    fn wakers(self) -> Vec<Waker> {
        match self {
            Entry::Pending(wakers) => wakers,
            Entry::Known(_) | Entry::Unknown => Vec::new(),
        }
    }
}

/// Asks for `id` until there is a verdict, or nobody is left to hear it.
async fn pursue(registry: Weak<Shared>, id: u32) {
    let mut pause = Duration::ZERO;
    while let Some(shared) = registry.upgrade() {
        let begun = clock::now();
        let error = match shared.ask(id).await {
            Ok(answer) => return shared.settle(id, answer, true),
            Err(error) => error,
        };
        if !shared.failed(id, begun, error) {
            return;
        }
        pause = pause.clamp(shared.patience.pause_min, shared.patience.pause_max);
        drop(shared);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

impl Shared {
    /// Notes a failure of a try; says whether `id` still waits for an answer.
    fn failed(&self, id: u32, begun: EventTime, error: String) -> bool {
        let mut state = self.state.lock();
        let first = || Away {
            since: begun,
            tries: 0,
            error: String::new(),
        };
        let away = state.away.get_or_insert_with(first);
        away.tries += 1;
        away.error = error;
        matches!(state.ids.get(&id), Some(Entry::Pending(_)))
    }

    async fn ask(&self, id: u32) -> Result<Answer, String> {
        let request = self.request(Method::GET, &["schemas", "ids", &id.to_string()]);
        let answer = self.send(request).await?;
        if answer.status == StatusCode::NOT_FOUND && answer.error_code() == Some(SCHEMA_NOT_FOUND) {
            return Ok(Answer::NoSuchSchema);
        }
        Ok(Answer::Schema(answer.expect::<SchemaBody>()?.into_schema(id)?))
    }

    /// Takes an answer in, unless the id was settled meanwhile.
    fn settle(&self, id: u32, answer: Answer, asked: bool) {
        let mut state = self.state.lock();
        if asked {
            state.away = None;
        }
        if !matches!(state.ids.get(&id), Some(Entry::Pending(_)) | None) {
            return;
        }
        let expected = state.bound.get(&id).copied();
        let (found, entry) = match answer {
            Answer::Schema(schema) => (Some(schema.fingerprint), Entry::Known(Arc::new(schema))),
            Answer::NoSuchSchema => (None, Entry::Unknown),
        };
        let entry = match (expected, found) {
            (Some(expected), found) if found != Some(expected) => {
                let found = match found {
                    Some(found) => format!("the registry's text has fingerprint {found:016x}"),
                    None => "the registry does not know the id any more".to_owned(),
                };
                state.broken.get_or_insert_with(|| broken(id, expected, &found));
                Entry::Pending(Vec::new())
            }
            (Some(_), _) => entry,
            (None, found) => {
                state.resolved.push((id, found));
                entry
            }
        };
        let wakers = state.ids.insert(id, entry).map_or(Vec::new(), Entry::wakers);
        drop(state);
        wakers.iter().for_each(Waker::wake);
    }

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

fn broken(id: u32, expected: u64, found: &str) -> Error {
    Error::integrity(format!("schema {id} is not the one that the ledger is bound to"))
        .detail(format!("the ledger's has fingerprint {expected:016x}"))
        .detail(found)
        .hint("point the registry's address at the registry that the records were written with, or start afresh")
}

fn subject_error(what: &str, subject: &str, error: String) -> Error {
    Error::outside(format!("{what} of subject `{subject}`"))
        .detail(error)
        .hint("check the registry's address, and the subject's compatibility if the schema was refused")
}

#[cfg(test)]
mod tests;
