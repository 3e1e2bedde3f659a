//! Whether a service is alive, and whether it is ready.

use std::time::Duration;

use serde::Serialize;

use super::{Service, part::PartState, status::Status};
use crate::counted::counted;

/// The limits within which a service is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// By how many events a part that runs in this process may lag; `None` (the default) means no limit.
    pub lag_events: Option<u64>,
    /// For how long after the start of the process it is not ready because a read model is built for the first time and does not
    /// serve yet (10 s by default). A longer build keeps nothing but that read model waiting, so that a new one with a long log behind
    /// it does not stop a deployment.
    pub first_build: Duration,
    /// How long the store may take to answer (5 s by default).
    pub answer_within: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { lag_events: None, first_build: Duration::from_secs(10), answer_within: Duration::from_secs(5) }
    }
}

/// Whether a service is alive, and whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Whether the service is alive: false after the shutdown.
    pub live: bool,
    /// Whether the process should get requests.
    pub ready: bool,
    /// Why it is not ready, a line for each reason.
    pub reasons: Vec<String>,
    /// The status of the service.
    pub status: Status,
}

impl Service {
    /// Whether the service is alive: false after the shutdown. It does not use the store.
    pub fn is_live(&self) -> bool {
        !self.is_over()
    }

    /// Whether the service is alive and ready, with the reasons if it is not.
    ///
    /// It is not ready while the store does not answer, when a part of this process has stopped for good or lags by more
    /// than [`Thresholds::lag_events`], and from the beginning of the shutdown on; and for the first seconds
    /// ([`Thresholds::first_build`]) while a read model, of any process, serves nothing yet. It stays ready when a part has parked keys
    /// or is paused, when it stands by for newer code, as in a rolling deploy, or for another relay, or starts again after a transient
    /// error.
    pub async fn health(&self) -> Health {
        let status = self.status().await;
        let mut reasons = Vec::new();
        if self.is_shutting_down() {
            reasons.push("the service is shutting down".to_owned());
        }
        if let Some(error) = &status.store_error {
            reasons.push(format!("the store does not answer: {error}"));
        }
        reasons.extend(status.stopped().into_iter().map(|line| format!("stopped: {line}")));
        if self.0.began.elapsed() < self.thresholds().first_build {
            let unbuilt = status.parts.iter().filter(|part| part.serves == Some(false));
            reasons.extend(unbuilt.map(|part| {
                let reached = part.building.unwrap_or_default();
                format!("building: {} has reached position {reached} and does not serve yet", part.name)
            }));
        }
        for part in status.parts.iter().filter(|part| part.state != PartState::Elsewhere) {
            if let Some(limit) = self.thresholds().lag_events
                && let Some(lag) = part.lag.filter(|lag| *lag > limit)
            {
                reasons.push(format!("lag: {} lags by {} (limit: {limit})", part.name, counted(lag, "event")));
            }
        }
        Health { live: self.is_live(), ready: reasons.is_empty(), reasons, status }
    }
}
