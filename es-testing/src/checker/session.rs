//! Makes calls and records them.

use std::{sync::Arc, time::Duration};

use super::{
    content,
    history::{Call, CallId, Found, Outcome, Record},
    plan::Plan,
    polls,
    recorder::Recorder,
    sent::Sent,
};
use es_core::{Append, AppendError, Appended, EventStore, IdempotencyKey, Position, ReadError, RecordedEvent, Version};

/// How long a call may take, on a heavily loaded machine, before it counts as stuck.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

/// The state that the clients and readers of one process share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) plan: Arc<Plan>,
    pub(super) process: u32,
    /// The same store, opened several times as different processes would. Appends of one client go through different ones.
    pub(super) stores: Vec<Arc<dyn EventStore>>,
    pub(super) recorder: Arc<Recorder>,
}

impl Session {
    /// Makes an append, or several together, and records it.
    pub(super) async fn append(
        &self,
        id: CallId,
        store: usize,
        appends: Vec<(Append, Sent)>,
        drop_after: Option<u32>,
    ) -> Outcome {
        let (mut appends, mut sent): (Vec<_>, Vec<_>) = appends.into_iter().unzip();
        let alone = if appends.len() == 1 { appends.pop().zip(sent.pop()) } else { None };
        let outcome = if let Some((append, sent)) = alone {
            self.record_call(id, store, Call::Append(sent));
            let call = self.store(store).append(append);
            bounded(drop_after, async { call.await.map_or_else(|error| append_error(&error), appended) }).await
        } else {
            self.record_call(id, store, Call::AppendTogether(sent));
            let call = self.store(store).append_together(appends);
            bounded(drop_after, async { call.await.map_or_else(|error| append_error(&error), together) }).await
        };
        self.record_return(id, outcome)
    }

    /// Makes any other call and records it.
    pub(super) async fn read(&self, id: CallId, store: usize, call: Call, drop_after: Option<u32>) -> Outcome {
        self.record_call(id, store, call.clone());
        let outcome = bounded(drop_after, self.make(store, call)).await;
        self.record_return(id, outcome)
    }

    /// Makes a call and records it. If `end` is ready first, the call is dropped, and the outcome is that of `end`.
    pub(super) async fn read_until(&self, id: CallId, call: Call, end: impl Future<Output = Outcome>) -> Outcome {
        self.record_call(id, 0, call.clone());
        let outcome = tokio::select! {
            outcome = self.make(0, call) => outcome,
            outcome = end => outcome,
        };
        self.record_return(id, outcome)
    }

    async fn make(&self, store: usize, call: Call) -> Outcome {
        let store = self.store(store);
        let outcome = match call {
            // These calls go through `append`, which has the events.
            Call::Append(_) | Call::AppendTogether(_) => Ok(Outcome::Dropped),
            Call::ReadStream { stream, after, limit } => {
                store.read_stream(&stream, Version::new(after), limit).await.map(|page| events(&page))
            }
            Call::ReadLog { after, limit } => {
                store.read_log(Position::new(after), limit).await.map(|page| events(&page))
            }
            Call::ReadMatching { query, after, limit } => {
                store.read_matching(&(&query).into(), Position::new(after), limit).await.map(|page| events(&page))
            }
            Call::Head => store.head().await.map(|head| Outcome::Head(head.get())),
            Call::WaitPast { after } => store.wait_past(Position::new(after)).await.map(|()| Outcome::Woken),
            Call::FindCommand { stream, key } => {
                let key = IdempotencyKey::new(key).expect("a valid key");
                store.find_command(&stream, &key).await.map(|found| {
                    Outcome::Command(found.map(|record| Found {
                        fingerprint: format!("{:?}", record.fingerprint),
                        version: record.appended.version.get(),
                        position: record.appended.position.get(),
                    }))
                })
            }
        };
        outcome.unwrap_or_else(|error| read_error(&error))
    }

    fn store(&self, number: usize) -> &dyn EventStore {
        &*self.stores[number % self.stores.len()]
    }

    fn record_call(&self, id: CallId, store: usize, call: Call) {
        // Two stores of two processes have different numbers.
        let store = self.process * 1_000 + u32::try_from(store % self.stores.len()).unwrap_or(0);
        self.recorder.record(Record::Called { id, store, call });
    }

    fn record_return(&self, id: CallId, outcome: Outcome) -> Outcome {
        self.recorder.record(Record::Returned { id, outcome: outcome.clone() });
        outcome
    }
}

async fn bounded(drop_after: Option<u32>, call: impl Future<Output = Outcome>) -> Outcome {
    let call = tokio::time::timeout(PATIENCE, call);
    let outcome = match drop_after {
        Some(polls) => polls::drop_after(polls, call).await,
        None => Some(call.await),
    };
    outcome.map_or(Outcome::Dropped, |outcome| outcome.unwrap_or(Outcome::Stuck))
}

fn appended(Appended { version, position, repeated }: Appended) -> Outcome {
    Outcome::Appended { version: version.get(), position: position.get(), repeated }
}

fn together(outcomes: Vec<Appended>) -> Outcome {
    Outcome::Together(outcomes.into_iter().map(appended).collect())
}

fn append_error(error: &AppendError) -> Outcome {
    if let AppendError::Conflict(conflict) = error {
        let (expected, actual) = (conflict.expected.to_string(), conflict.actual.get());
        Outcome::Conflict { stream: conflict.stream.clone(), expected, actual }
    } else if let AppendError::ConditionFailed { position } = error {
        Outcome::ConditionFailed { position: position.get() }
    } else if let AppendError::Invalid(reason) = error {
        Outcome::Invalid { reason: format!("{reason:?}").chars().take(100).collect() }
    } else if let AppendError::KeyReused = error {
        Outcome::KeyReused
    } else if let AppendError::Refused(_) = error {
        Outcome::Refused { why: chain(error) }
    } else if let AppendError::Closed = error {
        Outcome::Closed
    } else {
        Outcome::Failed { why: chain(error) }
    }
}

fn events(page: &[RecordedEvent]) -> Outcome {
    Outcome::Events(page.iter().map(content::seen).collect())
}

fn read_error(error: &ReadError) -> Outcome {
    if let ReadError::Store(_) = error {
        Outcome::Failed { why: chain(error) }
    } else {
        Outcome::Alarm { why: chain(error) }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
