//! How far the read models of a store have come, as a process knows.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    runtime::{Handle, Id},
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    pace::Pace,
    read::read_model::{Documents, GenerationSet, ReadModelError},
};

/// The read models of a store for which callers of this process wait. Clones share them.
///
/// One task for each of them looks at its generations, for all that wait, for as long as one of them does: again and again at
/// growing pauses, and at once when a worker of this process has [moved](Self::moved) the read model or another caller begins
/// to wait. If they wait on several runtimes, each of these has a task: one that stands still holds up no caller of another one.
#[derive(Clone, Default)]
pub struct KnownProgress(Arc<Mutex<HashMap<String, Vec<Weak<Looking>>>>>);

/// What is known of the task that looks at one read model. It ends with the last of its owners.
struct Looking {
    /// Where it runs.
    runtime: Id,
    looks: watch::Receiver<Look>,
    /// How many looks have begun.
    begun: Arc<AtomicU64>,
    /// There is a reason for another look.
    prompt: Arc<Notify>,
}

struct Look {
    number: u64,
    found: Found,
}

/// The generations at one moment; the failure of a look is the same for all that wait for it.
pub(crate) type Found = Result<Arc<GenerationSet>, Arc<ReadModelError>>;

impl KnownProgress {
    /// A worker of this process has moved the read model `projection`: if callers wait for it, the next look is made at once.
    pub fn moved(&self, projection: &str) {
        for looking in self.all().get(projection).into_iter().flatten().filter_map(Weak::upgrade) {
            looking.prompt.notify_one();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Weak<Looking>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, store: &Arc<dyn Documents>, projection: &str) -> Arc<Looking> {
        let runtime = Handle::current().id();
        let mut all = self.all();
        let tasks = all.entry(projection.to_owned()).or_default();
        tasks.retain(|task| task.strong_count() > 0);
        // A task may have ended with its runtime, or with a panic of the store.
        let running = |found: &Arc<Looking>| found.runtime == runtime && found.looks.has_changed().is_ok();
        if let Some(running) = tasks.iter().filter_map(Weak::upgrade).find(running) {
            running.prompt.notify_one();
            return running;
        }
        let (sender, looks) = watch::channel(Look { number: 0, found: Ok(Arc::default()) });
        let looking = Looking { runtime, looks, begun: Arc::default(), prompt: Arc::default() };
        let task = Task { begun: looking.begun.clone(), prompt: looking.prompt.clone(), looks: sender };
        tokio::spawn(task.run(store.clone(), projection.to_owned()));
        let looking = Arc::new(looking);
        tasks.push(Arc::downgrade(&looking));
        looking
    }
}

impl fmt::Debug for KnownProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

struct Task {
    begun: Arc<AtomicU64>,
    prompt: Arc<Notify>,
    looks: watch::Sender<Look>,
}

impl Task {
    /// Looks until nothing owns the looks any more. A look that has begun is finished: a store that drops a query in the middle loses
    /// the connection.
    async fn run(self, store: Arc<dyn Documents>, projection: String) {
        let (mut pace, mut last) = (Pace::default(), GenerationSet::default());
        loop {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let found = store.generations(&projection).await;
            pace.has_looked(found.as_ref().is_ok_and(|found| *found != last));
            if let Ok(found) = &found {
                last.clone_from(found);
            }
            self.looks.send_replace(Look { number, found: found.map(Arc::new).map_err(Arc::new) });
            let pause = async {
                sleep_until(pace.soonest()).await;
                // A reason or the end of the pause, whichever comes first.
                let _ = timeout_at(pace.next(), self.prompt.notified()).await;
            };
            tokio::select! {
                () = self.looks.closed() => return,
                () = pause => {}
            }
        }
    }
}

/// The progress of one read model, from the moment on at which the caller began to follow it.
pub(crate) struct Progresses {
    store: Arc<dyn Documents>,
    projection: &'static str,
    /// The last look that had begun before, or that was returned.
    after: u64,
    /// With its last owner the task ends.
    looking: Arc<Looking>,
    looks: watch::Receiver<Look>,
}

impl Progresses {
    /// Follows `projection` in `store`.
    pub(crate) fn follow(store: &Arc<dyn Documents>, projection: &'static str) -> Self {
        let looking = store.known_progress().join(store, projection);
        let (after, looks) = (looking.begun.load(Ordering::SeqCst), looking.looks.clone());
        Self { store: store.clone(), projection, after, looking, looks }
    }

    /// Which read model it is.
    pub(crate) fn projection(&self) -> &'static str {
        self.projection
    }

    /// What the next look finds. The first one begins after this read model was followed, so it sees all that was committed before.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: later calls return later looks.
    pub(crate) async fn next(&mut self) -> Found {
        if self.looking.runtime != Handle::current().id() {
            // The caller has come from another runtime, which may stand still from now on.
            *self = Self::follow(&self.store, self.projection);
        }
        loop {
            let look = self.looks.wait_for(|look| look.number > self.after).await;
            if let Ok((number, found)) = look.map(|look| (look.number, look.found.clone())) {
                self.after = number;
                return found;
            }
            *self = Self::follow(&self.store, self.projection);
        }
    }

    /// [`next`](Self::next), until `deadline`; `None` then.
    pub(crate) async fn next_before(&mut self, deadline: Option<Instant>) -> Option<Found> {
        match deadline {
            Some(deadline) => timeout_at(deadline, self.next()).await.ok(),
            None => Some(self.next().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{runtime, time::timeout};

    use super::*;
    use crate::memory::MemoryStore;

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_all().build().expect("made")
    }

    /// What a look finds, and how long the paused clock went on until then.
    async fn next(progresses: &mut Progresses) -> Duration {
        let began = Instant::now();
        progresses.next().await.expect("the store answers");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_made_at_once_for_a_new_caller_and_where_a_worker_of_this_process_has_moved_the_read_model() {
        let store: Arc<dyn Documents> = Arc::new(MemoryStore::new());
        let mut progresses = Progresses::follow(&store, "ledger");
        assert_eq!(next(&mut progresses).await, Duration::ZERO, "the first look");
        tokio::time::sleep(Duration::from_mins(1)).await;
        // The last look before this one may be older.
        next(&mut progresses).await;
        let pause = next(&mut progresses).await;
        assert!(pause > Duration::from_millis(100), "{pause:?} after a silence");
        store.known_progress().moved("ledger");
        let pause = next(&mut progresses).await;
        assert!(pause < Duration::from_millis(10), "{pause:?} after a move");
    }

    #[tokio::test]
    async fn a_task_that_has_ended_leaves_nothing_behind() {
        let store: Arc<dyn Documents> = Arc::new(MemoryStore::new());
        for _ in 0..3 {
            drop(Progresses::follow(&store, "ledger"));
        }
        assert_eq!(store.known_progress().all()["ledger"].len(), 1);
    }

    /// A runtime of one thread stands still while nothing is run on it, and what waits there is not dropped. (It would fail where the
    /// callers of all runtimes shared the task of the first: the other runtime waited for ever.)
    #[test]
    fn a_caller_does_not_wait_for_a_runtime_that_stands_still_or_has_ended() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let store: Arc<dyn Documents> = Arc::new(MemoryStore::new());
        let (still, other) = (runtime(), runtime());
        let next = async |progresses: &mut Progresses| {
            timeout(PATIENCE, progresses.next()).await.expect("it looks").expect("the store answers");
        };
        let mut first = still.block_on(async {
            let mut first = Progresses::follow(&store, "ledger");
            next(&mut first).await;
            first
        });
        other.block_on(async {
            next(&mut Progresses::follow(&store, "ledger")).await;
            // What was followed there goes on here.
            next(&mut first).await;
        });
        still.block_on(next(&mut first));
        drop(still);
        other.block_on(next(&mut first));
    }
}
