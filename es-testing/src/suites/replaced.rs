//! A server that is replaced by another one, which does not have the end of its log.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{
    Append, AppendError, Appended, EventQuery, EventStore, IdempotencyKey, Position, ReadError, RecordedEvent,
    StreamId, Version,
    backend::{AggregateStore, CommandRecord, LoadedStream, Snapshot, SnapshotError, SnapshotStore},
};

/// Two servers under one address: the second one takes over from the first.
#[derive(Debug)]
pub(super) struct Replaced {
    servers: [Arc<dyn AggregateStore>; 2],
    /// How many reads of streams and of events that match a query the first one still answers.
    left: AtomicUsize,
    /// How many such reads there were.
    reads: AtomicUsize,
    /// The append that another process makes before the next append of this one arrives.
    rival: Mutex<Option<Append>>,
    /// The appends that another process makes after the next read of a stream.
    later: Mutex<Vec<Append>>,
}

impl Replaced {
    pub(super) fn new(servers: [Arc<dyn AggregateStore>; 2]) -> Self {
        let (left, reads) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        Self { servers, left, reads, rival: Mutex::default(), later: Mutex::default() }
    }

    /// Lets the second server take over after so many further reads.
    pub(super) fn replace_after(&self, reads: usize) {
        self.left.store(reads, Ordering::SeqCst);
    }

    /// How many reads there were, of streams and of events that match a query.
    #[cfg(test)]
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Lets another process append `rival` before the next append of this one arrives.
    #[cfg(test)]
    pub(super) fn before_the_next_append(&self, rival: Append) {
        *self.rival.lock().expect("nothing panics under it") = Some(rival);
    }

    /// Lets another process make these appends, one after the other, after the next read of a stream.
    pub(super) fn after_the_next_read(&self, appends: Vec<Append>) {
        *self.later.lock().expect("nothing panics under it") = appends;
    }

    fn server(&self) -> &dyn AggregateStore {
        &*self.servers[usize::from(self.left.load(Ordering::SeqCst) == 0)]
    }

    fn reader(&self) -> &dyn AggregateStore {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let server = self.server();
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        server
    }
}

#[async_trait]
impl EventStore for Replaced {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let rival = mem::take(&mut *self.rival.lock().expect("nothing panics under it"));
        if let Some(rival) = rival {
            self.server().append(rival).await?;
        }
        self.server().append(append).await
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.server().append_together(appends).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let read = self.reader().read_stream(stream, after, limit).await;
        let later = mem::take(&mut *self.later.lock().expect("nothing panics under it"));
        for append in later {
            self.server().append(append).await.expect("appended");
        }
        read
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        self.server().read_log(after, limit).await
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader().read_matching(query, after, limit).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        self.server().head().await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        self.server().wait_past(after).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        self.server().find_command(stream, key).await
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        self.server().probe().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        self.server().now().await
    }
}

#[async_trait]
impl SnapshotStore for Replaced {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        self.server().load_snapshot(stream).await
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.server().save_snapshot(snapshot).await
    }
}

#[async_trait]
impl AggregateStore for Replaced {
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        self.reader().load_stream(stream, snapshots, limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use es_core::{
        Append, Expected, MemoryStore, NewEvent, Repository,
        testing::account::{Account, AccountCommand, AccountEvent},
    };

    use super::Replaced;

    /// A command that would be refused reads the state again. If its append then meets a conflict, the next append is decided
    /// on the state that another reader of this process has found meanwhile; the append itself checks that state. (Seen to
    /// fail, with one more read, where the command read again for each later append.)
    ///
    /// On one thread, and with a store that never waits, the command runs up to its pause after the conflict, and the other
    /// reader runs before that pause ends.
    #[tokio::test]
    async fn a_command_that_met_a_conflict_reads_only_what_is_not_known() {
        let memory = MemoryStore::new();
        let server = Arc::new(Replaced::new([Arc::new(memory.clone()), Arc::new(MemoryStore::new())]));
        let accounts = Repository::<Account>::new(server.clone());
        let elsewhere = Repository::<Account>::new(memory.clone());
        accounts.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
        elsewhere.execute("a", AccountCommand::Deposit(9)).await.expect("executed");
        let one_more = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).expect("an event");
        let stream = accounts.stream("a").expect("a valid name");
        server.before_the_next_append(Append::new(stream, Expected::Any, vec![one_more]));

        let before = server.reads();
        let withdrawn = tokio::spawn({
            let accounts = accounts.clone();
            async move { accounts.execute("a", AccountCommand::Withdraw(10)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(server.reads() - before, 1, "it was about to be refused");
        assert_eq!(accounts.load("a").await.expect("loaded").state.balance, 11);
        withdrawn.await.expect("no panic").expect("there is enough");
        assert_eq!(server.reads() - before, 2);
        assert_eq!(accounts.load("a").await.expect("loaded").state.balance, 1);
    }
}
