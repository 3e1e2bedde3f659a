//! Executes the commands of other services.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    message::{CommandAnswer, CommandMessage, CommandTopic},
    outcome::{self, OutcomeError},
};
use crate::{
    codec::{self, Misfit},
    error::BoxError,
    event::{Event, EventData, RecordedEvent},
    react::{consumer::Consumer, policy::PolicyError},
    write::{
        aggregate::Aggregate,
        execute::{CommandContext, ExecuteError, Receipt, Repository},
        store::{AppendError, Appended, EventStore, ReadError},
    },
};

/// The name of the part that executes the commands of other services.
pub const COMMANDS: &str = "commands";

/// Executes the commands of a topic on the aggregates that this service owns ([`ServiceBuilder::commands`]).
///
/// [`ServiceBuilder::commands`]: crate::ServiceBuilder::commands
///
/// # Delivery
/// A command takes effect once, however often it is sent and delivered (R6, R20): its key is written with its events. What it was
/// answered stays so: a refusal, and that there was nothing to do, are written too, as events of the category `command_outcome`.
///
/// It is answered before the checkpoint passes it, at least once.
pub struct CommandOwner {
    topic: Arc<dyn CommandTopic>,
    store: Arc<dyn EventStore>,
    kinds: HashMap<&'static str, Box<dyn Kind>>,
}

impl fmt::Debug for CommandOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandOwner")
            .field("topic", &self.topic)
            .field("categories", &self.kinds.keys())
            .finish_non_exhaustive()
    }
}

/// The aggregates of one kind.
#[async_trait]
trait Kind: Send + Sync {
    async fn execute(&self, id: &str, command: &Bytes, context: CommandContext) -> Result<Executed, ExecutionError>;
}

struct Of<A: Aggregate>(Repository<A>);

/// What an aggregate says.
enum Executed {
    Accepted(Receipt),
    Rejected(String),
    /// It has another version than the sender has seen.
    Stale(String),
}

enum ExecutionError {
    Misfit(Misfit),
    Transient(BoxError),
    Permanent(BoxError),
}

#[async_trait]
impl<A: Aggregate<Command: DeserializeOwned>> Kind for Of<A> {
    async fn execute(&self, id: &str, command: &Bytes, context: CommandContext) -> Result<Executed, ExecutionError> {
        let command = codec::decode(command).map_err(ExecutionError::Misfit)?;
        match self.0.execute_with(id, command, context).await {
            Ok(receipt) => Ok(Executed::Accepted(receipt)),
            Err(ExecuteError::Rejected(refusal)) => Ok(Executed::Rejected(refusal.to_string())),
            Err(error @ ExecuteError::Stale(_)) => Ok(Executed::Stale(error.to_string())),
            Err(error) if error.is_transient() || error.is_of_newer_code() => {
                Err(ExecutionError::Transient(error.into()))
            }
            Err(error) => Err(ExecutionError::Permanent(error.into())),
        }
    }
}

/// Why a message is no command that can be executed. It goes where the failure policy says.
#[derive(Debug, thiserror::Error)]
enum Unexecutable {
    #[error("the message is no command: {0}")]
    Message(String),
    #[error("this service does not own the aggregates of the category {0:?}")]
    NotOwned(String),
    #[error("the command cannot be decoded")]
    Command(#[source] Misfit),
}

impl CommandOwner {
    /// Executes the commands of `topic` on aggregates in `store`.
    pub fn new(topic: impl CommandTopic, store: impl EventStore) -> Self {
        Self { topic: Arc::new(topic), store: Arc::new(store), kinds: HashMap::new() }
    }

    /// Executes commands on the aggregates of this kind. What others send is read with serde, as JSON.
    #[must_use]
    pub fn aggregate<A: Aggregate<Command: DeserializeOwned>>(mut self, repository: Repository<A>) -> Self {
        self.kinds.insert(<A::Event as Event>::CATEGORY, Box::new(Of(repository)));
        self
    }

    /// What becomes of `command`.
    async fn execute(&self, command: &CommandMessage) -> Result<CommandAnswer, PolicyError> {
        let CommandMessage { stream, key, if_version, deadline, metadata, payload } = command;
        if let Some(deadline) = deadline
            && self.store.now().await.map_err(unread)? >= *deadline
        {
            return self.late(command).await;
        }
        let kind =
            self.kinds.get(stream.category()).ok_or_else(|| Unexecutable::NotOwned(stream.category().to_owned()));
        let kind = kind.map_err(permanent)?;
        let (metadata, idempotency, if_version) = (metadata.clone(), Some(key.clone()), *if_version);
        let context = CommandContext { metadata, idempotency, if_version };
        let executed = kind.execute(stream.id(), payload, context).await.map_err(|error| match error {
            ExecutionError::Misfit(misfit) => permanent(Unexecutable::Command(misfit)),
            ExecutionError::Transient(error) => PolicyError::Transient(error),
            ExecutionError::Permanent(error) => PolicyError::Permanent(error),
        })?;
        let answer = match executed {
            Executed::Accepted(receipt) => match receipt.position {
                // The first outcome under this key may be a refusal.
                Some(position) if receipt.repeated => {
                    let appended = Appended { version: receipt.version, position, repeated: true };
                    outcome::first(&*self.store, command, appended).await
                }
                Some(_) => Ok(CommandAnswer::Done(receipt)),
                None => outcome::nothing(&*self.store, command, receipt).await,
            },
            Executed::Rejected(reason) => outcome::rejected(&*self.store, command, &reason).await,
            Executed::Stale(reason) => Ok(CommandAnswer::Failed { reason }),
        };
        answer.map_err(PolicyError::from)
    }

    /// What became of `command`, which must not be executed any more: an earlier sending of it may have been.
    async fn late(&self, command: &CommandMessage) -> Result<CommandAnswer, PolicyError> {
        let CommandMessage { stream, key, .. } = command;
        let Some(record) = self.store.find_command(stream, &key.key).await.map_err(unread)? else {
            return Ok(CommandAnswer::Expired);
        };
        let appended =
            record.repeat(key.fingerprint).map_err(|error: AppendError| PolicyError::Permanent(error.into()))?;
        Ok(outcome::first(&*self.store, command, appended).await?)
    }
}

#[async_trait]
impl Consumer for CommandOwner {
    const NAME: &'static str = COMMANDS;
    type Message = EventData;

    fn identity() -> &'static str {
        "commands of other services"
    }

    async fn handle(&self, message: &RecordedEvent) -> Result<(), PolicyError> {
        let command = self.topic.command(message).map_err(|reason| permanent(Unexecutable::Message(reason)))?;
        let answer = self.execute(&command).await?;
        // What concerns the way back concerns all answers: it is waited for.
        self.topic.answer(message, &answer).await.map_err(|error| PolicyError::Transient(error.into()))
    }
}

fn permanent(error: Unexecutable) -> PolicyError {
    PolicyError::Permanent(error.into())
}

fn unread(error: ReadError) -> PolicyError {
    if error.is_transient() { PolicyError::Transient(error.into()) } else { PolicyError::Permanent(error.into()) }
}

impl From<OutcomeError> for PolicyError {
    fn from(error: OutcomeError) -> Self {
        match error {
            OutcomeError::Transient(error) => Self::Transient(error),
            OutcomeError::Permanent(error) => Self::Permanent(error),
        }
    }
}
