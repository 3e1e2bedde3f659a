//! What one reader gets of the log: the events of its shards.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::{
    event::{Categories, RecordedEvent},
    of_engine::likewise,
    read::{
        read_model::{Checkpoint, Shard, Slice, Takeover},
        source::{
            Batch, BatchEvents, Delivery, EventFeed, SourceError, Split, Subscription,
            events::{self, Wanted},
            pages::Sharer,
        },
    },
    stream::Position,
    witness::Witness,
    write::store::{ReadError, check_contiguous, is_last_page},
};

/// How long a feed waits for new events before the reader attends to operators and tries the leases of others (R18), and before the last
/// event is read again.
const IDLE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct LogFeed {
    pages: Sharer,
    batch: usize,
    categories: Categories,
    split: Split,
    shards: Vec<Shard>,
    assigned: bool,
    started: Vec<Started>,
    /// The page that was read last: the other shards at its beginning have the same events.
    page: Option<Page>,
    /// The page after it, which is read while the reader handles the one before.
    ahead: JoinSet<Result<Page, ReadError>>,
}

/// A shard that the reader holds.
#[derive(Debug)]
struct Started {
    shard: Shard,
    after: Checkpoint,
    /// Whether the reader knows that it has everything.
    said_end: bool,
    /// Whether a page may hold more of it: not from its end until the log was waited for.
    has_more: bool,
}

/// A page of the log as it was read.
#[derive(Debug)]
struct Page {
    after: Position,
    /// The event at `after`, and those that follow it.
    read: Arc<events::Page>,
    is_last: bool,
}

impl LogFeed {
    pub(super) fn new(pages: Sharer, batch: usize, subscription: &Subscription, shards: Vec<Shard>) -> Self {
        let Subscription { categories, split, .. } = subscription.clone();
        let (started, page, ahead) = (Vec::new(), None, JoinSet::new());
        Self { pages, batch, categories, split, shards, assigned: false, started, page, ahead }
    }

    /// Reads the page after `after`. Where it begins does not matter for where it ends, so readers that began apart share pages
    /// after their first one. The last known event is read again, since a log that was restored from an older copy, or that lost
    /// its end in a failover, may hold another event there, or none.
    fn read(&self, after: Position) -> impl Future<Output = Result<Page, ReadError>> + use<> {
        let begun = usize::try_from(after.get() % self.batch as u64).unwrap_or_default();
        let limit = (self.batch - begun).saturating_add(usize::from(after > Position::ZERO));
        let (pages, from) = (self.pages.pages(), Position::new(after.get().saturating_sub(1)));
        async move {
            let read = pages.read(from, limit).await?;
            let is_last = is_last_page(read.events(), limit);
            Ok(Page { after, read, is_last })
        }
    }

    /// The page after `after`, which may have been read already.
    async fn page(&mut self, after: Position) -> Result<Page, SourceError> {
        if let Some(page) = self.page.take_if(|page| page.after == after) {
            return Ok(page);
        }
        let ahead = match self.ahead.join_next().await {
            Some(read) => Some(read.map_err(|cause| SourceError::Unavailable(cause.into()))??),
            None => None,
        };
        // Another shard may begin elsewhere.
        let page = match ahead.filter(|page| page.after == after) {
            Some(page) => page,
            None => self.read(after).await?,
        };
        if let Some(last) = page.read.events().last().filter(|_| !page.is_last) {
            self.ahead.spawn(likewise(self.read(last.position)));
        }
        Ok(page)
    }

    /// The next events of the started shard number `nth`; `None` if there are none and the reader knows that.
    async fn batch(&mut self, nth: usize) -> Result<Option<Batch>, SourceError> {
        let Started { shard, after, .. } = &self.started[nth];
        let (shard, after) = (shard.clone(), after.clone());
        let page = self.page(after.position).await?;
        let events = page.read.events();
        let known = usize::from(after.position > Position::ZERO);
        if known > 0 {
            let is_other = |last: &RecordedEvent| after.witness.is_some_and(|witness| witness != Witness::of(last));
            if events.first().is_none_or(|last| last.position != after.position || is_other(last)) {
                return Err(SourceError::OtherHistory { position: after.position });
            }
        }
        let is_one_of_several = self.started.len() > 1;
        let started = &mut self.started[nth];
        let Some(last) = events[known..].last() else {
            started.has_more = false;
            let batch = (!started.said_end).then(|| {
                started.said_end = true;
                let end = Some(after.position);
                Batch { shard, events: BatchEvents::default(), checkpoint: after, end }
            });
            self.page = Some(page);
            return Ok(batch);
        };
        check_contiguous(after.position, &events[known..])?;
        let checkpoint = Checkpoint { position: last.position, witness: Some(Witness::of(last)), cursor: None };
        (started.after, started.said_end) = (checkpoint.clone(), page.is_last);
        let end = page.is_last.then_some(checkpoint.position);
        let streams = if self.split.by_stream { shard.slice() } else { Slice::ALL };
        let read = page.read.clone();
        // Another shard may begin where this one did.
        self.page = is_one_of_several.then_some(page);
        let events = read.part(known, &Wanted { categories: self.categories.clone(), streams });
        Ok(Some(Batch { shard, events, checkpoint, end }))
    }

    /// The shard that is furthest behind of those that may have more.
    fn next_shard(&self) -> Option<usize> {
        let more = self.started.iter().enumerate().filter(|(_, started)| started.has_more);
        more.min_by_key(|(_, started)| started.after.position).map(|(nth, _)| nth)
    }
}

#[async_trait]
impl EventFeed for LogFeed {
    fn shards(&self) -> Vec<Shard> {
        self.shards.clone()
    }

    fn takeover(&self) -> Takeover {
        Takeover::WhenFree
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(Delivery::Assigned(self.shards()));
        }
        while let Some(nth) = self.next_shard() {
            if let Some(batch) = self.batch(nth).await? {
                return Ok(Delivery::Batch(batch));
            }
        }
        // The next call reads the new events, and sees whether the log still has the last ones.
        self.page = None;
        match self.started.iter().map(|started| started.after.position).min() {
            None => tokio::time::sleep(IDLE).await,
            Some(after) => {
                if let Ok(waited) = tokio::time::timeout(IDLE, self.pages.store().wait_past(after)).await {
                    waited?;
                }
            }
        }
        self.started.iter_mut().for_each(|started| started.has_more = true);
        Ok(Delivery::Idle)
    }

    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        self.stop(shard);
        let (shard, after) = (shard.clone(), checkpoint.clone());
        self.started.push(Started { shard, after, said_end: false, has_more: true });
        Ok(())
    }

    fn stop(&mut self, shard: &Shard) -> bool {
        self.started.retain(|started| started.shard != *shard);
        true
    }
}
