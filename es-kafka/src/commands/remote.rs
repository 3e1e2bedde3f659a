//! Commands to the aggregates of one kind that another service owns.

use std::{fmt, marker::PhantomData, time::Duration};

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use es_core::{
    Aggregate, CommandContext, Commands, Event, Receipt, SendError, StreamId,
    backend::{CommandAnswer, SourceError},
};
use rdkafka::{
    error::KafkaError,
    producer::{FutureRecord, Producer},
    types::RDKafkaErrorCode,
};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{KafkaCommandError, KafkaCommands, Open, envelope::Sending};
use crate::{foreign::forwarder::not_taken, refusal};

/// How much longer than to the deadline is waited for an answer.
const MARGIN: Duration = Duration::from_secs(5);

/// Sends commands to the aggregates of one kind, which another service owns ([`KafkaCommands::to`]).
pub struct RemoteCommands<A> {
    pub(super) commands: KafkaCommands,
    /// The topic of the owner.
    pub(super) topic: String,
    pub(super) kind: PhantomData<fn() -> A>,
}

impl<A> Clone for RemoteCommands<A> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), topic: self.topic.clone(), kind: PhantomData }
    }
}

impl<A> fmt::Debug for RemoteCommands<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCommands").field("topic", &self.topic).field("commands", &self.commands).finish()
    }
}

#[async_trait]
impl<A: Aggregate<Command: Serialize>> Commands<A> for RemoteCommands<A> {
    async fn send(&self, id: &str, command: A::Command, context: CommandContext) -> Result<Receipt, SendError> {
        let stream =
            StreamId::new(<A::Event as Event>::CATEGORY, id).map_err(|error| SendError::Permanent(error.into()))?;
        let payload = serde_json::to_vec(&command).map_err(|error| SendError::Permanent(error.into()))?;
        let limit = self.commands.time_limit.saturating_add(MARGIN);
        let answered = tokio::time::timeout(limit, self.answer(&stream, payload, &context)).await;
        let no_answer = || SendError::Transient(KafkaCommandError::NoAnswer { waited: limit }.into());
        match answered.map_err(|_| no_answer())?? {
            CommandAnswer::Done(receipt) => Ok(receipt),
            CommandAnswer::Rejected { reason } => Err(SendError::Rejected(reason)),
            CommandAnswer::Expired => Err(SendError::Transient(KafkaCommandError::Expired.into())),
            CommandAnswer::Failed { reason } => Err(SendError::Permanent(KafkaCommandError::Failed { reason }.into())),
            _ => Err(no_answer()),
        }
    }
}

impl<A: Aggregate> RemoteCommands<A> {
    /// What the owner answers.
    async fn answer(
        &self,
        stream: &StreamId,
        payload: Vec<u8>,
        context: &CommandContext,
    ) -> Result<CommandAnswer, SendError> {
        let limit = self.commands.time_limit;
        let deadline = Instant::now() + limit;
        let due = Utc::now() + TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX / 2);
        let open = self.commands.opened().await.map_err(not_sent)?;
        self.is_there(&open).await?;
        let (id, service) = (Uuid::now_v7(), self.commands.service.as_str());
        let reply_to = self.commands.place.replies(service);
        let sending = Sending { id, service, stream, context, deadline: due, reply_to: &reply_to };
        // Before it is sent: the answer may come at once.
        let waiter = open.replies.wait(id);
        let record = FutureRecord::to(&self.topic).key(stream.as_str()).payload(&payload).headers(sending.headers());
        if Instant::now() >= deadline {
            return Err(SendError::Transient(KafkaCommandError::Expired.into()));
        }
        let sent = match open.producer.send_result(record) {
            Ok(sent) => sent.await.map_err(|error| SendError::Transient(error.into()))?.map_err(|(error, _)| error),
            Err((error, _)) => Err(error),
        };
        if let Err(error) = sent {
            let is_fatal = open.producer.client().fatal_error().is_some();
            if is_too_large(&error) {
                return Err(SendError::Permanent(error.into()));
            }
            let error = not_sent(not_taken(&open.producer, &self.topic, error));
            if is_fatal || error.is_transient() {
                // The next command looks again for what is there, with a producer that has met no error.
                self.commands.close(&open).await;
            }
            return Err(error);
        }
        waiter.answer().await.ok_or_else(|| SendError::Transient("the reader of the answers has ended".into()))
    }

    /// Looks for the topic, which would be created with the settings of the brokers otherwise.
    async fn is_there(&self, open: &Open) -> Result<(), SendError> {
        let mut known = open.known.lock().await;
        if known.contains(&self.topic) {
            return Ok(());
        }
        if self.commands.place.partitions(&self.topic).await.map_err(not_sent)?.is_none() {
            return Err(SendError::Transient(KafkaCommandError::NoTopic { topic: self.topic.clone() }.into()));
        }
        known.insert(self.topic.clone());
        Ok(())
    }
}

/// Only what is wrong with this command is permanent: rights and settings are put right while it waits.
fn not_sent(error: SourceError) -> SendError {
    SendError::Transient(error.into())
}

/// The record is too large for the topic.
fn is_too_large(error: &KafkaError) -> bool {
    matches!(refusal::code(error), Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize))
}
