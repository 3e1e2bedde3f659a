//! Tells how many records of a consumer wait in the dead-letter topic.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::Utc;
use es_core::{backend::SourceError, telemetry};

use crate::{
    aside,
    dead_letter_topic::{DeadLetterTopic, depth::Depth},
};

/// What one consumer knows of its dead letters. A clone knows nothing yet: it may be of another one.
#[derive(Default)]
pub(super) struct Letters(Arc<Mutex<Depth>>);

impl Letters {
    /// The same, for a task.
    pub(super) fn shared(&self) -> Self {
        Self(self.0.clone())
    }

    /// Looks at what was added to `topic` of the letters of `consumer`.
    pub(super) async fn look(&self, topic: DeadLetterTopic, consumer: String) -> Result<(), SourceError> {
        let depth = self.0.clone();
        let looked = aside::done(move || {
            let waits = depth.lock().unwrap_or_else(PoisonError::into_inner).look(&topic, &consumer)?;
            let age = waits.since.map(|since| (Utc::now() - since).to_std().unwrap_or_default());
            telemetry::dead_letter_topic(&consumer, waits.records, age);
            Ok(())
        });
        looked.await.map_err(SourceError::Unavailable)?
    }
}

impl Clone for Letters {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").finish_non_exhaustive()
    }
}
