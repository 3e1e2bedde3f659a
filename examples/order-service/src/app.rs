//! What the HTTP handlers use: commands go to orders, queries go to read models.

use std::time::Duration;

use evenfold::{ReadModel, Repository, Service};

use crate::{
    order::Order,
    placing::Placing,
    read_models::{AuditTrail, DailyRevenue, OrderDetails, OrdersByCustomer},
};

/// How long a query waits until a read model serves. A new read model on an empty or short log needs less.
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
    pub service: Service,
}

impl App {
    /// What `service` offers to requests.
    pub fn new(service: &Service) -> Self {
        Self {
            placing: Placing::new(service.store()),
            orders: service.repository(),
            order_details: service.read_model().patience(PATIENCE),
            orders_by_customer: service.read_model().patience(PATIENCE),
            daily_revenue: service.read_model().patience(PATIENCE),
            audit_trail: service.read_model().patience(PATIENCE),
            service: service.clone(),
        }
    }
}
