//! The queue between those who append and the one task that writes. It is bounded in number and bytes, so a slow
//! disk slows its callers instead of filling the memory (R17).

use std::sync::Arc;

use es_core::{Append, AppendError, Appended, Remembered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::Failure;

/// The most appends that wait.
const MAX_QUEUED: usize = 1024;

/// The most bytes that wait or are being written. An append that is larger on its own waits for the whole room.
const MAX_QUEUED_BYTES: u32 = 64 * 1024 * 1024;

pub(crate) type Verdict = Result<Appended, AppendError>;

/// An append that has passed all checks, in the form in which it is written.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) append: Append,
    pub(crate) remembered: Option<Remembered>,
    /// The encoded metadata of each event; empty where there is none.
    pub(crate) metadata: Vec<Vec<u8>>,
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn new(append: Append) -> Result<Self, AppendError> {
        append.validate()?;
        let remembered = append.remembered();
        let metadata: Vec<_> = append.events.iter().map(|new| new.metadata.encode().unwrap_or_default()).collect();
        let payloads = append.events.iter().map(|new| new.data.payload.len());
        let bytes = payloads.chain(metadata.iter().map(Vec::len)).sum();
        Ok(Self { append, remembered, metadata, bytes })
    }
}

/// An append that waits for its verdict.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) prepared: Prepared,
    pub(crate) waiting: Waiting,
}

/// The caller of an append, and the room in the queue that its append takes up until the verdict.
#[derive(Debug)]
pub(crate) struct Waiting {
    reply: oneshot::Sender<Verdict>,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    pub(crate) fn answer(self, verdict: Verdict) {
        // A caller that has gone away does not hear what happened to its append; it happened all the same (R7).
        let _ = self.reply.send(verdict);
    }
}

/// The end of the queue where appends go in.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

impl Queue {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        (Self { sender, room: Arc::new(Semaphore::new(MAX_QUEUED_BYTES as usize)) }, receiver)
    }

    /// Queues `prepared` and returns its verdict.
    ///
    /// # Cancel safety
    /// Until there is room a dropped caller leaves nothing; from then on the writer owns the append (R7).
    pub(crate) async fn append(&self, prepared: Prepared) -> Verdict {
        let bytes = u32::try_from(prepared.bytes).unwrap_or(u32::MAX).min(MAX_QUEUED_BYTES);
        let closed = |_| AppendError::Closed;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| AppendError::Closed)?;
        let (reply, verdict) = oneshot::channel();
        let waiting = Waiting { reply, _room: room };
        self.sender.send(Queued { prepared, waiting }).await.map_err(closed)?;
        verdict.await.unwrap_or_else(|_| Err(Failure::Interrupted.into()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::task::Poll;

    use es_core::{Append, EventData, Expected, Metadata, NewEvent, StreamId};
    use uuid::Uuid;

    use super::{MAX_QUEUED, MAX_QUEUED_BYTES, Prepared, Queue};

    fn prepared(bytes: usize) -> Prepared {
        let payload = format!("\"{}\"", "x".repeat(bytes)).into();
        let data = EventData { name: "test.happened".into(), schema_version: 1, payload };
        let event = NewEvent { id: Uuid::now_v7(), data, metadata: Metadata::default() };
        Prepared::new(Append::new(StreamId::new("test", "a").unwrap(), Expected::Any, vec![event])).unwrap()
    }

    /// How many of `appends` find room in a queue that nobody empties.
    async fn queued(appends: impl Iterator<Item = Prepared>) -> usize {
        let (queue, receiver) = Queue::new();
        let mut waiting: Vec<_> = appends.map(|prepared| Box::pin(queue.append(prepared))).collect();
        let poll_all = std::future::poll_fn(|context| {
            for append in &mut waiting {
                assert!(append.as_mut().poll(context).is_pending());
            }
            Poll::Ready(())
        });
        // Tokio makes a task pause after 128 steps; here only the queue may.
        tokio::task::unconstrained(poll_all).await;
        receiver.len()
    }

    #[tokio::test]
    async fn r17_a_queue_that_is_full_makes_appends_wait() {
        assert_eq!(queued((0..MAX_QUEUED + 100).map(|_| prepared(1))).await, MAX_QUEUED);
    }

    #[tokio::test]
    async fn r17_large_appends_fill_the_queue_sooner() {
        let room = MAX_QUEUED_BYTES as usize / 1_000_000;
        assert_eq!(queued((0..room + 10).map(|_| prepared(999_998))).await, room);
    }
}
