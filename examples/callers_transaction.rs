// An event and a row of a table of your own, in one transaction of Postgres: both are there, or neither is.
//
// For applications that move to events step by step. It needs a server:
// cargo xtask servers -- cargo run -p examples --example callers_transaction

use std::env;

use evenfold::{Append, EventStore, NewEvent, Version, prelude::*};
use sqlx::{Connection, PgConnection};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "invoice")]
enum InvoiceEvent {
    #[event(name = "invoice.written")]
    Written { cents: i64 },
}

/// Writes an invoice into the application's own table, and its event into the log.
async fn write_invoice(
    store: &PostgresStore,
    database: &mut PgConnection,
    cents: i64,
) -> Result<(i64, Receipt), Box<dyn std::error::Error>> {
    let mut transaction = database.begin().await?;
    let insert = "INSERT INTO example_invoices (cents) VALUES ($1) RETURNING id";
    let id: i64 = sqlx::query_scalar(insert).bind(cents).fetch_one(&mut *transaction).await?;

    // The last statement before the commit: until then no other session appends to this log.
    let event = NewEvent::of(&InvoiceEvent::Written { cents })?;
    let append = Append::new(invoice(id)?, Expected::NoStream, vec![event]);
    let appended = store.append_in(&mut transaction, append).await?;
    transaction.commit().await?;
    Ok((id, appended.into()))
}

fn invoice(id: i64) -> Result<StreamId, Box<dyn std::error::Error>> {
    Ok(StreamId::new("invoice", &id.to_string())?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL must name a Postgres server")?;
    let mut database = PgConnection::connect(&url).await?;
    let table = "CREATE TABLE IF NOT EXISTS example_invoices
                     (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cents bigint NOT NULL CHECK (cents > 0))";
    sqlx::query(table).execute(&mut database).await?;
    let store = PostgresStore::options(&url).schema("example_invoices").connect().await?;

    let (id, receipt) = write_invoice(&store, &mut database, 500).await?;
    assert_eq!(receipt.version, Version::new(1));
    let events = store.read_stream(&invoice(id)?, Version::ZERO, 10).await?;
    assert_eq!(events.len(), 1);

    // The table refuses it, so there is no event either.
    let head = store.head().await?;
    assert!(write_invoice(&store, &mut database, -500).await.is_err());
    assert_eq!(store.head().await?, head);
    store.close().await?;
    Ok(())
}
