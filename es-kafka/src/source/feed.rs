//! The reader's side of a consumer, and the thread that the consumer runs on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_core::backend::{Checkpoint, Delivery, EventFeed, Shard, SourceError, Takeover};

use super::{outbox::Outbox, watchdog::Watchdog};

/// How long a feed waits for news before it says that there is none.
const IDLE: Duration = Duration::from_millis(500);

/// Runs a consumer on a thread of its own, and tells the reader how it ended.
pub(crate) fn spawn(
    name: String,
    outbox: Arc<Outbox>,
    run: impl FnOnce(&Arc<Outbox>) -> Result<(), SourceError> + Send + 'static,
) -> Result<(), SourceError> {
    /// Also a panic must not leave the reader waiting for ever.
    struct Ending(Arc<Outbox>, Option<SourceError>);
    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.end(self.1.take());
        }
    }
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let mut ending = Ending(outbox.clone(), None);
        ending.1 = run(&outbox).err();
    });
    thread.map(drop).map_err(|error| SourceError::Unavailable(error.into()))
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct KafkaFeed {
    outbox: Arc<Outbox>,
    takeover: Takeover,
    watchdog: Watchdog,
    /// When the watchdog looked last.
    looked: Instant,
}

impl KafkaFeed {
    pub(crate) fn new(outbox: Arc<Outbox>, takeover: Takeover, watchdog: Watchdog) -> Self {
        Self { outbox, takeover, watchdog, looked: Instant::now() }
    }
}

#[async_trait]
impl EventFeed for KafkaFeed {
    fn shards(&self) -> Vec<Shard> {
        self.outbox.shards()
    }

    fn takeover(&self) -> Takeover {
        self.takeover
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        let deadline = Instant::now() + IDLE;
        if self.looked.elapsed() >= IDLE {
            self.watchdog.look(&self.outbox.sight())?;
            self.looked = Instant::now();
        }
        loop {
            if let Some(delivery) = self.outbox.pop()? {
                return Ok(delivery);
            }
            // The queue is looked at before and after: dropping this future loses nothing.
            if tokio::time::timeout_at(deadline.into(), self.outbox.news()).await.is_err() {
                return Ok(Delivery::Idle);
            }
        }
    }

    fn urgent(&mut self) -> Option<Delivery> {
        self.outbox.pop_turn()
    }

    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        self.outbox.start(shard, checkpoint);
        Ok(())
    }

    fn committed(&mut self, shard: &Shard, checkpoint: &Checkpoint) {
        self.outbox.committed(shard, checkpoint);
    }
}

impl Drop for KafkaFeed {
    /// Tells the thread to end; it leaves the group by itself, so that no runtime thread waits for it.
    fn drop(&mut self) {
        self.outbox.stop();
    }
}
