//! Messages to customers. What was sent is an event; the ways to send it are ports.

mod file;
mod mail;

use std::sync::Arc;

use evenfold::{
    Aggregate, CommandContext, Event, ExecuteError, InvalidKey, LoadError, Repository, async_trait, backend::BoxError,
};
use serde::{Deserialize, Serialize};

pub use self::{
    file::{FileError, FileNotifier},
    mail::{MailError, MailNotifier},
};
use crate::ids::CustomerId;

/// How a message reaches its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Channel {
    Mail,
    Sms,
}

/// A message to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Under one key one message is sent. It is the id of a stream.
    pub key: String,
    /// To whom.
    pub customer: CustomerId,
    /// How.
    pub channel: Channel,
    /// What it is about; an SMS leaves it out.
    pub subject: String,
    /// What it says.
    pub text: String,
}

/// Sends messages.
#[async_trait]
pub trait Notifier: Send + Sync + 'static {
    /// Sends `message`, unless one was sent under its key: it may be called again for a message of which it is not known whether it was
    /// sent.
    ///
    /// # Errors
    /// [`NotifyError`].
    async fn send(&self, message: &Message) -> Result<(), NotifyError>;
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// It may be sent later.
    #[error("the message was not sent for now")]
    Transient(#[source] BoxError),
    /// It cannot be sent.
    #[error("the message cannot be sent")]
    Permanent(#[source] BoxError),
}

/// The command of a notification.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the name says it")]
pub enum NotificationCommand {
    Record(Message),
}

/// What has happened to a notification.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "notification")]
#[expect(missing_docs, reason = "the names say it")]
pub enum NotificationEvent {
    #[event(name = "notification.sent")]
    Sent { customer: CustomerId, channel: Channel, subject: String, text: String },
}

/// A message under its key, once it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Whether it was sent.
    pub sent: bool,
}

impl Aggregate for Notification {
    type Command = NotificationCommand;
    type Event = NotificationEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, command: &NotificationCommand) -> Result<Vec<NotificationEvent>, Self::Error> {
        let NotificationCommand::Record(message) = command.clone();
        let Message { customer, channel, subject, text, .. } = message;
        let sent = NotificationEvent::Sent { customer, channel, subject, text };
        Ok(if self.sent { vec![] } else { vec![sent] })
    }

    fn apply(&mut self, _: &NotificationEvent) {
        self.sent = true;
    }
}

/// Sends each message once, and records it.
#[derive(Clone)]
pub struct Notifications {
    sent: Repository<Notification>,
    channels: Channels,
}

/// What sends the messages of each channel.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Channels {
    pub mail: Arc<dyn Notifier>,
    pub sms: Arc<dyn Notifier>,
}

impl std::fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifications").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Notifications {
    /// Sends through `channels`, and records in `sent`.
    pub fn new(sent: Repository<Notification>, channels: Channels) -> Self {
        Self { sent, channels }
    }

    /// Sends `message` unless that was done before.
    ///
    /// A process that is killed between sending and recording leaves it to the next one to send again under the same key, which the
    /// notifier recognises.
    ///
    /// # Errors
    /// [`TellError`].
    pub async fn tell(&self, message: &Message, context: CommandContext) -> Result<(), TellError> {
        if self.sent.load(&message.key).await?.state.sent {
            return Ok(());
        }
        let notifier = match message.channel {
            Channel::Mail => &self.channels.mail,
            Channel::Sms => &self.channels.sms,
        };
        notifier.send(message).await?;
        self.sent.execute_with(&message.key, NotificationCommand::Record(message.clone()), context).await?;
        Ok(())
    }
}

/// Why a customer was not told something.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TellError {
    #[error(transparent)]
    Send(#[from] NotifyError),
    #[error("it is not known whether the message was sent")]
    Load(#[from] LoadError),
    #[error("it cannot be recorded that the message was sent")]
    Record(#[from] ExecuteError<std::convert::Infallible>),
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

impl TellError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Send(error) => matches!(error, NotifyError::Transient(_)),
            Self::Load(error) => error.is_transient(),
            Self::Record(error) => error.is_transient(),
            Self::Key(_) => false,
        }
    }
}
