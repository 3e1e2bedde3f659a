//! Waiting until all readers have reached the head of the log.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Service,
    part::{Part, PartState},
};
use crate::{
    inspect::Inspect,
    read::{
        engine_error::EngineError,
        read_model::{Documents, Leases, ReadModelError},
        worker_state::Failure,
    },
    stream::Position,
    write::store::{EventStore, ReadError},
};

/// How often the positions are compared.
const EVERY: Duration = Duration::from_millis(5);

impl Service {
    /// Returns when every registered reader of the log, in any process, has reached the head of the log: policies have reacted to every
    /// event, also to those that followed from their reactions, and read models hold every event and serve. It is for tests and
    /// demonstrations: while clients write it may never return. The same holds if a reader has stopped in this process, which it may have
    /// done without an event that it lacks: after [`Unsettled::Late`], [`status`](Self::status) says why.
    ///
    /// # Errors
    /// [`Unsettled::Late`] when that takes longer than `within`, and at once [`Unsettled::OtherDefinition`].
    pub async fn settled(&self, within: Duration) -> Result<(), Unsettled> {
        let mut last = (Position::ZERO, Vec::new());
        match timeout(within, self.settle(&mut last)).await {
            Ok(settled) => settled,
            Err(_) => Err(Unsettled::Late { head: last.0, readers: last.1 }),
        }
    }

    async fn settle(&self, last: &mut (Position, Vec<String>)) -> Result<(), Unsettled> {
        let store = self.store();
        loop {
            // The head is read first: events that a policy adds later are seen in the next round.
            let head = store.head().await?;
            let (mut late, mut any_has_stopped) = (Vec::new(), false);
            for part in self.parts().iter().filter(|part| part.kind.follows_log()) {
                // A read model holds nothing before it serves, also where it has reached the head of an empty log.
                let serves = match part.projector() {
                    None => true,
                    Some(projector) => {
                        let found = store.generations(&part.name).await?;
                        projector.admit(&found).map_err(|cause| other(part, cause))?;
                        found.serving.is_some()
                    }
                };
                let reached = store.reached(&part.name).await?;
                let has_stopped = matches!(part.state(), PartState::Stopped { .. });
                any_has_stopped |= has_stopped;
                if reached < head || !serves || has_stopped {
                    let unbuilt = if serves { "" } else { ", being built" };
                    late.push(format!("{} at {reached}{unbuilt}{}", part.name, why(part)));
                }
            }
            // The definition may be why it has stopped.
            if late.is_empty() || any_has_stopped {
                self.is_ours().await?;
            }
            if late.is_empty() && store.head().await? == head {
                return Ok(());
            }
            *last = (head, late);
            sleep(EVERY).await;
        }
    }

    /// Whether the checkpoints are those of its policies, and not those of other readers of the same names.
    async fn is_ours(&self) -> Result<(), Unsettled> {
        let found = self.store().list_readers().await?;
        for part in self.parts() {
            for stored in found.iter().filter(|found| found.reader.name == part.name) {
                part.engine().admits(&stored.definition).map_err(|cause| other(part, cause))?;
            }
        }
        Ok(())
    }
}

/// That `part` cannot go on with what is stored under its name.
fn other(part: &Part, cause: EngineError) -> Unsettled {
    Unsettled::OtherDefinition { reader: part.name.clone(), cause: Box::new(cause) }
}

/// Why `part` has not come further, as far as this process knows.
fn why(part: &Part) -> String {
    match part.state() {
        PartState::Elsewhere => " (this process does not run it)".to_owned(),
        PartState::Ended => " (it has ended)".to_owned(),
        PartState::Stopped { reason } => format!(" (it has stopped: {reason})"),
        PartState::Restarting { reason } => format!(" (it starts again after {reason})"),
        PartState::StandingBy { reason, .. } => format!(" (it stands by: {reason})"),
        PartState::Paused { actor, reason, .. } => format!(" (paused by {actor}: {reason})"),
        PartState::Running => match part.engine().report().last_failure() {
            Some(Failure { error, .. }) => format!(" (its last failure: {error})"),
            None => String::new(),
        },
    }
}

/// Why a service has not settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsettled {
    /// A client still writes, or a reader is slow or has stopped.
    #[error("the log has reached position {head}, and readers have not: {}", readers.join(", "))]
    Late {
        /// The last position of the log.
        head: Position,
        /// The readers that have not reached it, each with its position and, where it is known, the reason.
        readers: Vec<String>,
    },
    /// Another definition keeps what is stored under the name of a reader, so the reader has stopped, or will.
    #[error("the reader {reader} cannot go on with what is stored under its name")]
    OtherDefinition {
        /// Its name.
        reader: String,
        /// [`EngineError::OtherDefinition`].
        #[source]
        cause: Box<EngineError>,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The checkpoints cannot be read.
    #[error(transparent)]
    ReadModels(#[from] ReadModelError),
}

impl Unsettled {
    /// Whether waiting again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Late { .. } => true,
            Self::OtherDefinition { .. } => false,
            Self::Log(error) => error.is_transient(),
            Self::ReadModels(error) => error.is_transient(),
        }
    }
}
