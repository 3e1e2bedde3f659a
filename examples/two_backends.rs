// One service, on an embedded file here and on a Postgres server there. Only the line that opens the store differs.
//
// It needs a server: cargo xtask servers -- cargo run -p examples --example two_backends

use std::{env, sync::Arc, time::Duration};

use evenfold::{ServiceStore, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "page")]
enum PageEvent {
    #[event(name = "page.visited")]
    Visited,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Page;

struct Visit;

impl Aggregate for Page {
    type Command = Visit;
    type Event = PageEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, _: &Visit) -> Result<Vec<PageEvent>, Self::Error> {
        Ok(vec![PageEvent::Visited])
    }

    fn apply(&mut self, _: &PageEvent) {}
}

/// How often each page was visited.
struct Visits;

impl Projection for Visits {
    const NAME: &'static str = "visits";
    type Event = PageEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<PageEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, visits: &mut Option<u64>, _: &Recorded<PageEvent>) -> FoldResult {
        *visits.get_or_insert_default() += 1;
        Ok(())
    }
}

/// The store that the configuration of a deployment names: a URL of Postgres, or the path of a file.
async fn open(configured: &str) -> Result<Arc<dyn ServiceStore>, Box<dyn std::error::Error>> {
    Ok(if configured.starts_with("postgres") {
        Arc::new(PostgresStore::options(configured).schema("example_visits").connect().await?)
    } else {
        Arc::new(SqliteStore::open(configured).await?)
    })
}

/// The whole application. It does not know what it runs on.
async fn visit(store: Arc<dyn ServiceStore>, page: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let service = Service::builder("visits", store).aggregate::<Page>().projection(Visits).start().await?;
    let receipt = service.repository::<Page>().execute(page, Visit).await?;
    let visits = service.read_model::<Visits>();
    visits.wait_for(receipt.token, Duration::from_secs(10)).await?;
    let count = visits.get(page).await?.unwrap_or_default();
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(count)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let postgres = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL must name a Postgres server")?;
    let folder = tempfile::tempdir()?;
    let sqlite = folder.path().join("visits.db").display().to_string();
    for store in [sqlite, postgres] {
        let first = visit(open(&store).await?, "home").await?;
        assert_eq!(visit(open(&store).await?, "home").await?, first + 1);
    }
    Ok(())
}
