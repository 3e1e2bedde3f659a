//! Performs the actions of a saga, and wakes its timers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::Instrument;

use super::{
    ActionContext, ActionError, AfterLast, Instance, Saga, SagaCommand, SagaError,
    event::{Advanced, Attempted, Decided, SagaEvent},
    instance::Waiting,
    overview::{Instances, Overview},
    queue::{Attempts, Due, Queue},
    version::gaps,
};
use crate::{
    backoff::Backoff,
    error::with_causes,
    event::Metadata,
    read::{
        engine_error::EngineError,
        find::FieldCursor,
        panics::{Panicked, caught, caught_async},
        query::{QueryError, ReadModel},
    },
    telemetry::{self, spans},
    write::{
        execute::{CommandContext, ExecuteError, LoadError, Repository},
        store::{EventStore, ReadError},
    },
};

/// How many instances the read model is asked for at once.
const PAGE: usize = 500;
/// How many instances are named that are under a version that this code does not run.
const NAMED: usize = 20;
/// How many actions are performed at the same time, unless set otherwise.
const ACTIONS: usize = 64;
/// At how many instances it looks at the same time. Those whose actions wait for their turn are among them.
const TASKS: usize = 1_024;
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
    /// How many actions it performs at the same time.
    pub(super) performs: Semaphore,
    /// The actions that are being performed here, or were a moment ago.
    performed: Mutex<HashMap<(String, u64), Performed>>,
    /// The timers that were woken here and that the read model may still show.
    woken: Mutex<HashSet<(String, u64)>>,
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
        let performs = Semaphore::new(ACTIONS);
        Self { saga, instances, overview, log, queue, holds, due_soon, performs, performed, woken, unreadable, page }
    }

    /// Refuses to perform while instances are under way that this code cannot go on with.
    pub(super) async fn admit_versions(&self) -> Result<(), EngineError> {
        for gap in gaps::<S>() {
            let range = Overview::VERSION.range(i64::from(gap.start)..i64::from(gap.end));
            let found = match self.overview.find(range, NAMED).await {
                Ok(page) => page.documents,
                Err(QueryError::Store(error)) => return Err(error.into()),
                // It is being built. An instance that is found later is left as it is.
                Err(_) => return Ok(()),
            };
            let mut instances = Vec::new();
            for (id, _) in found {
                let Ok(loaded) = self.instances.load(&id).await else { continue };
                if let Err(SagaError::UnknownVersion { version, .. }) = loaded.state.definition() {
                    instances.push(format!("{id} (version {version})"));
                }
            }
            if !instances.is_empty() {
                return Err(EngineError::SagaVersions { saga: S::NAME, known: S::VERSIONS, instances });
            }
        }
        Ok(())
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
            SagaEvent::Asked(_) | SagaEvent::Resumed => self.queue.push(id, Due::default()),
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
                (id, due) = self.queue.next(), if tasks.len() < TASKS => {
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
        // What cannot be done now must not hide what is due after it.
        let begin = lock(&self.page).take();
        let is_first = begin.is_none();
        let range = Overview::DUE.range(..=now);
        let page =
            self.overview.find(begin.map_or_else(|| range.clone(), |begin| range.clone().resume(begin)), PAGE).await?;
        lock(&self.unreadable).retain(|_, since| since.elapsed() < OUT_OF_DATE);
        let mut shown = HashSet::new();
        for (id, overview) in &page.documents {
            let mut timers: Vec<_> = overview.timers.iter().filter(|(_, timer)| timer.due <= now).collect();
            timers.sort_by_key(|(_, timer)| timer.due);
            let woken = lock(&self.woken);
            shown.extend(timers.iter().map(|(_, timer)| (id.clone(), timer.number)));
            timers.retain(|(_, timer)| !woken.contains(&(id.clone(), timer.number)));
            for (_, timer) in &timers {
                telemetry::sagas::timer_found(S::NAME, (now - timer.due).to_std().unwrap_or_default());
            }
            let timers: Vec<_> = timers.into_iter().map(|(name, timer)| (name.clone(), timer.number)).collect();
            drop(woken);
            let actions = overview.actions.iter().filter(|(_, action)| action.due <= now);
            let performed = self.performed();
            let is_free = |number: u64, attempts| {
                performed.get(&(id.clone(), number)).is_none_or(|performed| performed.leaves(attempts))
            };
            let attempts =
                actions.map(|(number, action)| (*number, Attempts { rounds: action.rounds, failed: action.attempts }));
            let actions: BTreeMap<_, _> = attempts.filter(|(number, attempts)| is_free(*number, *attempts)).collect();
            drop(performed);
            let is_readable = !lock(&self.unreadable).contains_key(id);
            let is_asked = overview.asked_at.is_some();
            if is_readable && (!timers.is_empty() || !actions.is_empty() || is_asked) {
                self.queue.push(id, Due { timers, actions });
            }
        }
        if is_first && page.next.is_none() {
            lock(&self.woken).retain(|timer| shown.contains(timer));
        }
        self.performed().retain(|_, performed| match performed {
            Performed::Now => true,
            Performed::Told { at, .. } => at.elapsed() < OUT_OF_DATE,
        });
        if page.next.is_some() {
            *lock(&self.page) = page.next;
            return Ok(SHORTEST);
        }
        let next = self.overview.find(Overview::DUE.range(now..), 1).await?;
        let next = next.documents.first().and_then(|(_, overview)| overview.due());
        let pause = next.map(|due| (due - now).to_std().unwrap_or_default());
        Ok(pause.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST))
    }

    /// Wakes the timers of the instance `id` that are due, and performs its actions that are.
    async fn look_at(&self, id: &str, Due { timers, mut actions }: Due) {
        for (timer, number) in timers {
            let nothing = Metadata::default();
            self.tell(id, &nothing, || SagaCommand::Fire { timer: timer.clone(), number }).await;
            lock(&self.woken).insert((id.to_owned(), number));
        }
        let Some(mut instance) = self.load(id).await else { return };
        if !instance.asked().is_empty() {
            self.tell(id, &Metadata::default(), || SagaCommand::Obey).await;
            let Some(obeyed) = self.load(id).await else { return };
            instance = obeyed;
        }
        if !instance.is_under_way() {
            return;
        }
        let ready = instance.actions().iter().filter_map(|(number, waiting)| {
            let attempts = waiting.attempted();
            let is_due = attempts.failed == 0 || actions.remove(number) == Some(attempts);
            let begun = is_due.then(|| self.begin(id, *number, attempts)).flatten()?;
            Some(self.perform(begun, waiting))
        });
        // Each has begun, and is marked as such, before one of them waits.
        let ready: Vec<_> = ready.collect();
        join_all(ready).await;
    }

    fn performed(&self) -> MutexGuard<'_, HashMap<(String, u64), Performed>> {
        lock(&self.performed)
    }

    /// Begins an attempt at an action after `attempts`, unless it is under way or was made already.
    fn begin(&self, id: &str, number: u64, attempts: Attempts) -> Option<Begun<'_, S>> {
        let (mut performed, action) = (self.performed(), (id.to_owned(), number));
        if performed.get(&action).is_some_and(|performed| !performed.leaves(attempts)) {
            return None;
        }
        performed.insert(action.clone(), Performed::Now);
        Some(Begun { performer: self, action })
    }

    /// One attempt at an action, and what the instance is told of it.
    async fn perform(&self, begun: Begun<'_, S>, waiting: &Waiting<S::Action>) {
        // It is never closed.
        let _turn = self.performs.acquire().await;
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
            if !again && retry.after_last == AfterLast::Refuse {
                return Ok(Err(cause));
            }
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
        self.tell(id, metadata, || match &told {
            Ok(answer) => SagaCommand::Answer { action: number, answer: answer.clone() },
            Err(attempted) => SagaCommand::Attempted(attempted.clone()),
        })
        .await;
        let is_answered = told.is_ok();
        let attempts = Attempts { rounds: if is_answered { u32::MAX } else { *rounds }, failed: attempt };
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
        let Err(error) = told.await else { return };
        let cause = with_causes(&error);
        tracing::error!(saga = S::NAME, instance = id, cause, "an instance cannot go on");
        let fail = || self.instances.execute(id, SagaCommand::Fail { cause: cause.clone() });
        if let Err(error) = again(id, ExecuteError::is_transient, fail).await {
            tracing::error!(saga = S::NAME, instance = id, error = %with_causes(&error), "it is not marked as failed");
        }
    }

    async fn load(&self, id: &str) -> Option<Instance<S>> {
        let loaded = again(id, LoadError::is_transient, || self.instances.load(id)).await;
        let readable = loaded.map_err(|error| with_causes(&error)).and_then(|loaded| {
            // An instance of another version is left as it is, for the code that runs it.
            loaded.state.definition().map_err(|error| error.to_string())?;
            Ok(loaded.state)
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
struct Begun<'a, S: Saga> {
    performer: &'a Performer<S>,
    action: (String, u64),
}

impl<S: Saga> Drop for Begun<'_, S> {
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

/// Why it is not known what is due.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Read(#[from] ReadError),
}
