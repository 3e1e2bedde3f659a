//! Performs the actions of a saga, and wakes its timers.

mod due;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::Instrument;

use super::{
    ActionContext, ActionError, Instance, Saga, SagaCommand, SagaError,
    event::{Advanced, Attempted, Decided, SagaEvent},
    instance::Waiting,
    overview::Instances,
    queue::{Attempts, Due, Queue},
};
use crate::{
    backoff::Backoff,
    error::with_causes,
    event::Metadata,
    read::{
        find::FieldCursor,
        panics::{Panicked, caught, caught_async},
        query::ReadModel,
    },
    stream::Version,
    telemetry::{self, spans},
    write::{
        execute::{CommandContext, ExecuteError, LoadError, Repository},
        store::EventStore,
    },
};

/// How many actions are performed at the same time, unless set otherwise.
const ACTIONS: usize = 64;
/// How many actions wait for their turn at most. Others are found in the read model later.
const WAITING: usize = 1_024;
/// At how many instances it looks at the same time.
const LOOKS: usize = 256;
/// The shortest pause between two looks at the read model.
const SHORTEST: Duration = Duration::from_millis(20);
/// The longest: a timer that another process has set is noticed within this time, and what a process has left behind that was killed.
const LONGEST: Duration = Duration::from_millis(500);
/// How long the read model may be behind what was heard of, as a rule.
const LATE: Duration = Duration::from_millis(200);
/// For how long a timer that was woken is not woken again: the read model shows by then what has followed.
const WOKEN: Duration = Duration::from_secs(1);
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
    /// How many actions it performs at the same time.
    pub(super) performs: Semaphore,
    /// How many may wait for that.
    waiting: Arc<Semaphore>,
    /// The actions that are being performed here, or were a moment ago.
    performed: Mutex<HashMap<(String, u64), Performed>>,
    /// The timers that were woken here a moment ago, and that the read model may still show.
    woken: Mutex<HashMap<(String, u64), Instant>>,
    /// The instances that cannot be read, and since when.
    unreadable: Mutex<HashMap<String, Instant>>,
    /// Where the next page of what is due begins.
    page: Mutex<Option<FieldCursor>>,
}

/// What became of an action here.
#[derive(Debug, Clone, Copy)]
enum Performed {
    /// It is being performed.
    Now,
    /// The instance was told that. One that was read before is out of date: it knows of fewer attempts.
    Told { attempts: Attempts, at: Instant },
}

impl Performed {
    /// Whether an attempt is left to make at an action of which this is known.
    fn leaves(self, attempts: Attempts) -> bool {
        matches!(self, Self::Told { attempts: told, .. } if attempts >= told)
    }
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
        let (performed, woken, unreadable, page) = Default::default();
        let (performs, waiting) = (Semaphore::new(ACTIONS), Arc::new(Semaphore::new(WAITING)));
        Self {
            saga,
            instances,
            overview,
            log,
            queue,
            holds,
            due_soon,
            performs,
            waiting,
            performed,
            woken,
            unreadable,
            page,
        }
    }

    /// Looks at an instance to which `event` has happened, or for what is due because of it.
    pub(super) fn hears(&self, id: &str, version: Version, event: &SagaEvent<S>) {
        let since = Due { since: Some(version), ..Due::default() };
        match event {
            SagaEvent::Advanced(Advanced { decided, .. }) => {
                self.queue.push(id, since);
                for decided in decided {
                    if let Decided::SetTimer { after, .. } = decided {
                        self.is_due(*after);
                    }
                }
            }
            SagaEvent::Attempted(Attempted { again_after: Some(after), .. }) => self.is_due(*after),
            SagaEvent::Asked(_) | SagaEvent::Resumed => self.queue.push(id, since),
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
            lock(&self.woken).clear();
        }
    }

    async fn work(self: Arc<Self>) {
        let (mut looks, mut tasks) = (JoinSet::new(), JoinSet::new());
        let (mut look, mut soon) = (Instant::now(), self.due_soon.subscribe());
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    // What an action panics with is caught.
                    if let Err(error) = ended {
                        tracing::error!(saga = S::NAME, %error, "a task of the performer has ended");
                    }
                }
                (id, due) = self.queue.next(), if looks.len() < LOOKS => {
                    let performer = self.clone();
                    looks.spawn(async move { performer.look_at(&id, due).await });
                }
                Some(looked) = looks.join_next(), if !looks.is_empty() => match looked {
                    Ok(ready) => for (begun, waiting) in ready {
                        tasks.spawn(perform(begun, waiting));
                    },
                    Err(error) => tracing::error!(saga = S::NAME, %error, "a look at an instance has ended"),
                },
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

    /// Has the instance `id` do what operators have asked for, and hear what has waited, wakes its timers that are due, and returns its
    /// actions that are.
    async fn look_at(self: Arc<Self>, id: &str, Due { since, timers, at, mut actions }: Due) -> Vec<Ready<S>> {
        let nothing = Metadata::default();
        let Some((mut instance, mut version)) = self.load(id, since).await else { return Vec::new() };
        if !instance.asked().is_empty() {
            self.tell(id, &nothing, || SagaCommand::Obey).await;
            let Some(obeyed) = self.load(id, None).await else { return Vec::new() };
            (instance, version) = obeyed;
        }
        let mut is_told = false;
        for (timer, number) in timers {
            is_told |= instance.is_under_way();
            self.tell(id, &nothing, || SagaCommand::Fire { timer: timer.clone(), number, at }).await;
            lock(&self.woken).insert((id.to_owned(), number), Instant::now());
        }
        if instance.is_under_way() && instance.deferred().next().is_some() {
            self.tell(id, &nothing, || SagaCommand::Hear).await;
            is_told = true;
            // There may be more than it hears at once.
            self.queue.push(id, Due::default());
        }
        if is_told {
            let Some(told) = self.load(id, None).await else { return Vec::new() };
            (instance, version) = told;
        }
        if !instance.is_under_way() {
            return Vec::new();
        }
        let ready = instance.actions().iter().filter_map(|(number, waiting)| {
            let attempts = waiting.attempted();
            let is_due = attempts.failed == 0 || actions.remove(number) == Some(attempts);
            let begun = is_due.then(|| self.begin(id, version, *number, attempts)).flatten()?;
            Some((begun, waiting.clone()))
        });
        ready.collect()
    }

    fn performed(&self) -> MutexGuard<'_, HashMap<(String, u64), Performed>> {
        lock(&self.performed)
    }

    /// Begins an attempt at an action after `attempts`, unless it is under way or was made already.
    fn begin(self: &Arc<Self>, id: &str, version: Version, number: u64, attempts: Attempts) -> Option<Begun<S>> {
        let (mut performed, action) = (self.performed(), (id.to_owned(), number));
        let waiting = self.waiting.clone().try_acquire_owned().ok()?;
        if performed.get(&action).is_some_and(|performed| !performed.leaves(attempts)) {
            return None;
        }
        performed.insert(action.clone(), Performed::Now);
        drop(performed);
        Some(Begun { performer: self.clone(), action, version, _waiting: waiting })
    }

    /// Whether the action still waits for this attempt.
    async fn still_waits(&self, begun: &Begun<S>, attempts: Attempts) -> bool {
        let (id, number) = &begun.action;
        // It is told here what happens to it, as a rule.
        let loaded = self.load(id, Some(begun.version)).await;
        let instance = loaded.map(|(instance, _)| instance).filter(Instance::is_under_way);
        instance.is_some_and(|instance| instance.actions().get(number).is_some_and(|now| now.attempted() == attempts))
    }

    /// One attempt at an action, and what the instance is told of it.
    async fn perform(&self, begun: &Begun<S>, waiting: &Waiting<S::Action>) {
        let at_once = self.performs.try_acquire().ok();
        let waits = at_once.is_none();
        let turn = if let Some(turn) = at_once { Ok(turn) } else { self.performs.acquire().await };
        // It is never closed.
        let Ok(_turn) = turn else { return };
        // While it waited for its turn, it may have been given up.
        if waits && !self.still_waits(begun, waiting.attempted()).await {
            return;
        }
        let (id, number) = (begun.action.0.as_str(), begun.action.1);
        let Waiting { action, attempts, metadata, rounds } = waiting;
        let attempt = attempts + 1;
        let instance = id.to_owned();
        let key = caught(|| S::key(action, number)).unwrap_or_else(|Panicked| number.to_string());
        let context = ActionContext { saga: S::NAME, instance, action: key, attempt, metadata: metadata.clone() };
        let retry = caught(|| S::retry(action)).unwrap_or_default();
        let (span, since) = (spans::perform(S::NAME, id, number, attempt, metadata), Instant::now());
        let performed = caught_async(self.saga.perform(action, context)).instrument(span);
        let done = tokio::time::timeout(retry.time_limit, performed).await;
        let outcome = match &done {
            Ok(Ok(Ok(_))) => "done",
            Ok(Ok(Err(ActionError::Refused(_)))) => "refused",
            _ => "failed",
        };
        telemetry::sagas::attempted(S::NAME, outcome, since.elapsed());
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
            Err(Attempted { action: number, rounds: *rounds, attempts: attempt, cause, again_after })
        };
        let told = match done {
            Ok(Ok(Ok(answer))) => Ok(Ok(answer)),
            Ok(Ok(Err(ActionError::Refused(reason)))) => Ok(Err(reason)),
            Ok(Ok(Err(error @ ActionError::NewerCode(_)))) => {
                // Nothing is told: it is attempted by newer code, or here later.
                tracing::warn!(saga = S::NAME, instance = id, error = %with_causes(&error), "an action waits");
                lock(&self.unreadable).insert(id.to_owned(), Instant::now());
                return;
            }
            Ok(Ok(Err(error))) => failed(error.is_transient(), with_causes(&error)),
            Ok(Err(Panicked)) => failed(true, "the action panicked".to_owned()),
            Err(_) => failed(true, format!("it took longer than {:?}", retry.time_limit)),
        };
        self.tell(id, metadata, || match &told {
            Ok(answer) => SagaCommand::Answer { action: number, answer: answer.clone() },
            Err(attempted) => SagaCommand::Attempted(attempted.clone()),
        })
        .await;
        // Once it has an answer, it is not attempted again, unless an operator has it attempted anew since the saga could not react.
        let attempts = match told {
            Ok(_) => Attempts { rounds: rounds + 1, failed: 0 },
            Err(_) => Attempts { rounds: *rounds, failed: attempt },
        };
        self.performed().insert(begun.action.clone(), Performed::Told { attempts, at: Instant::now() });
        if told.is_err_and(|attempted| attempted.again_after.is_none()) {
            // An operator may have let it be attempted anew before that was known here.
            self.queue.push(id, Due::default());
        }
    }

    /// Tells the instance, which has failed if it cannot be told.
    async fn tell(&self, id: &str, metadata: &Metadata, command: impl Fn() -> SagaCommand<S>) {
        let told = again(id, ExecuteError::is_transient, || {
            self.instances.execute_with(id, command(), CommandContext::from(metadata.clone()))
        });
        let error = match told.await {
            Ok(_) => return,
            Err(error @ ExecuteError::Rejected(SagaError::UnknownVersion { .. })) => {
                tracing::error!(saga = S::NAME, instance = id, error = %with_causes(&error), "it is left as it is");
                return;
            }
            Err(error) => error,
        };
        let cause = with_causes(&error);
        tracing::error!(saga = S::NAME, instance = id, cause, "an instance cannot go on");
        let fail = || self.instances.execute(id, SagaCommand::Fail { cause: cause.clone() });
        if let Err(error) = again(id, ExecuteError::is_transient, fail).await {
            tracing::error!(saga = S::NAME, instance = id, error = %with_causes(&error), "it is not marked as failed");
        }
    }

    /// The instance of `since` at least, or as it is now, with its version.
    async fn load(&self, id: &str, since: Option<Version>) -> Option<(Instance<S>, Version)> {
        let since = since.unwrap_or(Version::new(u64::MAX));
        let loaded = again(id, LoadError::is_transient, || self.instances.load_since(id, since)).await;
        let readable = loaded.map_err(|error| with_causes(&error)).and_then(|loaded| {
            // An instance of another version is left as it is, for the code that runs it.
            loaded.state.admit().map_err(|error| error.to_string())?;
            Ok((loaded.state, loaded.version))
        });
        readable
            .inspect_err(|error| {
                tracing::error!(saga = S::NAME, instance = id, error, "it cannot be read");
                lock(&self.unreadable).insert(id.to_owned(), Instant::now());
            })
            .ok()
    }
}

/// The outcome of `attempt`, which is made again for as long as that may help.
async fn again<T, E, F>(id: &str, may_help: fn(&E) -> bool, attempt: impl Fn() -> F) -> Result<T, E>
where
    E: std::error::Error,
    F: Future<Output = Result<T, E>>,
{
    let mut failures = 0;
    loop {
        let error = match attempt().await {
            Err(error) if may_help(&error) => error,
            outcome => return outcome,
        };
        failures += 1;
        tracing::warn!(instance = id, error = %with_causes(&error), "the store has failed");
        tokio::time::sleep(STORE_FAILED.pause(failures)).await;
    }
}

/// An attempt at an action that has begun. When it is dropped before its end, the action is not performed here any more.
struct Begun<S: Saga> {
    performer: Arc<Performer<S>>,
    action: (String, u64),
    /// That of the instance.
    version: Version,
    _waiting: OwnedSemaphorePermit,
}

/// An attempt that has begun, and what is to be done.
type Ready<S> = (Begun<S>, Waiting<<S as Saga>::Action>);

async fn perform<S: Saga>(begun: Begun<S>, waiting: Waiting<S::Action>) {
    begun.performer.perform(&begun, &waiting).await;
}

impl<S: Saga> Drop for Begun<S> {
    fn drop(&mut self) {
        let mut performed = self.performer.performed();
        if let Some(Performed::Now) = performed.get(&self.action) {
            performed.remove(&self.action);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
