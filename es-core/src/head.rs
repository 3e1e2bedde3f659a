//! How far the log has come, as a process knows.

use std::{
    collections::HashMap,
    convert::Infallible,
    future, panic,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use tokio::{
    runtime::{Handle, Id},
    sync::{Mutex, watch},
};

use crate::{of_engine::of_engine, pace::Pace, stream::Position};

/// The last position that a store knows of in this process. Clones share it.
///
/// It may know more than the log holds when a failover or a restore has lost the tail, until the log is read again.
#[derive(Debug, Clone, Default)]
pub struct KnownHead {
    head: watch::Sender<Position>,
    paces: Arc<StdMutex<Paces>>,
}

/// Of each runtime on which callers wait, held by the one of them that looks for what other processes have appended: one that stands
/// still holds up no caller of another one.
type Paces = HashMap<Id, Arc<Mutex<Pace>>>;

impl KnownHead {
    /// It begins at `position`.
    pub fn new(position: Position) -> Self {
        Self { head: watch::Sender::new(position), paces: Arc::default() }
    }

    /// What is known without asking.
    pub fn get(&self) -> Position {
        *self.head.borrow()
    }

    /// The log has come to `position`, or further.
    pub fn raise(&self, position: Position) {
        self.head.send_if_modified(|head| {
            let is_news = position > *head;
            *head = position.max(*head);
            is_news
        });
    }

    /// The log ended at `end` when it was read, and `before` was known when that was asked. If that shows that the tail of the log
    /// is lost, the head falls to `end`; returns whether it does.
    ///
    /// A task that has raised it meanwhile knows better. One that has raised it to this very number again, after another task had
    /// lowered it, raises it once more with the next read.
    pub fn lower(&self, before: Position, end: Position) -> bool {
        self.head.send_if_modified(|head| {
            let is_lost = end < before && *head == before;
            if is_lost {
                *head = end;
            }
            is_lost
        })
    }

    /// Returns when the log is known to have come past `after`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn past(&self, after: Position) {
        // It fails only if there is no sender.
        let _ = self.head.subscribe().wait_for(|head| *head > after).await;
    }

    /// As [`past`](Self::past), also for what other processes append: `look` asks the store for the end of the log, and
    /// [raises](Self::raise) or [lowers](Self::lower) the head accordingly.
    ///
    /// One caller at a time looks, for all of a runtime, at a pace that depends on the time since the last news. When it leaves,
    /// because its news have come or its future is dropped, the next one continues at the same pace.
    ///
    /// A look that has begun is finished by a task of its own when its caller leaves: a store that drops a query in the middle loses
    /// the connection.
    ///
    /// # Errors
    /// Those of `look`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn past_looking<E, L>(&self, after: Position, look: impl FnMut() -> L) -> Result<(), E>
    where
        E: Send + 'static,
        L: Future<Output = Result<(), E>> + Send + 'static,
    {
        tokio::select! {
            biased;
            () = self.past(after) => Ok(()),
            failed = self.looking(look) => failed.map(|never| match never {}),
        }
    }

    /// The one of this runtime.
    fn pace(&self) -> Arc<Mutex<Pace>> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Handle::current().id();
        if !paces.contains_key(&runtime) {
            // Those of runtimes that have ended.
            paces.retain(|_, pace| Arc::strong_count(pace) > 1);
        }
        paces.entry(runtime).or_default().clone()
    }

    async fn looking<E, L>(&self, mut look: impl FnMut() -> L) -> Result<Infallible, E>
    where
        E: Send + 'static,
        L: Future<Output = Result<(), E>> + Send + 'static,
    {
        let mut pace = self.pace().lock_owned().await;
        loop {
            tokio::time::sleep_until(pace.next()).await;
            let (head, look) = (self.clone(), look());
            let looked = tokio::spawn(async move {
                let before = head.get();
                // Engines wait for it too.
                of_engine(look).await?;
                pace.has_looked(head.get() != before);
                Ok(pace)
            });
            pace = match looked.await {
                Ok(looked) => looked?,
                Err(ended) if ended.is_panic() => panic::resume_unwind(ended.into_panic()),
                // The runtime ends, and with it this caller.
                Err(_) => future::pending().await,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn r3_a_look_at_the_log_does_not_take_back_what_was_appended_meanwhile() {
        let [three, five, six] = [3, 5, 6].map(Position::new);
        let head = KnownHead::new(six);
        assert!(!head.lower(five, three), "an append has raised it since");
        assert!(!head.lower(six, six), "nothing is lost");
        head.raise(five);
        assert_eq!(head.get(), six);
        assert!(head.lower(six, three));
        assert_eq!(head.get(), three);
    }

    #[tokio::test]
    async fn waiters_are_woken_by_a_higher_head_only() {
        let head = KnownHead::new(Position::new(3));
        head.past(Position::new(2)).await;
        let mut past = std::pin::pin!(head.past(Position::new(3)));
        head.raise(Position::new(3));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut past).await.is_err());
        head.clone().raise(Position::new(4));
        past.await;
    }

    /// No two looks are made at the same time. (Seen to fail where each waiter has a pace of its own.)
    #[tokio::test(start_paused = true)]
    async fn one_of_many_waiters_looks_for_all_of_them() {
        let (head, looks) = (KnownHead::default(), Arc::new(StdMutex::new(Vec::new())));
        let mut waiters = JoinSet::new();
        for _ in 0..100 {
            let (head, looks) = (head.clone(), looks.clone());
            waiters.spawn(async move {
                let look = || {
                    let mut looks = looks.lock().expect("nothing panics under it");
                    looks.push(tokio::time::Instant::now());
                    // The 20th look finds what another process has appended.
                    if looks.len() == 20 {
                        head.raise(Position::new(1));
                    }
                    std::future::ready(Ok::<_, Infallible>(()))
                };
                head.past_looking(Position::ZERO, look).await
            });
        }
        assert!(waiters.join_all().await.iter().all(Result::is_ok));
        let looks = looks.lock().expect("nothing panics under it");
        assert!(looks.len() == 20 && looks.is_sorted_by(|one, next| one < next), "{looks:?}");
    }

    #[test]
    fn the_paces_of_runtimes_on_which_no_caller_looks_are_forgotten() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
        let (still, head) = (runtime(), KnownHead::default());
        let looks = still.block_on(async { head.pace() });
        for _ in 0..3 {
            runtime().block_on(async { drop(head.pace()) });
        }
        let paces = head.paces.lock().expect("nothing panics under it");
        assert!(paces.values().any(|pace| Arc::ptr_eq(pace, &looks)), "a caller looks there");
        assert_eq!(paces.len(), 2, "and the last one");
    }

    /// It would fail where the callers of all runtimes waited for the one that looked: it waits on a runtime that stands still.
    #[test]
    fn a_waiter_does_not_wait_for_a_runtime_that_stands_still() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
        let (still, other, head) = (runtime(), runtime(), KnownHead::default());
        let waits = head.clone();
        still.block_on(async {
            tokio::spawn(async move {
                waits.past_looking(Position::new(9), || future::ready(Ok::<_, Infallible>(()))).await
            });
            tokio::task::yield_now().await;
        });
        let look = || {
            head.raise(Position::new(1));
            future::ready(Ok::<_, Infallible>(()))
        };
        let past = async {
            tokio::time::timeout(std::time::Duration::from_secs(20), head.past_looking(Position::ZERO, look)).await
        };
        assert!(matches!(other.block_on(past), Ok(Ok(()))));
    }

    /// When a look ended with its caller, a following process opened a new connection for each look that its news overtook.
    #[tokio::test]
    async fn a_look_that_has_begun_is_finished_without_its_caller() {
        let (head, looks) = (KnownHead::default(), Arc::new(AtomicU64::new(0)));
        let answers = Arc::new(tokio::sync::Notify::new());
        let look = || {
            let (looks, answers) = (looks.clone(), answers.clone());
            async move {
                looks.fetch_add(1, Ordering::SeqCst);
                answers.notified().await;
                looks.fetch_add(10, Ordering::SeqCst);
                Ok::<_, Infallible>(())
            }
        };
        let mut waiting = Box::pin(head.past_looking(Position::ZERO, look));
        while looks.load(Ordering::SeqCst) == 0 {
            assert!(tokio::time::timeout(std::time::Duration::from_millis(1), &mut waiting).await.is_err());
        }
        drop(waiting);
        answers.notify_one();
        // The next caller looks when that look is finished.
        let next = head.past_looking(Position::ZERO, || {
            assert_eq!(looks.load(Ordering::SeqCst), 11);
            head.raise(Position::new(1));
            future::ready(Ok::<_, Infallible>(()))
        });
        assert_eq!(next.await, Ok(()));
    }

    #[tokio::test]
    #[should_panic(expected = "the look's own")]
    async fn a_look_that_panics_does_not_let_its_caller_wait_for_ever() {
        let look = || async { panic!("the look's own") };
        let _: Result<(), Infallible> = KnownHead::default().past_looking(Position::ZERO, look).await;
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_looks_grow_until_one_has_found_something() {
        let (head, times) = (KnownHead::default(), Arc::new(std::sync::Mutex::new(Vec::new())));
        for news in [1, 2].map(Position::new) {
            let look = || {
                let (head, times) = (head.clone(), times.clone());
                async move {
                    let mut times = times.lock().expect("no panic under it");
                    times.push(tokio::time::Instant::now());
                    if times.len() == 200 || news == Position::new(2) {
                        head.raise(news);
                    }
                    Ok::<_, Infallible>(())
                }
            };
            head.past_looking(head.get(), look).await.expect("it cannot fail");
        }
        let times = times.lock().expect("no panic under it").clone();
        let [silent, first] = [times[199] - times[198], times[200] - times[199]].map(|pause| pause.as_millis());
        assert!(silent > 5 && first < 5, "{silent} ms, {first} ms");
    }

    #[test]
    fn what_is_known_is_no_news() {
        let head = KnownHead::new(Position::new(3));
        let watcher = head.head.subscribe();
        head.raise(Position::new(3));
        assert!(!watcher.has_changed().expect("the head lives"));
        head.raise(Position::new(4));
        assert!(watcher.has_changed().expect("the head lives"));
    }
}
