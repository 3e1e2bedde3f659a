//! Renewal of the leases of a process: workers say which leases they still need, and one statement renews all of them. A backend
//! owns one [`Heartbeat`] and writes what is [due](Heartbeat::due).

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::read::read_model::{Lease, Shard};

/// The shortest pause between two renewals.
const SHORTEST: Duration = Duration::from_millis(10);

/// The leases that a store has granted in this process, and until when their workers need them.
///
/// A lease is renewed twice within its length if its worker has asked for that within its length. So the lease of a worker that has
/// ended expires. A process without leases writes nothing.
#[derive(Debug, Default)]
pub struct Heartbeat {
    wanted: Mutex<HashMap<(i64, Shard), Wanted>>,
    news: Notify,
    closed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    fencing_token: i64,
    ttl: Duration,
    /// When its worker asked for it last.
    asked: Instant,
    /// When the store wrote it last.
    written: Instant,
}

impl Wanted {
    /// Whether it was asked for within its length.
    fn is_wanted(&self) -> bool {
        self.asked.elapsed() < self.ttl
    }

    /// Half its length after it was written last; `None` means never.
    fn due(&self) -> Option<Instant> {
        self.written.checked_add(self.ttl / 2)
    }
}

/// A lease that is to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The generation's id.
    pub generation: i64,
    /// Its shard.
    pub shard: Shard,
    /// The fencing token.
    pub fencing_token: i64,
    /// For how long from now.
    pub ttl: Duration,
}

impl Heartbeat {
    fn lock(&self) -> MutexGuard<'_, HashMap<(i64, Shard), Wanted>> {
        self.wanted.lock().expect("nothing panics while it holds the lock")
    }

    /// The store has written `lease` at the time `written`: when it was taken, and with a commit.
    pub fn written(&self, lease: &Lease, written: Instant) {
        self.note(lease, |_| written);
    }

    /// The worker of `lease` wants it from now on for as long as a lease lasts.
    pub fn wants(&self, lease: &Lease) {
        self.note(lease, |known| {
            // A lease that is not known here was dropped because its worker did not ask for it in time: it is due at once.
            let now = Instant::now();
            known.map(|known| known.written).or_else(|| now.checked_sub(lease.ttl)).unwrap_or(now)
        });
    }

    fn note(&self, lease: &Lease, written: impl FnOnce(Option<&Wanted>) -> Instant) {
        let (fencing_token, key) = (lease.fencing_token, (lease.generation.id, lease.shard.clone()));
        let mut all = self.lock();
        let known = all.get(&key);
        // A worker that has lost its lease to another one of this process, and does not know it yet, must not take the
        // other's place here: its lease would seem free.
        if known.is_some_and(|known| known.fencing_token > fencing_token && known.is_wanted()) {
            return;
        }
        let written = written(known.filter(|known| known.fencing_token == fencing_token));
        all.insert(key, Wanted { fencing_token, ttl: lease.ttl, asked: Instant::now(), written });
        self.news.notify_one();
    }

    /// The outcome of `work`. While it runs, `lease` is renewed: a step that waits for a connection or a lock must not lose it.
    pub async fn during<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.wants(lease);
            let asked_again = tokio::time::sleep((lease.ttl / 3).max(SHORTEST));
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                () = asked_again => {}
            }
        }
    }

    /// `lease` was released or is lost.
    pub fn ended(&self, lease: &Lease) {
        self.forget(lease.generation.id, &lease.shard, lease.fencing_token);
    }

    /// A lease that [`due`](Self::due) has returned is lost.
    pub fn lost(&self, beat: &Beat) {
        self.forget(beat.generation, &beat.shard, beat.fencing_token);
    }

    fn forget(&self, generation: i64, shard: &Shard, fencing_token: i64) {
        let mut all = self.lock();
        let key = (generation, shard.clone());
        if all.get(&key).is_some_and(|wanted| wanted.fencing_token == fencing_token) {
            all.remove(&key);
        }
    }

    /// The leases that [`due`](Self::due) has returned could not be written: they are due again.
    pub fn failed(&self, beats: &[Beat]) {
        let mut all = self.lock();
        for beat in beats {
            if let Some(wanted) = all.get_mut(&(beat.generation, beat.shard.clone())) {
                wanted.written = wanted.written.checked_sub(wanted.ttl / 2).unwrap_or(wanted.written);
            }
        }
    }

    /// Ends it: leases that are granted from now on are not renewed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Whether a worker of this process needs the lease with `token` on this shard.
    pub fn is_wanted(&self, generation: i64, shard: &Shard, fencing_token: i64) -> bool {
        let all = self.lock();
        all.get(&(generation, shard.clone()))
            .is_some_and(|wanted| wanted.fencing_token == fencing_token && wanted.is_wanted())
    }

    /// Waits until a lease is due and returns all leases of the process, so that one statement renews them together. Those that no
    /// worker needs any more are left to expire. `None` when it is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn due(&self) -> Option<Vec<Beat>> {
        while !self.closed.load(Ordering::Acquire) {
            let next = self.lock().values().filter_map(Wanted::due).min();
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
            all.retain(|_, wanted| wanted.is_wanted());
            if !all.values().filter_map(Wanted::due).any(|due| due <= now) {
                continue;
            }
            let beats = all.iter_mut().map(|((generation, shard), wanted)| {
                wanted.written = now;
                Beat {
                    generation: *generation,
                    shard: shard.clone(),
                    fencing_token: wanted.fencing_token,
                    ttl: wanted.ttl,
                }
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
    use crate::read::read_model::{Checkpoint, Generation};

    const TTL: Duration = Duration::from_millis(100);

    fn lease(shard: &str, fencing_token: i64) -> Lease {
        let generation = Generation { id: 1, projection: "model".into(), version: 1 };
        let checkpoint = Checkpoint::default();
        Lease { generation, shard: Shard::from(shard), owner: Uuid::nil(), fencing_token, ttl: TTL, checkpoint }
    }

    #[tokio::test]
    async fn r18_all_leases_are_renewed_together_after_half_of_their_length() {
        let (heartbeat, start) = (Heartbeat::default(), Instant::now());
        for number in 0..10 {
            heartbeat.written(&lease(&format!("topic/{number}"), 1), Instant::now());
        }
        assert_eq!(heartbeat.due().await.map(|beats| beats.len()), Some(10));
        assert!(start.elapsed() >= TTL / 2);
    }

    #[tokio::test]
    async fn r18_the_lease_of_a_worker_that_is_gone_is_left_to_end() {
        let (heartbeat, start) = (Heartbeat::default(), Instant::now());
        heartbeat.written(&lease("dropped", 1), Instant::now());
        loop {
            heartbeat.wants(&lease("kept", 1));
            let beats = heartbeat.due().await.expect("open");
            if beats.iter().map(|beat| &*beat.shard.source).eq(["kept"]) {
                break;
            }
            assert!(start.elapsed() < TTL * 2, "{beats:?}");
        }
        assert!(!heartbeat.is_wanted(1, &Shard::from("dropped"), 1));
    }

    /// Seen to fail where the former holder took the place of the present one: a third worker took the lease from that.
    #[tokio::test]
    async fn r9_a_worker_that_has_lost_its_lease_does_not_end_that_of_the_next() {
        let heartbeat = Heartbeat::default();
        heartbeat.written(&lease("log", 1), Instant::now());
        // Another worker takes it over; the former one asks for it before it knows.
        heartbeat.written(&lease("log", 2), Instant::now());
        heartbeat.wants(&lease("log", 1));
        heartbeat.ended(&lease("log", 1));
        assert!(heartbeat.is_wanted(1, &Shard::from("log"), 2));
        // A database that was restored returns lower fencing tokens again.
        tokio::time::sleep(TTL).await;
        heartbeat.written(&lease("log", 1), Instant::now());
        assert!(heartbeat.is_wanted(1, &Shard::from("log"), 1));
    }

    #[tokio::test]
    async fn a_lease_without_end_is_never_due_and_one_that_was_given_back_neither() {
        let heartbeat = Heartbeat::default();
        let forever = Lease { ttl: Duration::MAX, ..lease("forever", 1) };
        heartbeat.written(&forever, Instant::now());
        heartbeat.wants(&forever);
        heartbeat.written(&Lease { ttl: Duration::ZERO, ..lease("log", 2) }, Instant::now());
        heartbeat.written(&lease("other", 2), Instant::now());
        heartbeat.ended(&lease("other", 1));
        assert!(heartbeat.is_wanted(1, &Shard::from("other"), 2), "an older fencing token ends nothing");
        heartbeat.ended(&lease("other", 2));
        assert!(tokio::time::timeout(TTL, heartbeat.due()).await.is_err());
        heartbeat.close();
        assert_eq!(heartbeat.due().await, None);
    }
}
