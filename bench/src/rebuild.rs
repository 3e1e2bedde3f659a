//! The measurement of a rebuild and of a catch-up: one piece of work in each round, on a log that was filled before.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    contender::{Task, Work},
    database::{Database, Server},
    embedded::Files,
    entrant::Entrant,
    history::{EVENTS_PER_STREAM, History},
    measure::{self, Measurement},
};

/// The streams of the history, each with a document of its own.
const STREAMS: usize = 50_000;

/// Measures a read model of all streams from the first event until the last document is durable.
///
/// Fails unless each document is the fold of its stream.
pub(crate) async fn measure(server: &Server, entrant: Entrant, work: Work) -> Result<Measurement> {
    let files = entrant.is_embedded().then(Files::new).transpose()?;
    let url = match &files {
        Some(files) => files.create(entrant.name()),
        None => server.create(entrant.name(), Duration::ZERO).await?,
    };
    let task = Task { url, work, clients: 1 };
    entrant.prepare(&task).await?;
    let contender = entrant.connect(&task).await?;
    let mut client = contender.client().await?;
    if work == Work::CatchUp {
        // A read model that does not serve yet would be rebuilt.
        client.catch_up().await?;
    }
    client.import("history", History::of(STREAMS)?).await?;
    let mut database = Database::open(&task.url).await?;
    database.analyze().await?;
    // Where the clients of the closed loops are: on a thread of the pool.
    let work = tokio::spawn(async move {
        match work {
            Work::CatchUp => client.catch_up().await,
            _ => client.rebuild().await,
        }
    });
    let events = STREAMS * EVENTS_PER_STREAM;
    let measured = measure::piece(&mut database, events, async { work.await? }).await?;
    let found: (i64, i64) = match &mut database {
        Database::Server(connection) => sqlx::query_as(include_str!("sql/documents.sql")).fetch_one(connection).await?,
        Database::File(connection) => {
            sqlx::query_as(include_str!("sql/documents_embedded.sql")).fetch_one(connection).await?
        }
    };
    ensure!(
        found == (i64::try_from(STREAMS * entrant.read_models())?, i64::try_from(events * entrant.read_models())?),
        "documents and the events they tell of: {found:?}"
    );
    drop(contender);
    if files.is_none() {
        server.drop(entrant.name()).await?;
    }
    Ok(measured)
}
