//! Asking for ids, until something is known of them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use super::exchange::SchemaBody;
use super::references::Incomplete;
use super::{ID_MAX, Outage, RegistryClient, SCHEMA_NOT_FOUND, SchemaEntry, WriterSchema};
use crate::bridge::Waker;
use crate::clock;
use crate::time::EventTime;

/// What a request came to.
pub(super) enum FetchOutcome {
    Schema(WriterSchema),
    /// Why there is none that can be read.
    None(String),
}

/// What is known of an id, whatever a source's verdict on it is.
pub(super) enum KnownSchema {
    Schema(Arc<WriterSchema>),
    No,
    Pending,
}

impl RegistryClient {
    /// What the registry says of `id`, asked for if that is not known, or was unknown when it was asked long
    /// ago; `waker` is called then.
    pub(super) fn look(self: &Arc<Self>, id: u32, waker: Option<&Waker>) -> KnownSchema {
        let (now, again) = (clock::instant(), self.patience.again);
        self.ask_if(id, waker, |entry| match entry {
            None => Some(RetryPolicy::UntilAnswered),
            Some(SchemaEntry::Unknown { asked, sure }) if !sure || now.duration_since(*asked) >= again => {
                Some(RetryPolicy::UntilAnswered)
            }
            Some(_) => None,
        })
    }

    /// The same of an id that was unknown: asked for again now and then, once. An outage changes nothing.
    pub(super) fn look_again(self: &Arc<Self>, id: u32, waker: Option<&Waker>) -> KnownSchema {
        let (now, again) = (clock::instant(), self.patience.again);
        self.ask_if(id, waker, |entry| match entry {
            None => Some(RetryPolicy::Once { sure: false }),
            Some(SchemaEntry::Unknown { asked, sure }) if now.duration_since(*asked) >= again => {
                Some(RetryPolicy::Once { sure: *sure })
            }
            Some(_) => None,
        })
    }

    fn ask_if(
        self: &Arc<Self>,
        id: u32,
        waker: Option<&Waker>,
        when: impl FnOnce(Option<&SchemaEntry>) -> Option<RetryPolicy>,
    ) -> KnownSchema {
        if id > ID_MAX {
            return KnownSchema::No;
        }
        let mut state = self.state.lock();
        if let Some(persistence) = when(state.ids.get(&id)) {
            if state.away.is_some() && matches!(persistence, RetryPolicy::Once { .. }) {
                return KnownSchema::No;
            }
            state
                .ids
                .insert(id, SchemaEntry::Pending(waker.cloned().into_iter().collect()));
            drop(state);
            self.handle.spawn(pursue(Arc::downgrade(self), id, persistence));
            return KnownSchema::Pending;
        }
        match state.ids.get_mut(&id) {
            Some(SchemaEntry::Known(schema)) => KnownSchema::Schema(schema.clone()),
            Some(SchemaEntry::Pending(wakers)) => {
                wakers.extend(waker.cloned());
                KnownSchema::Pending
            }
            Some(SchemaEntry::Unknown { .. }) | None => KnownSchema::No,
        }
    }

    /// Takes in what was found out, unless the id is known meanwhile.
    pub(super) fn settle(&self, id: u32, entry: SchemaEntry, asked: bool) {
        let mut state = self.state.lock();
        if asked {
            state.away = None;
        }
        if matches!(state.ids.get(&id), Some(SchemaEntry::Known(_))) {
            return;
        }
        let before = state.ids.insert(id, entry);
        drop(state);
        if let Some(SchemaEntry::Pending(wakers)) = before {
            wakers.iter().for_each(Waker::wake);
        }
    }

    /// Wakes those who wait for `id`, who may have another reason to look.
    pub(super) fn refetch(&self, id: u32) {
        let wakers = match self.state.lock().ids.get(&id) {
            Some(SchemaEntry::Pending(wakers)) => wakers.clone(),
            _ => return,
        };
        wakers.iter().for_each(Waker::wake);
    }

    /// Notes a failure of a try; says whether `id` still waits for an answer.
    fn failed(&self, id: u32, begun: EventTime, error: String) -> bool {
        let mut state = self.state.lock();
        let first = || Outage {
            since: begun,
            tries: 0,
            error: String::new(),
        };
        let away = state.away.get_or_insert_with(first);
        away.tries += 1;
        away.error = error;
        matches!(state.ids.get(&id), Some(SchemaEntry::Pending(_)))
    }

    pub(super) async fn ask(&self, id: u32) -> Result<FetchOutcome, String> {
        let request = self.request(Method::GET, &["schemas", "ids", &id.to_string()]);
        let answer = self.send(request).await?;
        if answer.status == StatusCode::NOT_FOUND && answer.error_code() == Some(SCHEMA_NOT_FOUND) {
            return Ok(FetchOutcome::None(format!("it does not know schema {id}")));
        }
        match self.complete(answer.expect::<SchemaBody>()?, id).await {
            Ok(schema) => Ok(FetchOutcome::Schema(schema)),
            Err(Incomplete::Failed(why)) => Err(why),
            Err(Incomplete::Nonsense(why)) => Ok(FetchOutcome::None(why + &self.subjects(id).await)),
        }
    }

    /// The subjects that a schema is registered under, for people; nothing if the registry does not say.
    async fn subjects(&self, id: u32) -> String {
        let request = self.request(Method::GET, &["schemas", "ids", &id.to_string(), "subjects"]);
        let answer = self.send(request).await;
        match answer.and_then(|answer| answer.expect::<Vec<String>>()) {
            Ok(subjects) if !subjects.is_empty() => format!(" (subject {})", subjects.join(", ")),
            _ => String::new(),
        }
    }

    /// How long an id that the registry does not know is waited for. After a wait in vain it is a tenth of
    /// the time since then: a topic full of rubbish, each record with an id of its own, costs a tenth of the
    /// time and not all of it.
    pub(super) fn doubt(&self) -> Duration {
        let vain = self.state.lock().vain;
        let earned = vain.map_or(Duration::MAX, |vain| clock::instant().duration_since(vain) / 10);
        self.unknown_wait.min(earned)
    }
}

/// How long an id is asked for.
#[derive(Clone, Copy)]
enum RetryPolicy {
    /// Until there is an answer that can be believed.
    UntilAnswered,
    /// One time. If nothing comes of it, it stays unknown.
    Once { sure: bool },
}

/// Asks for `id` until something is known of it, or nobody is left to hear it.
async fn pursue(registry: Weak<RegistryClient>, id: u32, persistence: RetryPolicy) {
    let mut pause = Duration::ZERO;
    // Since when the registry has been saying that it has none, and how long it has to.
    let mut doubt: Option<(Instant, Duration)> = None;
    while let Some(shared) = registry.upgrade() {
        let begun = clock::now();
        let answer = shared.ask(id).await;
        let now = clock::instant();
        let unknown = |sure| SchemaEntry::Unknown { asked: now, sure };
        let error = match (answer, persistence) {
            (Ok(FetchOutcome::Schema(schema)), _) => {
                return shared.settle(id, SchemaEntry::Known(Arc::new(schema)), true);
            }
            (Ok(FetchOutcome::None(_)), RetryPolicy::Once { sure }) => {
                return shared.settle(id, unknown(sure), true);
            }
            (Err(_), RetryPolicy::Once { sure }) => return shared.settle(id, unknown(sure), false),
            (Ok(FetchOutcome::None(why)), _) => {
                let (since, patience) = *doubt.get_or_insert_with(|| (now, shared.doubt()));
                let waited = now.duration_since(since);
                if waited >= patience {
                    tracing::warn!(
                        schema = id,
                        reason = %why,
                        "unknown schema; its records become dead letters until the registry has it"
                    );
                    shared.state.lock().vain = Some(now);
                    return shared.settle(id, unknown(true), true);
                }
                let left = patience - waited;
                pause = pause.min(left);
                format!("{why}; asked again for {left:.0?}, then its records become dead letters")
            }
            (Err(error), _) => {
                // What it said before it went away may be out of date.
                doubt = None;
                error
            }
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
