// A read model in a table of its own, on an embedded file: what SQL can answer.

use std::time::Duration;

use evenfold::{TableProjection, backend::BoxError, prelude::*, sqlite::SqliteTables};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "loan")]
enum LoanEvent {
    #[event(name = "loan.started")]
    Started { member: String },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Loan;

impl Aggregate for Loan {
    type Command = LoanEvent;
    type Event = LoanEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, event: &LoanEvent) -> Result<Vec<LoanEvent>, Self::Error> {
        Ok(vec![event.clone()])
    }

    fn apply(&mut self, _: &LoanEvent) {}
}

/// A row for each loan. What stands in braces gets the name that it has in the generation.
struct Loans;

#[async_trait]
impl TableProjection<SqliteStore> for Loans {
    const NAME: &'static str = "loans";
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE {loans} (id TEXT PRIMARY KEY, member TEXT NOT NULL, started_at_us INTEGER NOT NULL)"];
    type Event = LoanEvent;

    async fn write(&self, tables: &mut SqliteTables<'_>, events: &[Recorded<LoanEvent>]) -> Result<(), BoxError> {
        for event in events {
            let LoanEvent::Started { member } = &event.data;
            let query = sqlx::query(tables.sql("INSERT INTO {loans} VALUES (?, ?, ?)")).bind(event.stream.id());
            let query = query.bind(member).bind(event.recorded_at.timestamp_micros());
            query.execute(tables.connection()).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(directory.path().join("library.db")).await?;
    let service = Service::builder("library", store.clone()).aggregate::<Loan>().table_projection(Loans, store);
    let service = service.start().await?;
    service.repository::<Loan>().execute("1", LoanEvent::Started { member: "ada".to_owned() }).await?;
    let receipt = service.repository::<Loan>().execute("2", LoanEvent::Started { member: "ada".to_owned() }).await?;

    let loans = service.tables::<Loans, SqliteStore>().expect("it is registered");
    loans.wait_for(receipt.token, Duration::from_secs(5)).await?;
    let mut reading = loans.read().await?;
    let sql = reading.sql("SELECT member, count(*) FROM {loans} GROUP BY member");
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(reading.connection()).await?;
    reading.end().await?;
    assert_eq!(rows, [("ada".to_owned(), 2)]);

    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
