//! The queue between the callers of `append` and the one task that writes. It is bounded in number and bytes, so a slow
//! disk slows down its callers and does not fill the memory (R17).

use es_core::{
    Append, AppendError, Appended, StreamId,
    backend::{Remembered, validate_together},
    write::rooms::{LARGE_BYTES, Rooms, Taken},
};
use tokio::sync::{mpsc, oneshot};

use crate::{error::Failure, options::SqliteOptions};

/// The outcome of appends that are made together: of each of them in their order, or one error for all.
pub(crate) type Outcome = Result<Vec<Appended>, AppendError>;

/// Appends that are made together (most often only one), in the form in which they are written. Their input has been
/// checked.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) appends: Vec<Append>,
    encoded: Vec<Encoded>,
    pub(crate) bytes: usize,
}

/// What is computed from an append before the writer takes it.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) remembered: Option<Remembered>,
    /// The encoded metadata of each event; empty where there is none.
    pub(crate) metadata: Vec<Vec<u8>>,
    /// The bytes of payloads, metadata and other parts of any size.
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn new(appends: Vec<Append>) -> Result<Self, AppendError> {
        validate_together(&appends)?;
        let encoded: Vec<_> = appends.iter().map(Encoded::new).collect();
        let bytes = encoded.iter().map(|encoded| encoded.bytes).sum();
        Ok(Self { appends, encoded, bytes })
    }

    /// Whether it gets a transaction of its own, so that small appends do not wait for it.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes > LARGE_BYTES
    }

    /// The streams to which it appends.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamId> + Clone {
        self.appends.iter().map(|append| &append.stream)
    }

    /// Each append with its encoded parts.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Append, &Encoded)> {
        self.appends.iter().zip(&self.encoded)
    }
}

impl Encoded {
    fn new(append: &Append) -> Self {
        let metadata: Vec<_> = append.events.iter().map(|new| new.metadata.encode().unwrap_or_default()).collect();
        let payloads = append.events.iter().map(|new| new.data.payload.len());
        let items = || append.condition_parts().flat_map(|part| part.query.items());
        let tags = append.events.iter().flat_map(|new| &new.tags).chain(items().flat_map(|item| &item.tags));
        let names = items().flat_map(|item| &item.names).map(|name| name.len());
        let tags = tags.map(|tag| tag.as_str().len());
        let bytes = payloads.chain(metadata.iter().map(Vec::len)).chain(tags).chain(names).sum();
        Self { remembered: append.remembered(), metadata, bytes }
    }
}

/// Appends in the queue, and the caller that waits for their outcome.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) prepared: Prepared,
    pub(crate) waiting: Waiting,
}

/// The caller of appends, and the room that they occupy in the queue until their outcome is known.
#[derive(Debug)]
pub(crate) struct Waiting {
    reply: oneshot::Sender<Outcome>,
    _room: Taken,
}

impl Waiting {
    pub(crate) fn answer(self, outcome: Outcome) {
        // The caller may have been dropped. The outcome is valid in this case too (R7).
        let _ = self.reply.send(outcome);
    }
}

/// The sending end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Queued>,
    rooms: Rooms,
}

impl Queue {
    pub(crate) fn new(options: &SqliteOptions) -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(options.queue_appends);
        (Self { sender, rooms: Rooms::new(options.queue_bytes, options.queue_bytes) }, receiver)
    }

    /// Queues `prepared` and returns its outcome.
    ///
    /// # Cancel safety
    /// A caller that is dropped before there is room leaves nothing. From then on the writer owns the appends (R7).
    pub(crate) async fn append(&self, prepared: Prepared) -> Outcome {
        let mut entrance = self.rooms.enter(prepared.streams(), prepared.bytes);
        let room = entrance.room().await.ok_or(AppendError::Closed)?;
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting { reply, _room: room };
        self.sender.send(Queued { prepared, waiting }).await.map_err(|_| AppendError::Closed)?;
        drop(entrance);
        outcome.await.unwrap_or_else(|_| Err(Failure::Interrupted.into()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::task::Poll;

    use es_core::{Append, EventData, Expected, NewEvent, StreamId};

    use super::{LARGE_BYTES, Prepared, Queue};
    use crate::SqliteStore;

    const QUEUE_BYTES: usize = 64_000_000;

    fn prepared(bytes: usize) -> Prepared {
        to("a", bytes)
    }

    /// An append of `bytes` of events together, each of at most half a megabyte.
    fn to(id: &str, bytes: usize) -> Prepared {
        let part = |bytes| {
            let payload = format!("\"{}\"", "x".repeat(bytes - 2)).into();
            NewEvent::new(EventData { name: "test.happened".into(), schema_version: 1, payload })
        };
        let parts = (0..bytes / 500_000).map(|_| part(500_000));
        let rest = (!bytes.is_multiple_of(500_000)).then(|| part(bytes % 500_000));
        let append = Append::new(StreamId::new("test", id).unwrap(), Expected::Any, parts.chain(rest).collect());
        Prepared::new(vec![append]).unwrap()
    }

    /// How many of `appends` fit into a queue that no writer empties.
    async fn queued(appends: impl Iterator<Item = Prepared>) -> usize {
        let options = SqliteStore::options("events.db").queue_appends(100).queue_bytes(QUEUE_BYTES);
        let (queue, receiver) = Queue::new(&options);
        let mut waiting: Vec<_> = appends.map(|prepared| Box::pin(queue.append(prepared))).collect();
        let poll_all = std::future::poll_fn(|context| {
            for append in &mut waiting {
                assert!(append.as_mut().poll(context).is_pending());
            }
            Poll::Ready(())
        });
        // Tokio makes a task yield after 128 operations; here only a full queue may make it wait.
        tokio::task::unconstrained(poll_all).await;
        receiver.len()
    }

    #[tokio::test]
    async fn r17_a_queue_that_is_full_makes_appends_wait() {
        assert_eq!(queued((0..110).map(|_| prepared(3))).await, 100);
    }

    #[tokio::test]
    async fn r17_large_appends_fill_the_queue_sooner() {
        for bytes in [1_000_000, 2_000_000] {
            let room = QUEUE_BYTES / bytes;
            assert_eq!(queued((0..room + 10).map(|_| prepared(bytes))).await, room);
        }
    }

    #[tokio::test]
    async fn r17_small_appends_wait_only_for_large_ones_of_their_stream() {
        let large = || to("large", 40_000_000);
        // The second one waits for the room of the first.
        assert_eq!(queued([large(), large(), to("small", 3)].into_iter()).await, 2);
        assert_eq!(queued([large(), large(), to("large", 3)].into_iter()).await, 1, "it keeps its place");
        assert!(!to("small", LARGE_BYTES).is_large() && to("large", LARGE_BYTES + 3).is_large());
    }
}
