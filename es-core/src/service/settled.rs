//! Waiting until all readers have reached the head of the log.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Service,
    part::{Part, PartKind, PartState},
};
use crate::{
    read::read_model::{Documents, Leases, ReadModelError},
    read::worker_state::Failure,
    stream::Position,
    write::store::{EventStore, ReadError},
};

/// How often the positions are compared.
const EVERY: Duration = Duration::from_millis(5);

impl Service {
    /// Returns when every registered reader, in any process, has reached the head of the log: policies have reacted to every
    /// event, also to those that followed from their reactions, and read models hold every event and serve. It is for tests and
    /// demonstrations: while clients write it may never return. The same holds if a reader has stopped: after
    /// [`Unsettled::Late`], [`status`](Self::status) says why.
    ///
    /// # Errors
    /// [`Unsettled::Late`] when that takes longer than `within`.
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
            let mut late = Vec::new();
            for part in self.parts().iter().filter(|part| part.kind.is_reader()) {
                // A read model holds nothing before it serves, also where it has reached the head of an empty log.
                let serves = part.kind != PartKind::Projection || {
                    let found = store.generations(&part.name).await?;
                    found.serving.is_some()
                };
                let reached = store.reached(&part.name).await?;
                if reached < head || !serves {
                    let unbuilt = if serves { "" } else { ", being built" };
                    late.push(format!("{} at {reached}{unbuilt}{}", part.name, why(part)));
                }
            }
            if late.is_empty() && store.head().await? == head {
                return Ok(());
            }
            *last = (head, late);
            sleep(EVERY).await;
        }
    }
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
            Self::Log(error) => error.is_transient(),
            Self::ReadModels(error) => error.is_transient(),
        }
    }
}
