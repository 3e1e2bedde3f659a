//! On an embedded file.

use evenfold::{
    Recorded, TableProjection, Tables, async_trait,
    backend::{BoxError, TableReading},
    sqlite::{SqliteStore, SqliteTables},
};

use super::{Batch, Bound, Found, NewOrder, OrderSearch, SearchError, Wanted, count, order, page};
use crate::order::OrderEvent;

#[async_trait]
impl TableProjection<SqliteStore> for OrderSearch {
    const NAME: &'static str = Self::NAME;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE {orders} (id TEXT PRIMARY KEY, customer TEXT NOT NULL, status TEXT NOT NULL,
                                total TEXT NOT NULL, amount REAL NOT NULL, placed_at INTEGER NOT NULL) STRICT",
        "CREATE INDEX {orders_customer} ON {orders} (customer, placed_at, id);
         CREATE INDEX {orders_status} ON {orders} (status, placed_at, id);
         CREATE INDEX {orders_placed_at} ON {orders} (placed_at, id);
         CREATE INDEX {orders_amount} ON {orders} (amount, id)",
    ];
    type Event = OrderEvent;

    async fn write(&self, tables: &mut SqliteTables<'_>, events: &[Recorded<OrderEvent>]) -> Result<(), BoxError> {
        let Batch { placed, statuses } = Batch::of(events);
        if !placed.is_empty() {
            let insert = tables.sql(
                "INSERT INTO {orders} SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, CAST(value ->> 3 AS REAL), value ->> 4
                   FROM json_each($1)",
            );
            let placed = placed.into_iter().map(|(id, NewOrder { customer, status, total, placed_at })| {
                (id, customer, status.to_string(), total.to_string(), placed_at)
            });
            let placed = serde_json::to_string(&placed.collect::<Vec<_>>())?;
            sqlx::query(insert).bind(placed).execute(tables.connection()).await?;
        }
        if !statuses.is_empty() {
            let update = tables
                .sql("UPDATE {orders} SET status = new.value FROM json_each($1) AS new WHERE {orders}.id = new.key");
            sqlx::query(update).bind(serde_json::to_string(&statuses)?).execute(tables.connection()).await?;
        }
        Ok(())
    }
}

pub(super) async fn find(tables: &Tables<OrderSearch, SqliteStore>, wanted: &Wanted) -> Result<Found, SearchError> {
    let mut reading = match &wanted.after {
        Some((generation, _)) => tables.read_in(*generation).await?,
        None => tables.read().await?,
    };
    let Bound { status, customer, least, most, since, until } = &Bound::of(wanted);
    let after = wanted.after.as_ref().map(|(_, order)| order.to_string());
    let rows = sqlx::query_as(reading.sql_of(&page(wanted, "{orders}", "REAL")));
    let rows = rows.bind(status).bind(customer).bind(least).bind(most).bind(since).bind(until);
    let rows = rows.bind(after).bind(wanted.limit).fetch_all(reading.connection()).await?;
    let number = sqlx::query_scalar(reading.sql_of(&count(wanted, "{orders}", "REAL")));
    let number = number.bind(status).bind(customer).bind(least).bind(most).bind(since).bind(until);
    let count = number.fetch_one(reading.connection()).await?;
    let generation = reading.generation().reader.id;
    reading.end().await?;
    Ok(Found { orders: rows.into_iter().map(order).collect::<Result<_, _>>()?, count, generation })
}
