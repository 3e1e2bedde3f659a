//! Commands to aggregates of this store or of another service: the port of those who send them, and what the owner does with them.

mod message;
mod outcome;
mod owner;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::{
    message::{CommandAnswer, CommandMessage, CommandTopic},
    owner::{COMMANDS, CommandOwner},
};
use super::{policy::PolicyError, saga::ActionError};
use crate::{
    error::BoxError,
    write::{
        aggregate::Aggregate,
        execute::{CommandContext, ExecuteError, Receipt, Repository},
    },
};

/// Has commands executed on the aggregates of one kind, in this store or by another service.
///
/// Sagas and policies that hold an `Arc<dyn Commands<A>>` do not know where the aggregates are. [`Repository`] implements it for those of
/// the same store, `es_kafka::KafkaCommands` for those of a service that is reached through Kafka.
///
/// ```
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use es_core::{Commands, Policy, PolicyError, Recorded, reaction};
/// # use es_core::testing::account::{Account, AccountCommand, AccountEvent};
///
/// /// Saves as much as is withdrawn.
/// struct Saving {
///     accounts: Arc<dyn Commands<Account>>,
/// }
///
/// #[async_trait]
/// impl Policy for Saving {
///     const NAME: &'static str = "saving";
///     type Event = AccountEvent;
///
///     async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
///         let AccountEvent::Withdrawn { amount } = event.data else { return Ok(()) };
///         let context = reaction(event, Self::NAME, "save")?;
///         self.accounts.send("saved", AccountCommand::Deposit(amount), context).await?;
///         Ok(())
///     }
/// }
/// # let builder = es_core::Service::builder("accounts", es_core::MemoryStore::new());
///
/// let builder = builder.aggregate::<Account>().policy(|shared| Saving { accounts: Arc::new(shared.repository()) });
/// ```
#[async_trait]
pub trait Commands<A: Aggregate>: Send + Sync + 'static {
    /// Has `command` executed on the aggregate `id`, and returns when that is done. The position and the read token of the receipt are
    /// those of the owner's store.
    ///
    /// The idempotency key of `context` makes one effect of all calls with it. Without one, each call is a command of its own.
    ///
    /// # Errors
    /// [`SendError`]. After a transient one it is not known whether the command was executed: call again under the same key.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the command is executed. It is never executed in part.
    async fn send(&self, id: &str, command: A::Command, context: CommandContext) -> Result<Receipt, SendError>;
}

#[async_trait]
impl<A: Aggregate, T: Commands<A> + ?Sized> Commands<A> for Arc<T> {
    async fn send(&self, id: &str, command: A::Command, context: CommandContext) -> Result<Receipt, SendError> {
        (**self).send(id, command, context).await
    }
}

#[async_trait]
impl<A: Aggregate> Commands<A> for Repository<A> {
    async fn send(&self, id: &str, command: A::Command, context: CommandContext) -> Result<Receipt, SendError> {
        Ok(self.execute_with(id, command, context).await?)
    }
}

/// Why a command was not executed, as far as its sender knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The aggregate refuses, in its own words.
    #[error("{0}")]
    Rejected(String),
    /// Sending it again, under the same key, may help.
    #[error("a command was not executed for now")]
    Transient(#[source] BoxError),
    /// Sending it again does not help.
    #[error("a command cannot be executed")]
    Permanent(#[source] BoxError),
}

impl SendError {
    /// Whether sending the command again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<ExecuteError<E>> for SendError {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(refusal) => Self::Rejected(refusal.to_string()),
            // Newer code can execute it.
            error if error.is_transient() || error.is_of_newer_code() => Self::Transient(error.into()),
            error => Self::Permanent(error.into()),
        }
    }
}

impl From<SendError> for ActionError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Rejected(reason) => Self::Refused(reason),
            SendError::Transient(cause) => Self::Transient(cause),
            SendError::Permanent(cause) => Self::Permanent(cause),
        }
    }
}

impl From<SendError> for PolicyError {
    fn from(error: SendError) -> Self {
        if error.is_transient() { Self::Transient(error.into()) } else { Self::Permanent(error.into()) }
    }
}
