//! On Postgres.

use evenfold::{
    Recorded, TableProjection, Tables, async_trait,
    backend::{BoxError, TableReading},
    postgres::{PgTables, PostgresStore},
};
use sqlx::AssertSqlSafe;

use super::{Batch, Bound, Found, OrderSearch, SearchError, Wanted, count, order, page};
use crate::order::OrderEvent;

#[async_trait]
impl TableProjection<PostgresStore> for OrderSearch {
    const NAME: &'static str = Self::NAME;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE orders (id text COLLATE \"C\" PRIMARY KEY, customer text NOT NULL, status text NOT NULL,
                              total text NOT NULL, amount numeric NOT NULL, placed_at bigint NOT NULL)",
        "CREATE INDEX ON orders (customer, placed_at, id); CREATE INDEX ON orders (status, placed_at, id);
         CREATE INDEX ON orders (placed_at, id); CREATE INDEX ON orders (amount, id)",
    ];
    type Event = OrderEvent;

    async fn write(&self, tables: &mut PgTables<'_>, events: &[Recorded<OrderEvent>]) -> Result<(), BoxError> {
        let Batch { placed, statuses } = Batch::of(events);
        if !placed.is_empty() {
            let insert = "INSERT INTO orders SELECT id, customer, status, total, total::numeric, placed_at
                            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                                 AS new (id, customer, status, total, placed_at)";
            sqlx::query(insert)
                .bind(placed.keys().copied().collect::<Vec<_>>())
                .bind(placed.values().map(|order| order.customer.as_ref()).collect::<Vec<_>>())
                .bind(placed.values().map(|order| order.status.to_string()).collect::<Vec<_>>())
                .bind(placed.values().map(|order| order.total.to_string()).collect::<Vec<_>>())
                .bind(placed.values().map(|order| order.placed_at).collect::<Vec<_>>())
                .execute(tables.connection())
                .await?;
        }
        if !statuses.is_empty() {
            let update = "UPDATE orders SET status = new.status FROM unnest($1::text[], $2::text[]) AS new (id, status)
                           WHERE orders.id = new.id";
            sqlx::query(update)
                .bind(statuses.keys().copied().collect::<Vec<_>>())
                .bind(statuses.values().map(ToString::to_string).collect::<Vec<_>>())
                .execute(tables.connection())
                .await?;
        }
        Ok(())
    }
}

pub(super) async fn find(tables: &Tables<OrderSearch, PostgresStore>, wanted: &Wanted) -> Result<Found, SearchError> {
    let mut reading = match &wanted.after {
        Some((generation, _)) => tables.read_in(*generation).await?,
        None => tables.read().await?,
    };
    let Bound { status, customer, least, most, since, until } = &Bound::of(wanted);
    let after = wanted.after.as_ref().map(|(_, order)| order.to_string());
    let rows = sqlx::query_as(AssertSqlSafe(page(wanted, "orders", "numeric")));
    let rows = rows.bind(status).bind(customer).bind(least).bind(most).bind(since).bind(until);
    let rows = rows.bind(after).bind(wanted.limit).fetch_all(reading.connection()).await?;
    let number = sqlx::query_scalar(AssertSqlSafe(count(wanted, "orders", "numeric")));
    let number = number.bind(status).bind(customer).bind(least).bind(most).bind(since).bind(until);
    let count = number.fetch_one(reading.connection()).await?;
    let generation = reading.generation().reader.id;
    reading.end().await?;
    Ok(Found { orders: rows.into_iter().map(order).collect::<Result<_, _>>()?, count, generation })
}
