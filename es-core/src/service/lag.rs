//! The metrics of the service as a whole: how far its parts lag behind the log.

use std::{sync::Weak, time::Duration};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::{Inner, Service, part::PartKind, status::PartStatus};
use crate::{
    react::saga::{NamedSaga, Status as SagaStatus},
    stream::Position,
    telemetry,
};

/// How often it is told. A scrape is as a rule less frequent.
const EVERY: Duration = Duration::from_secs(5);

/// Tells it until the service ends, or is dropped.
pub(super) async fn report(service: Weak<Inner>, stops: CancellationToken) {
    loop {
        let Some(inner) = service.upgrade() else { return };
        let told = async { Service(inner).report_lag().await };
        if stops.run_until_cancelled(told).await.is_none() {
            return;
        }
        tokio::select! {
            () = stops.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

impl Service {
    /// Reports as metrics how far the parts are and by how much they lag behind the log, also those that other processes run:
    /// where one of these is gone, nothing else tells. A running service does so every five seconds by itself.
    ///
    /// What is not known, because the store does not answer or another process relays, keeps the value that it had.
    pub async fn report_lag(&self) {
        // Before the store is asked: that it does not answer may be why a part does not run.
        self.parts().iter().for_each(|part| part.report_running());
        let status = self.status().await;
        let Some(head) = status.head else { return };
        telemetry::head(head.get());
        for part in &status.parts {
            if let (Some(keys), Some(letters)) = (part.parked_keys, part.dead_letters) {
                telemetry::parked(&part.name, keys, letters);
            }
            if let PartStatus { name, position: Some(position), lag: Some(lag), .. } = part
                && let Some(seconds) = self.seconds_behind(*position, *lag).await
            {
                telemetry::lag(name, position.get(), *lag, seconds);
            }
            if part.kind == PartKind::Saga {
                self.report_instances(&part.name).await;
            }
        }
    }

    /// Reports how many instances the saga has that have not ended, if `part` performs for them.
    async fn report_instances(&self, part: &str) {
        let store = self.store();
        let Some(saga) = NamedSaga::of(&*store, part) else { return };
        for status in SagaStatus::ALL.into_iter().filter(|status| !status.has_ended()) {
            if let Ok(count) = saga.count(status).await {
                telemetry::sagas::instances(saga.name(), status.as_str(), count);
            }
        }
    }

    /// The age of the first event after `position`.
    async fn seconds_behind(&self, position: Position, lag: u64) -> Option<f64> {
        if lag == 0 {
            return Some(0.0);
        }
        let next = self.store().read_log(position, 1).await.ok()?;
        let age = Utc::now() - next.first()?.recorded_at;
        // Clocks of two machines differ.
        Some(age.to_std().unwrap_or_default().as_secs_f64())
    }
}
