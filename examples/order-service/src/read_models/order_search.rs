//! Orders found by status, customer, amount and time, in an SQL table of its own.

mod postgres;
mod sqlite;

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use evenfold::{
    QueryError, ReadToken, Recorded, Service, Tables, backend::BoxError, postgres::PostgresStore, sqlite::SqliteStore,
};

use crate::{
    ids::{CustomerId, OrderId},
    money::Money,
    order::{OrderEvent, Status},
    read_models::OrderSummary,
};

/// Keeps a row for each order. The two files hold the SQL of the two stores.
#[derive(Debug, Clone, Copy)]
pub struct OrderSearch;

impl OrderSearch {
    /// The name of the read model, on both stores.
    pub const NAME: &'static str = "order-search";
}

/// What orders are looked for. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Wanted {
    pub status: Option<Status>,
    pub customer: Option<CustomerId>,
    pub least: Option<Money>,
    pub most: Option<Money>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    pub sort: Sort,
    /// The last first.
    pub descending: bool,
    /// The order after which the page begins, and the generation in which that one was found.
    pub after: Option<(i64, OrderId)>,
    pub limit: i64,
}

/// By what orders are sorted; those that are equal in it by their ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// By the time at which they were placed.
    #[default]
    Placed,
    /// By their amounts.
    Amount,
}

impl Sort {
    fn column(self) -> &'static str {
        match self {
            Self::Placed => "placed_at",
            Self::Amount => "amount",
        }
    }
}

impl FromStr for Sort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "placed" => Ok(Self::Placed),
            "amount" => Ok(Self::Amount),
            _ => Err("expected placed or amount"),
        }
    }
}

/// A page of orders.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Found {
    pub orders: Vec<(CustomerId, OrderSummary)>,
    /// How many orders there are on all pages.
    pub count: i64,
    pub generation: i64,
}

/// The search on the store of the service.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OrderTables {
    Postgres(Tables<OrderSearch, PostgresStore>),
    Sqlite(Tables<OrderSearch, SqliteStore>),
}

impl OrderTables {
    /// The search of `service`.
    pub fn of(service: &Service, patience: Duration) -> Self {
        let postgres = service.tables().map(|tables| Self::Postgres(tables.patience(patience)));
        let sqlite = || service.tables().map(|tables| Self::Sqlite(tables.patience(patience)));
        postgres.or_else(sqlite).expect("the service registers it on one of the two stores")
    }

    /// Returns when the write that returned `token` can be found (R13).
    ///
    /// # Errors
    /// As [`Tables::wait_for`].
    pub async fn wait_for(&self, token: ReadToken, patience: Duration) -> Result<(), QueryError> {
        match self {
            Self::Postgres(tables) => tables.wait_for(token, patience).await,
            Self::Sqlite(tables) => tables.wait_for(token, patience).await,
        }
    }

    /// A page of the orders that are wanted. Page and count are of one moment.
    ///
    /// # Errors
    /// [`SearchError`].
    pub async fn find(&self, wanted: &Wanted) -> Result<Found, SearchError> {
        match self {
            Self::Postgres(tables) => postgres::find(tables, wanted).await,
            Self::Sqlite(tables) => sqlite::find(tables, wanted).await,
        }
    }
}

/// Why orders cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The tables cannot be read now, or they were replaced after the page before.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A row cannot be read.
    #[error("a row cannot be read")]
    Row(#[source] BoxError),
}

/// The columns of a page.
const COLUMNS: &str = "id, customer, status, total, placed_at";

/// The filters, in the SQL of both stores, with the parameters 1 to 6 of [`Bound`]; `number` is the type of amounts.
fn filters(wanted: &Wanted, number: &str) -> String {
    let filters = [
        given(wanted.status.is_some(), "status = $1", "$1", "text"),
        given(wanted.customer.is_some(), "customer = $2", "$2", "text"),
        given(wanted.least.is_some(), &format!("amount >= CAST($3 AS {number})"), "$3", "text"),
        given(wanted.most.is_some(), &format!("amount <= CAST($4 AS {number})"), "$4", "text"),
        given(wanted.since.is_some(), "placed_at >= $5", "$5", "bigint"),
        given(wanted.until.is_some(), "placed_at < $6", "$6", "bigint"),
    ];
    filters.join(" AND ")
}

/// The condition if it is wanted; otherwise one that is always true and names the parameter with its type. A plan cannot use the
/// index of a condition that says itself whether it is wanted.
fn given(is_wanted: bool, condition: &str, parameter: &str, of_type: &str) -> String {
    if is_wanted { condition.to_owned() } else { format!("(CAST({parameter} AS {of_type}) IS NULL OR true)") }
}

/// The query of a page of `orders`, with the parameters 7, the order before the page, and 8, the limit.
fn page(wanted: &Wanted, orders: &str, number: &str) -> String {
    let (sort, filters) = (wanted.sort.column(), filters(wanted, number));
    let (order, than) = if wanted.descending { ("DESC", "<") } else { ("ASC", ">") };
    // What an order is sorted by never changes, so the order itself is the place.
    let begins = format!("({sort}, id) {than} (SELECT {sort}, id FROM {orders} WHERE id = $7)");
    let begins = given(wanted.after.is_some(), &begins, "$7", "text");
    format!("SELECT {COLUMNS} FROM {orders} WHERE {filters} AND {begins} ORDER BY {sort} {order}, id {order} LIMIT $8")
}

/// The query of the number of orders on all pages.
fn count(wanted: &Wanted, orders: &str, number: &str) -> String {
    format!("SELECT count(*) FROM {orders} WHERE {}", filters(wanted, number))
}

/// What is wanted, as the queries take it.
struct Bound {
    status: Option<String>,
    customer: Option<String>,
    least: Option<String>,
    most: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Bound {
    fn of(wanted: &Wanted) -> Self {
        Self {
            status: wanted.status.map(|status| status.to_string()),
            customer: wanted.customer.as_ref().map(CustomerId::to_string),
            least: wanted.least.map(|amount| amount.to_string()),
            most: wanted.most.map(|amount| amount.to_string()),
            since: wanted.since.map(|time| time.timestamp_micros()),
            until: wanted.until.map(|time| time.timestamp_micros()),
        }
    }
}

/// The order in a row of [`COLUMNS`].
fn order(
    (id, customer, status, total, placed_at): (String, String, String, String, i64),
) -> Result<(CustomerId, OrderSummary), SearchError> {
    let read = || -> Result<_, BoxError> {
        let placed_at = DateTime::from_timestamp_micros(placed_at).ok_or("no time")?;
        let summary =
            OrderSummary { order_id: id.parse()?, status: status.parse()?, total_amount: total.parse()?, placed_at };
        Ok((customer.parse()?, summary))
    };
    read().map_err(SearchError::Row)
}

/// What the events of a batch come to: new orders, and the last status of each earlier one. So a new order is written once, with the
/// entries of its indexes.
#[derive(Debug, Default)]
struct Batch<'e> {
    placed: BTreeMap<&'e str, NewOrder<'e>>,
    statuses: BTreeMap<&'e str, Status>,
}

/// An order that is placed in a batch.
#[derive(Debug)]
struct NewOrder<'e> {
    customer: &'e CustomerId,
    status: Status,
    total: Money,
    placed_at: i64,
}

impl<'e> Batch<'e> {
    fn of(events: &'e [Recorded<OrderEvent>]) -> Self {
        let mut batch = Self::default();
        for event in events {
            let (id, status) = (event.stream.id(), event.data.status());
            if let OrderEvent::Placed { customer, total, .. } = &event.data {
                let placed_at = event.recorded_at.timestamp_micros();
                batch.placed.insert(id, NewOrder { customer, status, total: *total, placed_at });
            } else if let Some(order) = batch.placed.get_mut(id) {
                order.status = status;
            } else {
                batch.statuses.insert(id, status);
            }
        }
        batch
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::recorded;

    use super::*;
    use crate::order::Drive;

    #[test]
    fn a_batch_has_the_last_status_of_each_order_once() {
        let customer: CustomerId = "USR-1".parse().unwrap();
        let (lines, total, drive) = (Vec::new(), Money::of_cents(100), Drive::Manual);
        let placed = OrderEvent::Placed { customer: customer.clone(), lines, total, drive };
        let scheduled = OrderEvent::Scheduled { customer };
        let events = [("A", scheduled.clone()), ("B", placed.clone()), ("B", scheduled), ("C", placed)];
        let events: Vec<_> = recorded(events).iter().map(|event| event.decode().unwrap().unwrap()).collect();
        let Batch { placed, statuses } = Batch::of(&events);
        let placed: Vec<_> = placed.into_iter().map(|(id, order)| (id, order.status)).collect();
        assert_eq!(placed, [("B", Status::Scheduled), ("C", Status::Pending)]);
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [("A", Status::Scheduled)]);
    }
}
