//! Renewal of the leases of a process: a store renews a lease for as long as its worker keeps it, and one statement renews all of
//! them. A backend owns one [`Heartbeat`], writes what is [due](Heartbeat::due), and does so on [a thread of its own](spawn).

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
    time::Instant,
};

use crate::{
    backoff::Backoff,
    read::read_model::{Acts, Hold, Lease, Shard},
};

/// The shortest pause between two renewals.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest pause between two renewals: with each of them a worker learns what operators want.
const LONGEST: Duration = Duration::from_secs(1);

/// The pauses of a store after renewals that failed.
pub const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Runs `renewals` on the thread of this process that renews leases.
///
/// It is none of the application's: a `fold` that computes for longer than a lease lasts may block all threads of the application's
/// runtime, and with them its timers and connections. Where the system gives no thread, `renewals` runs on the caller's runtime.
///
/// # Panics
/// It may panic outside of a tokio runtime.
pub fn spawn(renewals: impl Future<Output = ()> + Send + 'static) {
    static THREAD: OnceLock<Option<Handle>> = OnceLock::new();
    let own = THREAD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("evenfold-leases".into()).spawn(run).ok()?;
        Some(handle)
    });
    match own {
        Some(own) => own.spawn(renewals),
        None => tokio::spawn(renewals),
    };
}

/// The leases that a store has granted in this process.
///
/// A lease is renewed after half of its length, and at least once a second, for as long as its worker keeps the [`Lease`] or a clone of it. The lease of a worker
/// that has ended expires. A process without leases writes nothing.
#[derive(Debug, Default)]
pub struct Heartbeat {
    kept: Mutex<HashMap<Key, Kept>>,
    news: Notify,
    closed: AtomicBool,
}

/// A fencing token is part of it: the former holder of a shard, which may not know yet that it is that, does not affect the present
/// one.
type Key = (i64, Shard, i64);

#[derive(Debug)]
struct Kept {
    ttl: Duration,
    hold: Hold,
    /// When the store wrote it last.
    written: Instant,
}

impl Kept {
    /// Half its length after it was written last, and at the latest after [`LONGEST`].
    fn due(&self) -> Instant {
        self.written + self.pause()
    }

    fn pause(&self) -> Duration {
        (self.ttl / 2).clamp(SHORTEST, LONGEST)
    }
}

/// A lease that is to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The reader's id.
    pub reader: i64,
    /// Its shard.
    pub shard: Shard,
    /// The fencing token.
    pub fencing_token: i64,
    /// For how long from now.
    pub ttl: Duration,
}

fn key(lease: &Lease) -> Key {
    (lease.reader.id, lease.shard.clone(), lease.fencing_token)
}

impl Heartbeat {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().expect("nothing panics while it holds the lock")
    }

    /// The store has written `lease` at the time `written`: when it was taken, and with a commit. It is renewed from now on.
    pub fn written(&self, lease: &Lease, written: Instant) {
        self.lock().insert(key(lease), Kept { ttl: lease.ttl, hold: lease.hold(), written });
        self.news.notify_one();
    }

    /// `lease` was released.
    pub fn ended(&self, lease: &Lease) {
        self.lock().remove(&key(lease));
    }

    /// A lease that [`due`](Self::due) has returned is lost. Its worker is told.
    pub fn lost(&self, beat: &Beat) {
        if let Some(kept) = self.lock().remove(&(beat.reader, beat.shard.clone(), beat.fencing_token)) {
            kept.hold.lose();
        }
    }

    /// A lease that [`due`](Self::due) has returned is renewed. Its worker is told of the acts of operators.
    pub fn renewed(&self, beat: &Beat, acts: Acts) {
        if let Some(kept) = self.lock().get(&(beat.reader, beat.shard.clone(), beat.fencing_token)) {
            kept.hold.note(acts);
        }
    }

    /// The leases that [`due`](Self::due) has returned could not be written: they are due again.
    pub fn failed(&self, beats: &[Beat]) {
        let mut all = self.lock();
        for beat in beats {
            if let Some(kept) = all.get_mut(&(beat.reader, beat.shard.clone(), beat.fencing_token)) {
                kept.written = kept.written.checked_sub(kept.pause()).unwrap_or(kept.written);
            }
        }
    }

    /// Ends it: leases that are granted from now on are not renewed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Waits until a lease is granted; `false` when it is closed. A backend opens its connection then, so that the first
    /// renewal need not wait for it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn is_needed(&self) -> bool {
        while self.lock().is_empty() {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            self.news.notified().await;
        }
        true
    }

    /// Whether a worker of this process keeps the lease with `fencing_token` on this shard.
    pub fn is_kept(&self, reader: i64, shard: &Shard, fencing_token: i64) -> bool {
        self.lock().get(&(reader, shard.clone(), fencing_token)).is_some_and(|kept| kept.hold.is_kept())
    }

    /// Waits until a lease is due and returns all leases of the process, so that one statement renews them together. Those that no
    /// worker keeps any more are left to expire. `None` when it is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn due(&self) -> Option<Vec<Beat>> {
        while !self.closed.load(Ordering::Acquire) {
            let next = self.lock().values().map(Kept::due).min();
            let slept = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = slept => {}
                () = self.news.notified() => continue,
            }
            let now = Instant::now();
            let mut all = self.lock();
            all.retain(|_, kept| kept.hold.is_kept());
            if !all.values().any(|kept| kept.due() <= now) {
                continue;
            }
            let beats = all.iter_mut().map(|((reader, shard, fencing_token), kept)| {
                kept.written = now;
                Beat { reader: *reader, shard: shard.clone(), fencing_token: *fencing_token, ttl: kept.ttl }
            });
            return Some(beats.collect());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::read::read_model::{Checkpoint, Reader};

    const TTL: Duration = Duration::from_millis(100);

    fn lease_of(shard: &str, fencing_token: i64, ttl: Duration) -> Lease {
        let reader = Reader { id: 1, name: "model".into() };
        Lease::new(reader, Shard::from(shard), Uuid::nil(), fencing_token, ttl, Checkpoint::default())
    }

    fn lease(shard: &str, fencing_token: i64) -> Lease {
        lease_of(shard, fencing_token, TTL)
    }

    #[tokio::test]
    async fn r18_all_leases_are_renewed_together_after_half_of_their_length() {
        let (heartbeat, start) = (Heartbeat::default(), Instant::now());
        let leases: Vec<_> = (0..10).map(|number| lease(&format!("topic/{number}"), 1)).collect();
        for lease in &leases {
            heartbeat.written(lease, Instant::now());
        }
        assert_eq!(heartbeat.due().await.map(|beats| beats.len()), Some(10));
        assert!(start.elapsed() >= TTL / 2);
    }

    #[tokio::test]
    async fn r18_the_lease_of_a_worker_that_is_gone_is_left_to_end() {
        let (heartbeat, kept) = (Heartbeat::default(), lease("kept", 1));
        heartbeat.written(&kept, Instant::now());
        let dropped = lease("dropped", 1);
        heartbeat.written(&dropped, Instant::now());
        let clone = dropped.clone();
        drop(dropped);
        assert!(heartbeat.is_kept(1, &Shard::from("dropped"), 1), "by its clone");
        drop(clone);
        assert!(!heartbeat.is_kept(1, &Shard::from("dropped"), 1));
        let beats = heartbeat.due().await.expect("open");
        assert_eq!(beats.iter().map(|beat| &*beat.shard.source).collect::<Vec<_>>(), ["kept"]);
    }

    /// Seen to fail where the former holder took the place of the present one: a third worker took the lease from that.
    #[tokio::test]
    async fn r9_a_worker_that_has_lost_its_lease_does_not_end_that_of_the_next() {
        let (heartbeat, former, present) = (Heartbeat::default(), lease("log", 1), lease("log", 2));
        heartbeat.written(&former, Instant::now());
        // Another worker takes it over; a commit that the former one made before is noted after that.
        heartbeat.written(&present, Instant::now());
        heartbeat.written(&former, Instant::now());
        heartbeat.ended(&former);
        assert!(heartbeat.is_kept(1, &Shard::from("log"), 2));
        let beats = heartbeat.due().await.expect("open");
        assert_eq!(beats.iter().map(|beat| beat.fencing_token).collect::<Vec<_>>(), [2]);
        heartbeat.lost(&beats[0]);
        assert!(present.is_lost() && !former.is_lost());
    }

    #[tokio::test]
    async fn leases_of_any_length_are_due_in_time_and_at_least_once_a_second() {
        let (heartbeat, start) = (Heartbeat::default(), Instant::now());
        let (forever, none) = (lease_of("forever", 1, Duration::MAX), lease_of("none", 1, Duration::ZERO));
        heartbeat.written(&forever, start);
        assert!(tokio::time::timeout(TTL, heartbeat.due()).await.is_err());
        heartbeat.written(&none, Instant::now());
        assert_eq!(heartbeat.due().await.map(|beats| beats.len()), Some(2));
        assert!(start.elapsed() >= TTL + SHORTEST);
        heartbeat.ended(&none);
        assert!(tokio::time::timeout(TTL, heartbeat.due()).await.is_err());
        // Seen to fail where half its length was waited for: its worker learned of no act.
        assert_eq!(heartbeat.due().await.map(|beats| beats.len()), Some(1));
        heartbeat.close();
        assert_eq!(heartbeat.due().await, None);
    }

    #[tokio::test]
    async fn r18_renewals_that_failed_are_due_again_at_once() {
        let (heartbeat, ttl) = (Heartbeat::default(), Duration::from_mins(1));
        let lease = lease_of("log", 1, ttl);
        heartbeat.written(&lease, Instant::now().checked_sub(ttl).unwrap_or_else(Instant::now));
        for _ in 0..2 {
            let beats = tokio::time::timeout(LONGEST / 2, heartbeat.due()).await.expect("due").expect("open");
            assert_eq!(beats.len(), 1);
            heartbeat.failed(&beats);
        }
    }

    #[tokio::test]
    async fn renewals_are_needed_from_the_first_lease_on() {
        let heartbeat = Heartbeat::default();
        tokio::select! {
            biased;
            _ = heartbeat.is_needed() => panic!("there is no lease"),
            () = tokio::task::yield_now() => {}
        }
        let lease = lease("log", 1);
        heartbeat.written(&lease, Instant::now());
        assert!(heartbeat.is_needed().await);
        heartbeat.ended(&lease);
        heartbeat.close();
        assert!(!heartbeat.is_needed().await);
    }

    /// Seen to fail where renewals are a task of the application.
    #[tokio::test]
    async fn renewals_do_not_wait_for_the_threads_of_the_application() {
        let (sender, receiver) = std::sync::mpsc::channel();
        spawn(async move {
            tokio::time::sleep(SHORTEST).await;
            sender.send(()).expect("the test waits");
        });
        // It blocks the only thread of this runtime.
        receiver.recv_timeout(Duration::from_secs(30)).expect("it ran");
    }

    #[tokio::test]
    async fn r22_a_renewal_tells_the_worker_of_the_acts_of_operators() {
        let (heartbeat, lease) = (Heartbeat::default(), lease("log", 1));
        heartbeat.written(&lease, Instant::now());
        let beats = heartbeat.due().await.expect("open");
        heartbeat.renewed(&beats[0], Acts(7));
        assert_eq!(lease.acts(), Acts(7));
    }
}
