//! What a relay does while another one of its name publishes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{EventStore, Position};
use tokio_util::sync::CancellationToken;

use crate::{
    aside,
    config::{KafkaSourceConfig, RelayConfig},
    follower::Follower,
    progress::Progress,
};

/// How often the relay that stands by looks at log and progress.
const LOOK: Duration = Duration::from_millis(500);
/// How long the other relay may have news and publish none of it, at first.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest that it waits for the other one to make progress.
const MOST_PATIENCE: Duration = Duration::from_mins(5);

/// Decides when a relay that was fenced takes over again.
///
/// Opening a producer fences the relay that publishes and aborts its transaction. Two relays that did this to each other
/// in turn would publish nothing. So the one that was fenced waits until the other one has had news for some
/// time and published none of it; that time doubles each time that a takeover was followed by no progress, until any
/// transaction fits into it.
#[derive(Debug)]
pub(crate) struct Standby {
    patience: Duration,
    known: Option<Position>,
    /// Since when there has been news and no progress.
    stuck: Option<Instant>,
}

impl Standby {
    pub(crate) fn new() -> Self {
        Self { patience: PATIENCE, known: None, stuck: None }
    }

    /// This relay was fenced: it starts to watch.
    fn begin(&mut self) {
        self.stuck = None;
    }

    /// Takes in what log and progress look like, and says whether it is time to take over.
    fn is_due(&mut self, head: Position, published: Option<Position>, now: Instant) -> bool {
        // Less is progress too: the topics are filled again.
        if published != self.known {
            (self.known, self.patience) = (published, PATIENCE);
            self.stuck = None;
        }
        if head <= published.unwrap_or_default() {
            self.stuck = None;
            return false;
        }
        let since = *self.stuck.get_or_insert(now);
        if now.duration_since(since) < self.patience {
            return false;
        }
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
        true
    }

    /// Returns when this relay should publish again; `false` on the shutdown.
    pub(crate) async fn wait(
        &mut self,
        store: &Arc<dyn EventStore>,
        config: &RelayConfig,
        shutdown: &CancellationToken,
    ) -> bool {
        self.begin();
        let mut progress = Watched { config: reader(config), follower: None, told: false, published: self.known };
        loop {
            let Some(()) = shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await else { return false };
            progress = progress.look().await;
            let Some(head) = shutdown.run_until_cancelled(store.head()).await else { return false };
            // Without the log this relay has nothing to publish.
            let Ok(head) = head else { continue };
            if self.is_due(head, progress.published, Instant::now()) {
                return true;
            }
        }
    }
}

/// How the progress of this relay's name is read: as a source reads it.
fn reader(config: &RelayConfig) -> KafkaSourceConfig {
    KafkaSourceConfig {
        topic_prefix: config.topic_prefix.clone(),
        settings: config.settings.clone(),
        ..KafkaSourceConfig::new(&config.brokers, &config.name)
    }
}

/// The progress as far as it was read, with the client that reads it.
struct Watched {
    config: KafkaSourceConfig,
    follower: Option<Follower>,
    /// Whether the client has told how far the relay has come: before that, `published` is of the former one.
    told: bool,
    published: Option<Position>,
}

impl Watched {
    /// Reads on. Where that fails the next call begins with a new client.
    async fn look(mut self) -> Self {
        let config = self.config.clone();
        let looked = aside::done(move || {
            let outcome = self.read();
            if let Err(error) = outcome {
                tracing::debug!(error = &error as &dyn std::error::Error, "the other relay's progress cannot be read");
                (self.follower, self.told) = (None, false);
            }
            self
        });
        looked.await.unwrap_or(Self { config, follower: None, told: false, published: None })
    }

    fn read(&mut self) -> Result<(), es_core::backend::SourceError> {
        let follower = match &mut self.follower {
            Some(follower) => follower,
            none => none.insert(Follower::new(&self.config, "relay-standby")?),
        };
        let newest = follower.newest()?.map(|Progress { position, .. }| position);
        if newest.is_some() || (!self.told && follower.knows_newest()) {
            (self.published, self.told) = (newest, true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_takes_over_when_there_is_news_and_no_progress_and_later_each_time() {
        let (mut standby, start) = (Standby::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let position = Position::new;
        standby.begin();
        assert!(!standby.is_due(position(5), Some(position(5)), at(0)));
        assert!(!standby.is_due(position(5), Some(position(5)), at(60)), "there is no news");
        assert!(!standby.is_due(position(6), Some(position(5)), at(61)));
        assert!(!standby.is_due(position(9), Some(position(6)), at(65)), "it makes progress");
        assert!(!standby.is_due(position(9), Some(position(6)), at(67)));
        assert!(standby.is_due(position(9), Some(position(6)), at(68)));
        // Fenced again, and still no progress: the other one gets more time.
        standby.begin();
        assert!(!standby.is_due(position(9), Some(position(6)), at(71)));
        assert!(!standby.is_due(position(9), Some(position(6)), at(76)));
        assert!(standby.is_due(position(9), Some(position(6)), at(77)));
        standby.begin();
        assert!(!standby.is_due(position(9), Some(position(8)), at(82)), "any progress starts the count again");
        assert!(standby.is_due(position(9), Some(position(8)), at(85)));
        standby.begin();
        for (filled_anew, second) in [(2, 90), (3, 95), (4, 97)] {
            assert!(!standby.is_due(position(9), Some(position(filled_anew)), at(second)), "it makes progress");
        }
        assert!(standby.is_due(position(9), Some(position(4)), at(100)));
    }
}
