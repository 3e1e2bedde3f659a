//! The log as a source.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{
    Batch, Delivery, EventFeed, EventSource, SourceError, Subscription,
    pages::{Pages, Sharer},
};
use crate::{
    event::{Categories, RecordedEvent},
    read::read_model::{Checkpoint, Shard, Takeover},
    stream::Position,
    witness::Witness,
    write::store::{EventStore, ReadError, check_contiguous, is_last_page},
};

/// The log as a source: one shard in commit order, which suits every projection. Readers of one source, and of its clones, share
/// the pages that they read at about the same time: five read models that are rebuilt together read the log once.
#[derive(Debug, Clone)]
pub struct LogSource {
    pages: Arc<Pages>,
    batch: usize,
}

impl LogSource {
    /// The most events of one batch, unless set otherwise.
    pub const DEFAULT_BATCH: usize = 4_000;

    /// The log of `store`.
    pub fn new(store: impl EventStore) -> Self {
        Self { pages: Arc::new(Pages::of(Arc::new(store))), batch: Self::DEFAULT_BATCH }
    }

    /// Reads at most `events` at once, and fewer if they are large: a store bounds the bytes of a page (R17).
    pub fn batch(self, events: usize) -> Self {
        Self { batch: events.max(1), ..self }
    }

    /// The one shard of a log.
    pub fn shard() -> Shard {
        Shard::from("log")
    }
}

#[async_trait]
impl EventSource for LogSource {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Ok(Box::new(LogFeed {
            pages: Pages::join(&self.pages),
            batch: self.batch,
            categories: subscription.categories.clone(),
            assigned: false,
            after: None,
            ahead: JoinSet::new(),
            said_end: false,
        }))
    }
}

#[derive(Debug)]
struct LogFeed {
    pages: Sharer,
    batch: usize,
    categories: Categories,
    assigned: bool,
    after: Option<Checkpoint>,
    /// The page after it, which is read while the reader handles the one before.
    ahead: JoinSet<Result<Vec<RecordedEvent>, ReadError>>,
    /// Whether the reader knows that it has everything.
    said_end: bool,
}

/// How long a feed waits for new events before it returns an empty batch.
const IDLE: Duration = Duration::from_millis(500);

impl LogFeed {
    /// The most events of a page: the last known one is read again, since a log that was restored from an older copy, or that
    /// lost its end in a failover, may hold another event there, or none.
    fn page(&self, after: Position) -> usize {
        self.batch.saturating_add(usize::from(after > Position::ZERO))
    }

    /// Reads the page after `after`.
    fn read(&self, after: Position) -> impl Future<Output = Result<Vec<RecordedEvent>, ReadError>> + use<> {
        let (pages, page, from) = (self.pages.pages(), self.page(after), after.get().saturating_sub(1));
        async move { pages.read(Position::new(from), page).await }
    }
}

#[async_trait]
impl EventFeed for LogFeed {
    fn shards(&self) -> Vec<Shard> {
        vec![LogSource::shard()]
    }

    fn takeover(&self) -> Takeover {
        Takeover::WhenFree
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(Delivery::Assigned(self.shards()));
        }
        let Some(after) = self.after.clone() else {
            tokio::time::sleep(IDLE).await;
            return Ok(Delivery::Idle);
        };
        let mut events = match self.ahead.join_next().await {
            Some(read) => read.map_err(|cause| SourceError::Unavailable(cause.into()))??,
            None => self.read(after.position).await?,
        };
        let at_end = is_last_page(&events, self.page(after.position));
        if after.position > Position::ZERO {
            let last = if events.is_empty() { None } else { Some(events.remove(0)) };
            let is_other = |last: &RecordedEvent| after.witness.is_some_and(|witness| witness != Witness::of(last));
            if last.is_none_or(|last| last.position != after.position || is_other(&last)) {
                return Err(SourceError::OtherHistory { position: after.position });
            }
        }
        let Some(last) = events.last() else {
            if !std::mem::replace(&mut self.said_end, true) {
                let end = Some(after.position);
                return Ok(Delivery::Batch(Batch { shard: LogSource::shard(), events, checkpoint: after, end }));
            }
            // The next call reads the new events.
            if let Ok(waited) = tokio::time::timeout(IDLE, self.pages.store().wait_past(after.position)).await {
                waited?;
            }
            return Ok(Delivery::Idle);
        };
        check_contiguous(after.position, &events)?;
        let checkpoint = Checkpoint { position: last.position, witness: Some(Witness::of(last)), cursor: None };
        self.after = Some(checkpoint.clone());
        self.said_end = at_end;
        if !at_end {
            self.ahead.spawn(self.read(checkpoint.position));
        }
        events.retain(|event| self.categories.contains(event.stream.category()));
        let end = at_end.then_some(checkpoint.position);
        Ok(Delivery::Batch(Batch { shard: LogSource::shard(), events, checkpoint, end }))
    }

    async fn start(&mut self, _shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        (self.after, self.ahead) = (Some(checkpoint.clone()), JoinSet::new());
        Ok(())
    }
}
