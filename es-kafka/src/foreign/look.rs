//! Whether the topics beside a topic are still as they were when it was opened, and what waits in them.

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
    letters::Letters,
    settings::{self, Said},
};

/// Looks now and then, without keeping the reading thread.
pub(super) struct Look {
    of: KafkaTopic,
    subscription: Subscription,
    /// The topics that are read.
    topics: Vec<String>,
    said: Arc<Mutex<Said>>,
    letters: Letters,
    runtime: Handle,
    /// When it looked last.
    last: Option<Instant>,
    /// What is asked at the moment.
    asked: Option<oneshot::Receiver<SourceError>>,
}

impl Look {
    /// For the `topics` of `of`, in the runtime that this is called in.
    pub(super) fn new(of: &KafkaTopic, subscription: &Subscription, topics: Vec<String>, said: Said) -> Self {
        let (letters, of, subscription) = (of.letters.shared(), of.clone(), subscription.clone());
        let (said, runtime) = (Arc::new(Mutex::new(said)), Handle::current());
        Self { of, subscription, topics, said, letters, runtime, last: None, asked: None }
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
        if self.last.is_some_and(|last| last.elapsed() < self.every()) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let (answer, asked) = oneshot::channel();
        let (of, subscription, topics) = (self.of.clone(), self.subscription.clone(), self.topics.clone());
        let (said, letters) = (self.said.clone(), self.letters.shared());
        self.runtime.spawn(async move {
            let mut said = said.lock().await;
            if subscription.forwards {
                count(&of, &letters, subscription.reader.clone(), &mut said).await;
            }
            match look(&of, &subscription, &topics, &mut said).await {
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

/// Counts the dead letters. That this is not possible now ends nothing.
async fn count(of: &KafkaTopic, letters: &Letters, reader: String, said: &mut Said) {
    let Err(error) = letters.look(of.dead_letters(), reader).await else { return };
    let (is_transient, error) = (error.is_transient(), &error as &dyn std::error::Error);
    if !is_transient && said.insert("uncounted".to_owned()) {
        tracing::warn!(
            topic = of.topic,
            error,
            "its dead letters are not counted: are Describe and Read granted on them and their acts?"
        );
    } else {
        tracing::debug!(topic = of.topic, error, "its dead letters cannot be counted now");
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
