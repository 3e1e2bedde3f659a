//! What the HTTP handlers use: commands go to orders, queries go to read models.

use std::time::Duration;

use evenfold::{CancellationToken, Live, Projection, ReadModel, Repository, Service};

use crate::{
    inventory::InventoryItem,
    order::Order,
    placing::Placing,
    read_models::{
        AuditTrail, DailyRevenue, FirstDailyRevenue, OrderDetails, OrderFunnel, OrderTables, OrderTimeline,
        OrdersByCustomer, Stock,
    },
    rules::Rules,
};

/// How long a query waits until a read model serves. A new read model on an empty or short log needs less.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the handlers of requests need.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct App {
    pub placing: Placing,
    pub orders: Repository<Order>,
    pub inventory: Repository<InventoryItem>,
    pub order_details: ReadModel<OrderDetails>,
    pub past_order_details: Live<OrderDetails>,
    pub order_timeline: Live<OrderTimeline>,
    pub orders_by_customer: ReadModel<OrdersByCustomer>,
    pub daily_revenue: ReadModel<DailyRevenue>,
    /// In the first release, the daily revenue as it was.
    pub first_daily_revenue: Option<ReadModel<FirstDailyRevenue>>,
    pub audit_trail: ReadModel<AuditTrail>,
    pub stock: ReadModel<Stock>,
    /// With Kafka.
    pub order_funnel: Option<ReadModel<OrderFunnel>>,
    pub order_search: OrderTables,
    pub rules: Rules,
    pub service: Service,
    /// Ends the answers that have no end.
    pub stops: CancellationToken,
}

impl App {
    /// What `service` offers to requests.
    pub fn new(service: &Service, rules: &Rules) -> Self {
        let has_funnel = service.read_model_names().iter().any(|name| name == OrderFunnel::NAME);
        Self {
            placing: Placing::new(service.store()),
            orders: service.repository(),
            inventory: service.repository(),
            order_details: service.read_model().patience(PATIENCE),
            past_order_details: service.live(),
            order_timeline: service.live(),
            orders_by_customer: service.read_model().patience(PATIENCE),
            daily_revenue: service.read_model().patience(PATIENCE),
            first_daily_revenue: None,
            audit_trail: service.read_model().patience(PATIENCE),
            stock: service.read_model().patience(PATIENCE),
            order_funnel: has_funnel.then(|| service.read_model().patience(PATIENCE)),
            order_search: OrderTables::of(service, PATIENCE),
            rules: rules.clone(),
            service: service.clone(),
            stops: CancellationToken::new(),
        }
    }

    /// The same in a process that ends when `shutdown` is cancelled.
    pub fn until(self, shutdown: CancellationToken) -> Self {
        Self { stops: shutdown, ..self }
    }

    /// The same in the first release.
    pub fn first_release(self) -> Self {
        let first_daily_revenue = Some(self.service.read_model().patience(PATIENCE));
        Self { first_daily_revenue, ..self }
    }
}
