//! Performs the actions of a saga, and wakes its timers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    ActionContext, ActionError, Instance, Saga, SagaCommand,
    event::{Advanced, Attempted, Decided, SagaEvent},
    instance::Waiting,
    overview::{Instances, Overview},
    queue::{Due, Queue},
};
use crate::{
    backoff::Backoff,
    error::with_causes,
    read::{
        panics::{Panicked, caught_async},
        query::{QueryError, ReadModel},
    },
    write::{
        execute::{ExecuteError, Repository},
        store::{EventStore, ReadError},
    },
};

/// How many instances the read model is asked for at once.
const PAGE: usize = 500;
/// The shortest pause between two looks at the read model.
const SHORTEST: Duration = Duration::from_millis(20);
/// The longest: a timer that another process has set is noticed within this time, and what a process has left behind that was killed.
const LONGEST: Duration = Duration::from_millis(500);
/// How long the read model may be behind what was heard of, as a rule.
const LATE: Duration = Duration::from_millis(200);
/// How old an instance may be that was read, at most.
const OUT_OF_DATE: Duration = Duration::from_mins(1);
/// The pauses after a failure of the store.
const STORE_FAILED: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// Does what instances of `S` have decided, while this process holds the right to.
pub(super) struct Performer<S: Saga> {
    pub(super) saga: S,
    pub(super) instances: Repository<Instance<S>>,
    pub(super) overview: ReadModel<Instances<S>>,
    pub(super) log: Arc<dyn EventStore>,
    pub(super) queue: Queue,
    /// Whether this process performs.
    pub(super) holds: watch::Sender<bool>,
    /// The last time before the next look at which something is due that was heard of.
    due_soon: watch::Sender<Instant>,
    /// At how many instances it works at the same time.
    pub(super) most: usize,
    /// The actions that are being performed here, or were a moment ago.
    performed: Mutex<HashMap<(String, u64), Performed>>,
    /// The timers that were woken here and that the read model may still show.
    woken: Mutex<HashSet<(String, u64)>>,
}

/// What became of an action here.
#[derive(Debug, Clone, Copy)]
enum Performed {
    /// It is being performed.
    Now,
    /// The instance was told that. One that was read before is out of date: it knows of fewer attempts.
    Told { attempts: u32, at: Instant },
}

impl<S: Saga> Performer<S> {
    pub(super) fn new(
        saga: S,
        instances: Repository<Instance<S>>,
        overview: ReadModel<Instances<S>>,
        log: Arc<dyn EventStore>,
    ) -> Self {
        let (queue, holds, due_soon) =
            (Queue::default(), watch::Sender::new(false), watch::Sender::new(Instant::now()));
        let (performed, woken) = (Mutex::default(), Mutex::default());
        Self { saga, instances, overview, log, queue, holds, due_soon, most: 64, performed, woken }
    }

    /// Looks at an instance to which `event` has happened, or for what is due because of it.
    pub(super) fn hears(&self, id: &str, event: &SagaEvent<S>) {
        match event {
            SagaEvent::Advanced(Advanced { decided, .. }) => {
                self.queue.push(id, Due::default());
                for decided in decided {
                    if let Decided::SetTimer { after, .. } = decided {
                        self.is_due(*after);
                    }
                }
            }
            SagaEvent::Attempted(Attempted { again_after: Some(after), .. }) => self.is_due(*after),
            SagaEvent::Retried(_) => {
                // Its attempts count from the beginning again.
                self.performed().retain(|(of, _), performed| of != id || matches!(performed, Performed::Now));
                self.queue.push(id, Due::default());
            }
            _ => {}
        }
    }

    /// Something is due after this time.
    fn is_due(&self, after: Duration) {
        let now = Instant::now();
        if let Some(due) = now.checked_add(after).filter(|due| *due < now + LONGEST) {
            self.due_soon.send_if_modified(|soon| {
                let is_first = *soon < now;
                *soon = if is_first { due } else { (*soon).max(due) };
                is_first
            });
        }
    }

    /// Works for as long as this process may, again and again.
    pub(super) async fn run(self: Arc<Self>) {
        let mut holds = self.holds.subscribe();
        loop {
            // The sender lives as long as `self`.
            _ = holds.wait_for(|holds| *holds).await;
            tokio::select! {
                _ = holds.wait_for(|holds| !*holds) => {}
                () = self.clone().work() => {}
            }
            self.queue.clear();
        }
    }

    async fn work(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let (mut look, mut soon) = (Instant::now(), self.due_soon.subscribe());
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    // What an action panics with is caught.
                    if let Err(error) = ended {
                        tracing::error!(saga = S::NAME, %error, "a task of the performer has ended");
                    }
                }
                (id, due) = self.queue.next(), if tasks.len() < self.most => {
                    let performer = self.clone();
                    tasks.spawn(async move { performer.look_at(&id, due).await });
                }
                // The sender lives as long as `self`.
                _ = soon.changed() => look = look.min(Instant::now() + SHORTEST),
                () = tokio::time::sleep_until(look) => {
                    let pause = self.look().await;
                    let now = Instant::now();
                    // The read model shows what was heard of a bit later.
                    let expects = now < *soon.borrow() + LATE;
                    look = now + if expects { SHORTEST } else { pause };
                }
            }
        }
    }

    /// Takes what is due from the read model, and returns how long to wait before the next time.
    async fn look(&self) -> Duration {
        if self.queue.len() >= PAGE {
            return SHORTEST;
        }
        match self.due().await {
            Ok(pause) => pause,
            // It is not built yet: what happens meanwhile is heard of.
            Err(LookError::Query(QueryError::Building { .. })) => LONGEST,
            Err(error) => {
                tracing::warn!(saga = S::NAME, error = %with_causes(&error), "cannot look for what is due");
                2 * LONGEST
            }
        }
    }

    async fn due(&self) -> Result<Duration, LookError> {
        let now = self.log.now().await?;
        let page = self.overview.find(Overview::DUE.range(..=now), PAGE).await?;
        let mut shown = HashSet::new();
        for (id, overview) in &page.documents {
            let mut timers: Vec<_> = overview.timers.iter().filter(|(_, timer)| timer.due <= now).collect();
            timers.sort_by_key(|(_, timer)| timer.due);
            let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = |number: u64| !woken.contains(&(id.clone(), number));
            let timers: Vec<_> = timers.into_iter().map(|(name, timer)| (name.clone(), timer.number)).collect();
            shown.extend(timers.iter().map(|(_, number)| (id.clone(), *number)));
            let timers: Vec<_> = timers.into_iter().filter(|(_, number)| is_new(*number)).collect();
            drop(woken);
            let actions = overview.actions.iter().filter(|(_, action)| action.due <= now);
            let performed = self.performed();
            let actions = actions.filter(|(number, _)| !performed.contains_key(&(id.clone(), **number)));
            let actions: BTreeMap<_, _> = actions.map(|(number, action)| (*number, action.attempts)).collect();
            drop(performed);
            if !timers.is_empty() || !actions.is_empty() {
                self.queue.push(id, Due { timers, actions });
            }
        }
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).retain(|timer| shown.contains(timer));
        self.performed().retain(|_, performed| match performed {
            Performed::Now => true,
            Performed::Told { at, .. } => at.elapsed() < OUT_OF_DATE,
        });
        if page.next.is_some() {
            return Ok(SHORTEST);
        }
        let next = self.overview.find(Overview::DUE.range(now..), 1).await?;
        let next = next.documents.first().map(|(_, overview)| until(overview, now));
        Ok(next.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST))
    }

    /// Wakes the timers of the instance `id` that are due, and performs its actions that are.
    async fn look_at(&self, id: &str, Due { timers, mut actions }: Due) {
        for (timer, number) in timers {
            self.tell(id, || SagaCommand::Fire { timer: timer.clone(), number }).await;
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).insert((id.to_owned(), number));
        }
        let instance = self.load(id).await;
        if !instance.is_under_way() {
            return;
        }
        let mut is_ready = |number: u64, waiting: &Waiting<S::Action>| {
            let is_due = waiting.attempts == 0 || actions.remove(&number) == Some(waiting.attempts);
            is_due && self.begins(id, number, waiting.attempts)
        };
        let ready = instance.actions().iter().filter(|(number, waiting)| is_ready(**number, waiting));
        let ready: Vec<_> = ready.collect();
        join_all(ready.into_iter().map(|(number, waiting)| self.perform(id, *number, waiting))).await;
    }

    fn performed(&self) -> MutexGuard<'_, HashMap<(String, u64), Performed>> {
        self.performed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an action of which so many attempts have failed is not being performed here, so that it can be.
    fn begins(&self, id: &str, number: u64, attempts: u32) -> bool {
        let (mut performed, action) = (self.performed(), (id.to_owned(), number));
        let is_free = match performed.get(&action) {
            None => true,
            Some(Performed::Now) => false,
            Some(Performed::Told { attempts: told, .. }) => attempts >= *told,
        };
        if is_free {
            performed.insert(action, Performed::Now);
        }
        is_free
    }

    /// One attempt at an action, and what the instance is told of it.
    async fn perform(&self, id: &str, number: u64, waiting: &Waiting<S::Action>) {
        /// Where the future is dropped, the action is not performed here any more.
        struct Dropped<'a, S: Saga>(&'a Performer<S>, (String, u64));
        impl<S: Saga> Drop for Dropped<'_, S> {
            fn drop(&mut self) {
                let mut performed = self.0.performed();
                if let Some(Performed::Now) = performed.get(&self.1) {
                    performed.remove(&self.1);
                }
            }
        }
        let dropped = Dropped(self, (id.to_owned(), number));
        let Waiting { action, attempts, metadata } = waiting;
        let attempt = attempts + 1;
        let (instance, metadata) = (id.to_owned(), metadata.clone());
        let context = ActionContext { saga: S::NAME, instance, action: number, attempt, metadata };
        let retry = S::retry(action);
        let done = tokio::time::timeout(retry.time_limit, caught_async(self.saga.perform(action, context))).await;
        let failed = |may_succeed: bool, cause: String| {
            let again = may_succeed && attempt < retry.attempts;
            tracing::warn!(
                saga = S::NAME,
                instance = id,
                action = number,
                attempt,
                again,
                cause,
                "an action has failed"
            );
            let again_after = again.then(|| retry.backoff.pause(attempt));
            Err(Attempted { action: number, attempts: attempt, cause, again_after })
        };
        let told = match done {
            Ok(Ok(Ok(answer))) => Ok(Ok(answer)),
            Ok(Ok(Err(ActionError::Refused(reason)))) => Ok(Err(reason)),
            Ok(Ok(Err(error))) => failed(error.is_transient(), with_causes(&error)),
            Ok(Err(Panicked)) => failed(true, "the action panicked".to_owned()),
            Err(_) => failed(true, format!("it took longer than {:?}", retry.time_limit)),
        };
        self.tell(id, || match &told {
            Ok(answer) => SagaCommand::Answer { action: number, answer: answer.clone() },
            Err(attempted) => SagaCommand::Attempted(attempted.clone()),
        })
        .await;
        let attempts = told.as_ref().map_or(attempt, |_| u32::MAX);
        self.performed().insert(dropped.1.clone(), Performed::Told { attempts, at: Instant::now() });
    }

    /// Tells the instance until the store has it.
    async fn tell(&self, id: &str, command: impl Fn() -> SagaCommand<S>) {
        let mut failures = 0;
        loop {
            let error = match self.instances.execute(id, command()).await {
                Ok(_) => return,
                Err(error) if error.is_transient() => error,
                Err(error) => return self.fail(id, &error).await,
            };
            failures += 1;
            tracing::warn!(saga = S::NAME, instance = id, error = %with_causes(&error), "the store has failed");
            tokio::time::sleep(STORE_FAILED.pause(failures)).await;
        }
    }

    /// The instance cannot be told what has become of it: it needs an operator.
    async fn fail(&self, id: &str, error: &ExecuteError<super::SagaError>) {
        let cause = with_causes(error);
        tracing::error!(saga = S::NAME, instance = id, cause, "an instance cannot go on");
        let mut failures = 0;
        while let Err(error) = self.instances.execute(id, SagaCommand::Fail { cause: cause.clone() }).await {
            if !error.is_transient() {
                tracing::error!(saga = S::NAME, instance = id, error = %with_causes(&error), "it is not marked as failed");
                return;
            }
            failures += 1;
            tokio::time::sleep(STORE_FAILED.pause(failures)).await;
        }
    }

    async fn load(&self, id: &str) -> Instance<S> {
        let mut failures = 0;
        loop {
            match self.instances.load(id).await {
                Ok(loaded) => return loaded.state,
                Err(error) if error.is_transient() => {
                    failures += 1;
                    tokio::time::sleep(STORE_FAILED.pause(failures)).await;
                }
                Err(error) => {
                    tracing::error!(saga = S::NAME, instance = id, error = %with_causes(&error), "it cannot be read");
                    return Instance::default();
                }
            }
        }
    }
}

/// How long until something of an instance is due.
fn until(overview: &Overview, now: DateTime<Utc>) -> Duration {
    let timers = overview.timers.values().map(|timer| timer.due);
    let due = overview.actions.values().map(|action| action.due).chain(timers).min();
    due.and_then(|due| (due - now).to_std().ok()).unwrap_or_default()
}

/// Why it is not known what is due.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Read(#[from] ReadError),
}
