//! Workers that stand by, for the suites in which they do.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use super::engines_project::{PATIENCE, Store, source};
use es_core::{Policy, PolicyError, PolicyRunner, Recorded, WorkerState, testing::account::AccountEvent};

pub(super) const RETRY: Duration = Duration::from_millis(20);

pub(super) async fn until_standing_by(state: &mut watch::Receiver<WorkerState>) -> String {
    let standing_by = state.wait_for(|state| matches!(state, WorkerState::StandingBy { .. }));
    let standing_by = tokio::time::timeout(PATIENCE, standing_by).await.expect("in time").expect("it lives");
    standing_by.to_string()
}

pub(super) async fn until_working(state: &mut watch::Receiver<WorkerState>) {
    let working = state.wait_for(|state| *state == WorkerState::Working);
    tokio::time::timeout(PATIENCE, working).await.expect("in time").expect("it lives");
}

/// Reacts to nothing.
#[derive(Debug)]
pub(super) struct Idle;

#[async_trait]
impl Policy for Idle {
    const NAME: &'static str = "idle";
    type Event = AccountEvent;

    async fn react(&self, _: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        Ok(())
    }
}

pub(super) fn idle<P: Policy>(policy: P, store: &impl Store) -> PolicyRunner<P> {
    PolicyRunner::new(policy, source(store), Arc::new(store.clone())).lease(Duration::from_hours(1)).standby(RETRY)
}
