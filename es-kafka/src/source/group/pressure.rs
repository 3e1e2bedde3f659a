//! What a group does while its reader is slow.

use std::time::{Duration, Instant};

use es_core::backend::SourceError;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Group, Partitions};
use crate::client::unavailable;

/// How long the reader may keep the thread from polling before the partitions are paused instead.
const STALL: Duration = Duration::from_secs(1);

/// Whether the reader has room.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    full_since: Option<Instant>,
    paused: bool,
}

impl Pressure {
    /// Waits for a slow reader, which is `full`; when it is very slow, the partitions are paused and polled all the
    /// same, since Kafka takes a member that does not poll for dead. Returns whether to poll.
    pub(crate) fn push_back<P: Partitions>(
        &mut self,
        consumer: &BaseConsumer<Group<P>>,
        full: bool,
    ) -> Result<bool, SourceError> {
        let group = consumer.context();
        if !full {
            self.full_since = None;
            if std::mem::take(&mut self.paused) {
                consumer.resume(&group.readable()).map_err(unavailable)?;
            }
            return Ok(true);
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        group.outbox.wait_for_room(Duration::from_millis(200));
        if since.elapsed() >= STALL {
            // Again each time: a pause belongs to an assignment, and there may be a new one.
            consumer.pause(&group.assignment()).map_err(unavailable)?;
            self.paused = true;
        }
        Ok(self.paused)
    }
}
