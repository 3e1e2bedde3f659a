//! What is done on behalf of a saga.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    error::BoxError,
    event::Metadata,
    write::{
        append::{IdempotencyKey, InvalidKey},
        decide::DecideError,
        execute::{CommandContext, ExecuteError},
    },
};

/// On whose behalf an action is performed.
#[derive(Debug, Clone)]
pub struct ActionContext {
    pub(super) saga: &'static str,
    pub(super) instance: String,
    /// What tells the action from others of the instance.
    pub(super) action: String,
    pub(super) attempt: u32,
    pub(super) metadata: Metadata,
}

impl ActionContext {
    /// The id of the instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Which attempt this is; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What all attempts at this action have in common, and no other action has: a key by which another system recognises that it was
    /// asked before.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.saga, self.action, self.instance)
    }

    /// The context of the action's command: caused by what the saga reacted to, and idempotent under the [key](Self::key).
    ///
    /// # Errors
    /// [`InvalidKey`] if the id of the instance is too long for a key.
    pub fn command(&self) -> Result<CommandContext, InvalidKey> {
        self.under(self.key())
    }

    /// The context of one of several commands of the action, which `step` tells from the others.
    ///
    /// # Errors
    /// [`InvalidKey`] if `step` holds a `/`, or the key would be too long.
    pub fn command_of(&self, step: &str) -> Result<CommandContext, InvalidKey> {
        if step.contains('/') {
            return Err(InvalidKey);
        }
        self.under(format!("{}/{}:{step}/{}", self.saga, self.action, self.instance))
    }

    fn under(&self, key: String) -> Result<CommandContext, InvalidKey> {
        Ok(CommandContext::from(self.metadata.clone()).idempotent(IdempotencyKey::new(key)?, b""))
    }

    /// What events and messages of this action should carry.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// It was refused. That is an answer: the saga gets it as [`Input::Refused`](super::Input::Refused).
    #[error("{0}")]
    Refused(String),
    /// Another attempt may help.
    #[error("an action failed for now")]
    Transient(#[source] BoxError),
    /// No other attempt helps. The instance fails.
    #[error("an action failed")]
    Permanent(#[source] BoxError),
    /// Newer code has written what this code would have to read. The action is attempted again later, or in a process of newer code,
    /// and this does not count as an attempt.
    #[error("an action needs newer code")]
    NewerCode(#[source] BoxError),
}

impl ActionError {
    /// Whether another attempt may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::NewerCode(_))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<ExecuteError<E>> for ActionError {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(refusal) => Self::Refused(refusal.to_string()),
            error if error.is_of_newer_code() => Self::NewerCode(error.into()),
            error if error.is_transient() => Self::Transient(error.into()),
            error => Self::Permanent(error.into()),
        }
    }
}

impl<R: std::error::Error + Send + Sync + 'static> From<DecideError<R>> for ActionError {
    fn from(error: DecideError<R>) -> Self {
        match error {
            DecideError::Rejected(refusal) => Self::Refused(refusal.to_string()),
            error if error.is_of_newer_code() => Self::NewerCode(error.into()),
            error if error.is_transient() => Self::Transient(error.into()),
            error => Self::Permanent(error.into()),
        }
    }
}

impl From<InvalidKey> for ActionError {
    fn from(error: InvalidKey) -> Self {
        Self::Permanent(error.into())
    }
}

/// How often an action is attempted, and how long an attempt may take.
///
/// By default there are five attempts, of at most 30 s each, with pauses of up to 1 s, 2 s, 4 s and 8 s between them (full jitter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The most attempts; at least one is made. After the last one the instance fails.
    pub attempts: u32,
    /// The pauses between attempts.
    pub backoff: Backoff,
    /// How long an attempt may take. One that takes longer is dropped, and counts as failed for now.
    pub time_limit: Duration,
    /// What follows when the last attempt has failed.
    pub after_last: AfterLast,
}

/// What follows when the last attempt at an action has failed, or an attempt for [good](ActionError::Permanent).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AfterLast {
    /// The instance fails, and an operator decides.
    #[default]
    Fail,
    /// The saga decides: it gets [`Input::Refused`](super::Input::Refused), with `may_be_done`.
    Refuse,
}

impl Default for Retry {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        Self { attempts: 5, backoff, time_limit: Duration::from_secs(30), after_last: AfterLast::Fail }
    }
}
