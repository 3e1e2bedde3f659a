//! The service without its surface: commands go to the order, queries to the read models.

use std::{sync::Arc, time::Duration};

use es_core::{
    EventStore, GenerationSet, Policy, Position, ReadError, ReadModel, ReadModelError, ReadModelStore, Repository,
};
use tokio::time::{sleep, timeout};

use crate::{
    backend::Backend,
    order::Order,
    placing::Placing,
    policy::Fulfilment,
    read_models::{AuditTrail, DailyRevenue, OrderDetails, OrdersByCustomer, ReadModelName},
    workers::WorkerStates,
};

/// How long a query waits for a read model to serve: as long as a new one needs on a log that is
/// empty, or short.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the handlers of requests need.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct App {
    pub placing: Placing,
    pub orders: Repository<Order>,
    pub order_details: ReadModel<OrderDetails>,
    pub orders_by_customer: ReadModel<OrdersByCustomer>,
    pub daily_revenue: ReadModel<DailyRevenue>,
    pub audit_trail: ReadModel<AuditTrail>,
    pub log: Arc<dyn EventStore>,
    pub read_models: Arc<dyn ReadModelStore>,
    pub states: WorkerStates,
}

impl App {
    /// The service on `backend`; `states` are those of its workers.
    pub fn new(backend: &Backend, states: WorkerStates) -> Self {
        let store = &backend.read_models;
        Self {
            placing: Placing::new(backend.log.clone()),
            orders: backend.repository(),
            order_details: ReadModel::new(store.clone()).patience(PATIENCE),
            orders_by_customer: ReadModel::new(store.clone()).patience(PATIENCE),
            daily_revenue: ReadModel::new(store.clone()).patience(PATIENCE),
            audit_trail: ReadModel::new(store.clone()).patience(PATIENCE),
            log: backend.log.clone(),
            read_models: store.clone(),
            states,
        }
    }

    /// The generations of the policy and of each read model, and how far they have come.
    ///
    /// # Errors
    /// [`ReadModelError`] when the store cannot be reached.
    pub async fn generations(&self) -> Result<Vec<(&'static str, GenerationSet)>, ReadModelError> {
        let mut generations = Vec::new();
        for name in ReadModelName::ALL.map(ReadModelName::as_str).into_iter().chain([Fulfilment::NAME]) {
            generations.push((name, self.read_models.generations(name).await?));
        }
        Ok(generations)
    }

    /// Returns when the policy has reacted to everything and every read model holds everything.
    ///
    /// # Errors
    /// [`Unsettled`], also when that takes longer than `patience`.
    pub async fn settled(&self, patience: Duration) -> Result<(), Unsettled> {
        let settled = async {
            loop {
                // The head is read first: what the policy adds after it is seen the next time.
                let head = self.log.head().await?;
                let found = self.generations().await?;
                let reached = |found: GenerationSet| found.serving.map_or(Position::ZERO, |serving| serving.reached);
                if found.into_iter().all(|(_, found)| reached(found) >= head) && self.log.head().await? == head {
                    return Ok(());
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(patience, settled).await.unwrap_or(Err(Unsettled::Late))
    }
}

/// Why the service has not settled.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    /// Somebody is still writing, or a worker is slow or has stopped.
    #[error("it takes too long")]
    Late,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The read models cannot be read.
    #[error(transparent)]
    ReadModels(#[from] ReadModelError),
}
