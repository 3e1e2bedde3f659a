//! A command on its way, and the answer to it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    event::{Metadata, RecordedEvent},
    read::source::{EventSource, SourceError},
    stream::{StreamId, Version},
    write::{append::CommandKey, execute::Receipt},
};

/// A topic of commands to a service, and the way back to those who send them.
#[async_trait]
pub trait CommandTopic: EventSource {
    /// The command in `message`, which this source has delivered.
    ///
    /// # Errors
    /// Why it is none, without values of the message.
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String>;

    /// Answers `message`, and returns when the answer cannot be lost any more, or when the sender wants none or cannot be reached at the
    /// place that it names.
    ///
    /// # Errors
    /// [`SourceError`] where answering again may help.
    async fn answer(&self, message: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError>;
}

#[async_trait]
impl<T: CommandTopic + ?Sized> CommandTopic for Arc<T> {
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String> {
        (**self).command(message)
    }

    async fn answer(&self, message: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError> {
        (**self).answer(message, answer).await
    }
}

/// A command to an aggregate of this service.
#[derive(Debug, Clone)]
pub struct CommandMessage {
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// What all sendings of this command have in common, and no other command to the aggregate has.
    pub key: CommandKey,
    /// The version that the sender has seen.
    pub if_version: Option<Version>,
    /// From then on it is not executed any more.
    pub deadline: Option<DateTime<Utc>>,
    /// Goes onto its events.
    pub metadata: Metadata,
    /// The command as JSON.
    pub payload: Bytes,
}

/// What has become of a command. Once one of the first two was given, all further sendings of the command get the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandAnswer {
    /// It was executed.
    Done(Receipt),
    /// The aggregate has refused it.
    Rejected {
        /// Its words.
        reason: String,
    },
    /// Its deadline had passed: it was not executed, and this sending of it will not be.
    Expired,
    /// It cannot be executed.
    Failed {
        /// Why, for people.
        reason: String,
    },
}
