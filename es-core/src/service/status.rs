//! What a service is doing, for operators.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Service,
    part::{Part, PartKind, PartState},
};
use crate::{error::with_causes, read::worker_state::Failure, stream::Position};

/// What a service is doing, at about one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// The name of the service.
    pub service: String,
    /// The last position of the log; `None` where the store does not answer.
    pub head: Option<Position>,
    /// Why the store does not answer, with all causes.
    pub store_error: Option<String>,
    /// All parts that are registered, in the order of their registration.
    pub parts: Vec<PartStatus>,
}

/// What one part of a service is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PartStatus {
    /// Its kind.
    pub kind: PartKind,
    /// Its name, unique in the service.
    pub name: String,
    /// Its state in this process.
    #[serde(flatten)]
    pub state: PartState,
    /// Every event up to this position is in its read model, was reacted to, or was copied by the relay, in any process. `None` if
    /// this is not known: the store does not answer, or the relay runs in another process. A consumer has none: each shard of its
    /// source has positions of its own.
    pub position: Option<Position>,
    /// By how many events its position lies below the head of the log.
    pub lag: Option<u64>,
    /// Whether a generation of its read model serves; `None` if that is not known, or if it keeps no read model.
    pub serves: Option<bool>,
    /// The position that a generation of its read model has reached that is being built and does not serve yet.
    pub building: Option<Position>,
    /// How many of its keys are parked, in any process; `None` if that is not known, or if it is no reader.
    pub parked_keys: Option<u64>,
    /// How many dead letters it has, in any process.
    pub dead_letters: Option<u64>,
    /// The position of the event that it has been handling in this process for a second or longer. A fold that never returns is
    /// seen here: it cannot be interrupted.
    pub handling: Option<Position>,
    /// For how many seconds.
    pub handling_seconds: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// When it failed last in this process, also if a later attempt succeeded.
    pub last_error_at: Option<DateTime<Utc>>,
    /// How it failed, with all causes.
    pub last_error: Option<String>,
}

impl Status {
    /// The part `name`.
    pub fn part(&self, name: &str) -> Option<&PartStatus> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The parts that have stopped for good in this process, a line for each with the reason.
    pub fn stopped(&self) -> Vec<String> {
        self.lines(|state| match state {
            PartState::Stopped { reason } => Some(reason.clone()),
            _ => None,
        })
    }

    /// The parts that stand by in this process, a line for each with the reason.
    pub fn standing_by(&self) -> Vec<String> {
        self.lines(|state| match state {
            PartState::StandingBy { seconds, reason } => Some(format!("standing by for {seconds} s: {reason}")),
            _ => None,
        })
    }

    fn lines(&self, reason: impl Fn(&PartState) -> Option<String>) -> Vec<String> {
        let lines = self.parts.iter().filter_map(|part| Some(format!("{}: {}", part.name, reason(&part.state)?)));
        lines.collect()
    }
}

impl Service {
    /// What each registered part is doing, whether this process runs it or not: state, position, lag, last error.
    ///
    /// It asks the store once for the head of the log and up to three times for each reader, for at most
    /// [`Thresholds::answer_within`](super::Thresholds::answer_within). What is not known by then is `None`.
    pub async fn status(&self) -> Status {
        let mut status = Status {
            service: self.name().to_owned(),
            head: None,
            store_error: None,
            parts: self.parts().iter().map(|part| known(part)).collect(),
        };
        let within = self.thresholds().answer_within;
        match timeout(within, self.look_up(&mut status)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => status.store_error = Some(error),
            Err(_) => status.store_error = Some(format!("no answer within {within:?}")),
        }
        for part in &mut status.parts {
            part.lag = status.head.zip(part.position).map(|(head, at)| head.get().saturating_sub(at.get()));
        }
        status
    }

    async fn look_up(&self, status: &mut Status) -> Result<(), String> {
        let store = self.store();
        // The head is read last, so no position is greater than it.
        for part in status.parts.iter_mut().filter(|part| part.kind.is_reader()) {
            if part.kind.follows_log() {
                part.position = Some(store.reached(&part.name).await.map_err(|error| with_causes(&error))?);
            }
            let found = store.generations(&part.name).await.map_err(|error| with_causes(&error))?;
            part.serves = (part.kind == PartKind::Projection).then_some(found.serving.is_some());
            part.building = found.building.map(|building| building.reached);
            let parked = store.parked_keys(&part.name).await.map_err(|error| with_causes(&error))?;
            part.parked_keys = Some(parked.len() as u64);
            part.dead_letters = Some(parked.iter().map(|key| key.letters).sum());
        }
        status.head = Some(store.head().await.map_err(|error| with_causes(&error))?);
        Ok(())
    }
}

/// What is known of `part` without asking the store.
fn known(part: &Part) -> PartStatus {
    let (last_error_at, last_error) =
        part.engine().report().last_failure().map(|Failure { at, error }| (at, error)).unzip();
    let handling = part.engine().report().handling();
    let handling = handling.map(|handling| (handling.position, handling.since.elapsed().as_secs()));
    let handling = handling.filter(|(_, seconds)| *seconds > 0);
    PartStatus {
        kind: part.kind,
        name: part.name.clone(),
        state: part.state(),
        position: part.engine().position(),
        lag: None,
        serves: None,
        building: None,
        parked_keys: None,
        dead_letters: None,
        handling: handling.map(|(position, _)| position),
        handling_seconds: handling.map(|(_, seconds)| seconds),
        restarts: part.restarts(),
        last_error_at,
        last_error,
    }
}
