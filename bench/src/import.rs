//! The measurement of an import: no closed loop of clients, but one piece of work in each round, into an empty log.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    bare,
    contender::{Task, Work},
    database::{Database, Server},
    entrant::Entrant,
    history::{EVENTS_PER_STREAM, History},
    measure::{self, Measurement},
};

/// The streams of the history.
const STREAMS: usize = 20_000;

/// The streams of the one that is imported before anything counts.
const WARM_UP_STREAMS: usize = 2_000;

/// Measures the import of a history that is in memory, until all of it is durable.
///
/// Fails unless all of its events are in the log, numbered without gaps.
pub(crate) async fn measure(server: &Server, entrant: Entrant) -> Result<Measurement> {
    let url = server.create(entrant.name(), Duration::ZERO).await?;
    let task = Task { url, work: Work::Import, clients: 1 };
    entrant.prepare(&task).await?;
    let contender = entrant.connect(&task).await?;
    let mut client = contender.client().await?;
    client.import("warm-up", History::of(WARM_UP_STREAMS)?).await?;
    let history = History::of(STREAMS)?;
    let operations = history.events.len();
    let mut database = Database::open(&task.url).await?;
    database.analyze().await?;
    // Where the clients of the closed loops are: on a thread of the pool.
    let work = tokio::spawn(async move { client.import("history", history).await });
    let measured = measure::piece(&mut database, operations, async { work.await? }).await?;
    let events = measure::events(&*contender, &mut database).await?;
    let all = (STREAMS + WARM_UP_STREAMS) * EVENTS_PER_STREAM;
    ensure!(usize::try_from(events)? == all, "the log holds {events} of {all} events");
    let (streams, head): (i64, Option<i64>) = sqlx::query_as(include_str!("sql/complete_streams.sql"))
        .bind(i64::try_from(EVENTS_PER_STREAM)?)
        .fetch_one(&mut bare::connect(&task.url).await?)
        .await?;
    ensure!(usize::try_from(streams)? == STREAMS + WARM_UP_STREAMS, "only {streams} streams are complete");
    ensure!(head == Some(i64::try_from(all)?), "positions have gaps");
    drop(contender);
    server.drop(entrant.name()).await?;
    Ok(measured)
}
