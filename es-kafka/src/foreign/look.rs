//! Whether the topics beside a topic are still as they were when it was opened.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::backend::{SourceError, Subscription};
use tokio::{
    runtime::Handle,
    sync::{Mutex, oneshot},
};

use super::{
    KafkaTopic,
    settings::{self, Said},
};

/// Looks now and then, without keeping the reading thread.
pub(super) struct Look {
    of: KafkaTopic,
    subscription: Subscription,
    /// The topics that are read.
    topics: Vec<String>,
    said: Arc<Mutex<Said>>,
    runtime: Handle,
    last: Instant,
    /// What is asked at the moment.
    asked: Option<oneshot::Receiver<SourceError>>,
}

impl Look {
    /// For the `topics` of `of`, in the runtime that this is called in.
    pub(super) fn new(of: &KafkaTopic, subscription: &Subscription, topics: Vec<String>, said: Said) -> Self {
        let (of, subscription) = (of.clone(), subscription.clone());
        let (said, runtime) = (Arc::new(Mutex::new(said)), Handle::current());
        Self { of, subscription, topics, said, runtime, last: Instant::now(), asked: None }
    }

    fn every(&self) -> Duration {
        self.of.check_topics_every
    }

    /// Looks if it is time.
    ///
    /// # Errors
    /// If a retry topic was created, which is transient: the source is opened again with it. And if one of the topics loses records now.
    pub(super) fn turn(&mut self) -> Result<(), SourceError> {
        if let Some(asked) = &mut self.asked {
            match asked.try_recv() {
                Ok(ends) => return Err(ends),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                Err(oneshot::error::TryRecvError::Closed) => self.asked = None,
            }
        }
        if self.last.elapsed() < self.every() {
            return Ok(());
        }
        self.last = Instant::now();
        let (answer, asked) = oneshot::channel();
        let (of, subscription, topics) = (self.of.clone(), self.subscription.clone(), self.topics.clone());
        let said = self.said.clone();
        self.runtime.spawn(async move {
            match look(&of, &subscription, &topics, &mut said.lock().await).await {
                Ok(None) => {}
                // The feed may be gone meanwhile.
                Ok(Some(ends)) => drop(answer.send(ends)),
                Err(error) if error.is_transient() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(topic = of.topic, error, "its other topics cannot be looked at now");
                }
                Err(error) => drop(answer.send(error)),
            }
        });
        self.asked = Some(asked);
        Ok(())
    }
}

/// What ends the feed, if anything does.
async fn look(
    of: &KafkaTopic,
    subscription: &Subscription,
    topics: &[String],
    said: &mut Said,
) -> Result<Option<SourceError>, SourceError> {
    let (found, _) = of.look(subscription).await?;
    if let Some(new) = found.into_iter().find(|topic| !topics.contains(topic)) {
        tracing::info!(topic = of.topic, new, "a retry topic was created, and is read from now on");
        return Ok(Some(SourceError::Unavailable(format!("{new} was created, and is read from now on").into())));
    }
    if subscription.forwards {
        settings::check(of, said).await?;
    }
    Ok(None)
}
