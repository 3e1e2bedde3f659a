//! The outcomes of commands that have no events to tell them.
//!
//! A command that was executed is known by its key, which was written with its events. One that was refused, or had nothing to do, has
//! none: delivered again after a crash, it would be decided anew on another state, and could take effect although its sender was told
//! that it does not. So its outcome is an event too, in a stream of its own, written under the same key in the key space of the
//! aggregate's stream: the store keeps the first of both, whichever process is faster.

use crate::{
    error::BoxError,
    event::{NewEvent, RecordedEvent},
    react::commands::message::{CommandAnswer, CommandMessage},
    stream::{Expected, InvalidStream, StreamId, Version},
    write::{
        append::{Append, CommandKey, command_id},
        execute::Receipt,
        store::{Appended, EventStore},
    },
};

/// The outcome of a command that has brought about no event of its aggregate.
#[derive(Debug, Clone, PartialEq, crate::Event)]
#[event(category = "command_outcome")]
pub(super) enum Outcome {
    /// It was refused.
    #[event(name = "command.rejected")]
    Rejected { stream: String, key: String, reason: String },
    /// There was nothing to do.
    #[event(name = "command.without_events")]
    Nothing { stream: String, key: String, version: u64 },
}

/// The most bytes of a reason that is kept.
const MOST_REASON_BYTES: usize = 16 * 1024;

/// The first outcome of `command`, which a store has remembered as `appended`.
pub(super) async fn first(
    store: &dyn EventStore,
    command: &CommandMessage,
    appended: Appended,
) -> Result<CommandAnswer, OutcomeError> {
    let stream = stream_of(command)?;
    let found = store.read_stream(&stream, Version::ZERO, 1).await.map_err(|error| {
        if error.is_transient() { OutcomeError::Transient(error.into()) } else { OutcomeError::Permanent(error.into()) }
    })?;
    let decoded = found.first().map(RecordedEvent::decode::<Outcome>).transpose();
    let outcome = decoded.map_err(|error| OutcomeError::Permanent(error.into()))?.flatten();
    Ok(match outcome.map(|recorded| recorded.data) {
        None => CommandAnswer::Done(appended.into()),
        Some(Outcome::Rejected { reason, .. }) => CommandAnswer::Rejected { reason },
        Some(Outcome::Nothing { version, .. }) => {
            CommandAnswer::Done(Receipt { repeated: true, ..Receipt::without_events(Version::new(version)) })
        }
    })
}

/// Writes that `command` was refused, unless it has an outcome already. Returns the first one.
pub(super) async fn rejected(
    store: &dyn EventStore,
    command: &CommandMessage,
    reason: &str,
) -> Result<CommandAnswer, OutcomeError> {
    let reason = kept(reason);
    let (stream, key) = (command.stream.as_str().to_owned(), command.key.key.as_str().to_owned());
    let known = write(store, command, &Outcome::Rejected { stream, key, reason: reason.clone() }).await?;
    known.map_or_else(|| Ok(CommandAnswer::Rejected { reason }), Ok)
}

/// Writes that `command` had nothing to do, unless it has an outcome already. Returns the first one.
pub(super) async fn nothing(
    store: &dyn EventStore,
    command: &CommandMessage,
    receipt: Receipt,
) -> Result<CommandAnswer, OutcomeError> {
    let (stream, key) = (command.stream.as_str().to_owned(), command.key.key.as_str().to_owned());
    let known = write(store, command, &Outcome::Nothing { stream, key, version: receipt.version.get() }).await?;
    known.map_or_else(|| Ok(CommandAnswer::Done(receipt)), Ok)
}

/// Writes `outcome`; `Some`: there was one already.
async fn write(
    store: &dyn EventStore,
    command: &CommandMessage,
    outcome: &Outcome,
) -> Result<Option<CommandAnswer>, OutcomeError> {
    let event = NewEvent::of(outcome).map_err(|error| OutcomeError::Permanent(error.into()))?;
    let event = event.with_metadata(command.metadata.clone());
    let append = Append {
        command: Some(CommandKey { scope: Some(command.stream.clone()), ..command.key.clone() }),
        ..Append::new(stream_of(command)?, Expected::Any, vec![event])
    };
    let appended = store.append(append).await.map_err(|error| {
        if error.is_transient() { OutcomeError::Transient(error.into()) } else { OutcomeError::Permanent(error.into()) }
    })?;
    if appended.repeated { first(store, command, appended).await.map(Some) } else { Ok(None) }
}

/// The stream of the outcome of `command`.
fn stream_of(command: &CommandMessage) -> Result<StreamId, OutcomeError> {
    let id = command_id(&command.stream, &command.key.key).to_string();
    StreamId::new(<Outcome as crate::Event>::CATEGORY, &id)
        .map_err(|error: InvalidStream| OutcomeError::Permanent(error.into()))
}

/// `reason` as every store can keep it.
pub(super) fn kept(reason: &str) -> String {
    let mut kept = reason.replace('\0', "\u{fffd}");
    if kept.len() > MOST_REASON_BYTES {
        let end = (0..=MOST_REASON_BYTES).rev().find(|end| kept.is_char_boundary(*end)).unwrap_or_default();
        kept.truncate(end);
        kept.push('…');
    }
    kept
}

/// Why an outcome is not known.
#[derive(Debug)]
pub(super) enum OutcomeError {
    Transient(BoxError),
    Permanent(BoxError),
}
