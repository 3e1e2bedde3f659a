//! The read models: what the queries of the API read.

mod audit_trail;
mod daily_revenue;
mod order_details;
mod order_funnel;
mod order_search;
mod order_timeline;
mod orders_by_customer;
mod stock;

pub use audit_trail::{AuditEntry, AuditTrail};
pub use daily_revenue::{DailyRevenue, Day, DayInCents, FirstDailyRevenue, SalesEvent};
pub use order_details::{OrderDetails, OrderView};
pub use order_funnel::{OrderFunnel, OrderProgress};
pub use order_search::{Found, OrderSearch, OrderTables, SearchError, Sort, Wanted};
pub use order_timeline::{OrderStep, OrderTimeline, Step};
pub use orders_by_customer::{OrderSummary, OrdersByCustomer};
pub use stock::{Stock, StockItem};

use evenfold::Projection;

/// The names of the read models that are stored; the last one only with Kafka.
pub const NAMES: [&str; 7] = [
    OrderDetails::NAME,
    OrdersByCustomer::NAME,
    DailyRevenue::NAME,
    AuditTrail::NAME,
    OrderSearch::NAME,
    Stock::NAME,
    OrderFunnel::NAME,
];
