//! The same work on logs of different sizes.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::Connection;

use crate::{
    account::AccountEvent,
    bare,
    contender::{Task, Work},
    database::{self, Server},
    entrant::Entrant,
    measure::Timing,
    placement::Apart,
    report::Row,
    rounds::{self, Prepared},
    workload::Workload,
};

/// Sizes in events: the one that the claims are about, the one it is compared with, and one between them.
const SIZES: [u64; 3] = [10_000_000, 100_000, 1_000_000];

/// Fills a log of each size, and runs the workloads on all of them.
pub(crate) async fn run(
    server: &Server,
    workloads: &[Workload],
    rounds: usize,
    timing: Timing,
    quick: bool,
) -> Result<Vec<Row>> {
    // The names stay: a quick run only shows that it runs.
    let shrink = if quick { 100 } else { 1 };
    let mut urls = Vec::new();
    for size in SIZES {
        urls.push((Entrant::Sized(size), fill(server, Entrant::Sized(size), size / shrink).await?));
    }
    let mut rows = Vec::new();
    for workload in workloads {
        let mut prepared = Vec::new();
        for (entrant, url) in &urls {
            let task = Task { url: url.clone(), work: workload.work, clients: workload.clients };
            prepared.push(Prepared::fill(*entrant, task).await?);
        }
        let apart = Apart::keep(server, workload).await?;
        let series = rounds::interleave(&prepared, workload, rounds, timing).await?;
        let row = Row::of(workload, apart.is_some(), &series);
        print!("{}", row.table());
        rows.push(row);
    }
    for (entrant, _) in urls {
        server.drop(entrant.name()).await?;
    }
    Ok(rows)
}

async fn fill(server: &Server, entrant: Entrant, size: u64) -> Result<String> {
    let started = Instant::now();
    let url = server.create(entrant.name(), Duration::ZERO).await?;
    entrant.prepare(&Task { url: url.clone(), work: Work::Execute, clients: 1 }).await?;
    let mut connection = bare::connect(&url).await?;
    sqlx::query(include_str!("sql/grow.sql"))
        .bind(i64::try_from(size)?)
        .bind(AccountEvent::deposit().payload())
        .execute(&mut connection)
        .await?;
    // What autovacuum does on the way of a log that grows by itself.
    sqlx::raw_sql("VACUUM (ANALYZE) events").execute(&mut connection).await?;
    let bytes = "SELECT pg_size_pretty(pg_total_relation_size('events'))";
    let bytes: String = database::value(&mut connection, bytes).await?;
    connection.close().await?;
    eprintln!("filled a log with {size} events, {bytes}, in {:.1} s", started.elapsed().as_secs_f32());
    Ok(url)
}
