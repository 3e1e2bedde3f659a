//! The read models: what the queries of the API read.

mod audit_trail;
mod daily_revenue;
mod order_details;
mod orders_by_customer;

pub use audit_trail::{AuditEntry, AuditTrail};
pub use daily_revenue::{DailyRevenue, Day, SalesEvent};
pub use order_details::{OrderDetails, OrderView};
pub use orders_by_customer::{OrderSummary, OrdersByCustomer};

use std::sync::Arc;

use async_trait::async_trait;
use clap::ValueEnum;
use es_core::{EngineError, EventSource, Generation, Projection, Projector, WorkerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;

/// The read models by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ReadModelName {
    OrderDetails,
    OrdersByCustomer,
    DailyRevenue,
    AuditTrail,
}

impl ReadModelName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OrderDetails, Self::OrdersByCustomer, Self::DailyRevenue, Self::AuditTrail];

    /// The name of its projection.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderDetails => OrderDetails::NAME,
            Self::OrdersByCustomer => OrdersByCustomer::NAME,
            Self::DailyRevenue => DailyRevenue::NAME,
            Self::AuditTrail => AuditTrail::NAME,
        }
    }

    /// Its projector, from `source` into the read models of `backend`.
    pub fn projector(self, source: Arc<dyn EventSource>, backend: &Backend) -> Box<dyn AnyProjector> {
        fn of<P: Projection>(projection: P, source: Arc<dyn EventSource>, backend: &Backend) -> Box<dyn AnyProjector> {
            let projector = Projector::new(projection, source, backend.read_models.clone());
            Box::new(projector.standby_limit(backend.standby_limit))
        }
        match self {
            Self::OrderDetails => of(OrderDetails, source, backend),
            Self::OrdersByCustomer => of(OrdersByCustomer, source, backend),
            Self::DailyRevenue => of(DailyRevenue, source, backend),
            Self::AuditTrail => of(AuditTrail, source, backend),
        }
    }
}

/// A projector of whichever projection.
#[async_trait]
pub trait AnyProjector: Send + Sync {
    /// [`Projector::run`].
    async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError>;

    /// [`Projector::state`].
    fn state(&self) -> watch::Receiver<WorkerState>;

    /// [`Projector::rebuild`].
    async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, EngineError>;
}

#[async_trait]
impl<P: Projection> AnyProjector for Projector<P> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.run(shutdown).await
    }

    fn state(&self) -> watch::Receiver<WorkerState> {
        self.state()
    }

    async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, EngineError> {
        self.rebuild(shutdown).await
    }
}
