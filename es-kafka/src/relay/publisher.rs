//! The thread that owns the transactional producer, since every call of it may block.

use std::sync::{Arc, mpsc};

use es_core::{Position, RecordedEvent};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{claims::Claims, failure::PublishError, producer::SHUTDOWN_GRACE, transactions::Transactions};
use crate::{
    config::{RelayConfig, StepHook},
    progress::Progress,
};

/// The async side of the thread.
#[derive(Debug)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    ended: oneshot::Receiver<()>,
}

struct Job {
    events: Vec<RecordedEvent>,
    claims: Claims,
    head: Position,
    reply: oneshot::Sender<Result<Progress, PublishError>>,
}

impl Publisher {
    /// Fences every other producer of this name, then tells how far it had come.
    pub(crate) async fn open(
        config: &Arc<RelayConfig>,
        hook: Option<StepHook>,
        shutdown: &CancellationToken,
    ) -> Result<(Self, Option<Progress>), PublishError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (opened, resumed) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let (config, shutdown) = (config.clone(), shutdown.clone());
        std::thread::Builder::new()
            .name(format!("relay-{}", config.name))
            .spawn(move || {
                // Dropped last, after the producer.
                let _ending: oneshot::Sender<()> = ending;
                let mut transactions = match Transactions::open(config, hook, shutdown) {
                    Ok(transactions) => transactions,
                    Err(error) => {
                        _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(transactions.progress.clone())).is_err() {
                    return;
                }
                while let Ok(Job { events, claims, head, reply }) = inbox.recv() {
                    let outcome = transactions.publish(&events, &claims, head);
                    let failed = outcome.is_err();
                    _ = reply.send(outcome);
                    if failed {
                        return;
                    }
                }
            })
            .map_err(|error| {
                tracing::warn!(%error, "the producer's thread cannot be started");
                PublishError::Kafka(KafkaError::Global(RDKafkaErrorCode::CriticalSystemResource))
            })?;
        let progress = resumed.await.map_err(|_| PublishError::Gone)??;
        Ok((Self { jobs, ended }, progress))
    }

    /// Publishes `events`, of which some have `claims`, and that the log ends at `head` in one transaction. After an error the
    /// publisher is spent.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either nothing or the whole: the thread finishes the transaction.
    pub(crate) async fn publish(
        &self,
        events: Vec<RecordedEvent>,
        claims: Claims,
        head: Position,
    ) -> Result<Progress, PublishError> {
        let (reply, outcome) = oneshot::channel();
        self.jobs.send(Job { events, claims, head, reply }).map_err(|_| PublishError::Gone)?;
        outcome.await.map_err(|_| PublishError::Gone)?
    }

    /// Returns when the producer is closed, or after a while.
    pub(crate) async fn close(self) {
        drop(self.jobs);
        _ = tokio::time::timeout(SHUTDOWN_GRACE, self.ended).await;
    }
}
