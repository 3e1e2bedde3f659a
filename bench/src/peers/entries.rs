//! The peers at work.

mod cqrs_es;
mod disintegrate;
mod esrs;
mod evento;
mod eventually;
mod happenstance;

use std::time::Duration;

use anyhow::Result;

use crate::{
    contender::{Contender, Task},
    peers::Peer,
};

/// How long a client may wait for a connection of a peer's pool: no peer fails because the machine is busy.
const PATIENCE: Duration = Duration::from_mins(1);

impl Peer {
    /// Creates its tables, as its documentation tells.
    pub(crate) async fn create_tables(self, task: &Task) -> Result<()> {
        match self {
            Self::CqrsEs => cqrs_es::create_tables(task).await,
            Self::Disintegrate => disintegrate::create_tables(task).await,
            Self::Esrs => esrs::create_tables(task).await,
            Self::Evento => evento::create_tables(task).await,
            Self::Eventually => eventually::create_tables(task).await,
            Self::Happenstance => happenstance::create_tables(task).await,
        }
    }

    /// Connects it.
    pub(crate) async fn connect(self, task: &Task) -> Result<Box<dyn Contender>> {
        match self {
            Self::CqrsEs => cqrs_es::connect(task).await,
            Self::Disintegrate => disintegrate::connect(task).await,
            Self::Esrs => esrs::connect(task).await,
            Self::Evento => evento::connect(task).await,
            Self::Eventually => eventually::connect(task).await,
            Self::Happenstance => happenstance::connect(task).await,
        }
    }
}

/// How many connections a peer's pool gets: one for each client, up to a number beyond which more of them only stand in
/// each other's way. (On two cores 256 connections carried less than 16 or 64 did.)
fn connections(task: &Task) -> u32 {
    u32::try_from(task.clients.min(64)).unwrap_or(64)
}

/// The pool of the peers on the driver's version 0.8. It does not ask a connection whether it is alive before each use,
/// as it would by default: that is the driver's own advice for speed.
async fn pool_0_8(task: &Task, connections: u32) -> Result<sqlx_0_8::PgPool> {
    let options = sqlx_0_8::postgres::PgPoolOptions::new().min_connections(connections).max_connections(connections);
    let options = options.acquire_timeout(PATIENCE).test_before_acquire(false);
    Ok(options.connect(&task.url).await?)
}

/// The same for version 0.9.
async fn pool_0_9(task: &Task, connections: u32) -> Result<sqlx::PgPool> {
    let options = sqlx::postgres::PgPoolOptions::new().min_connections(connections).max_connections(connections);
    let options = options.acquire_timeout(PATIENCE).test_before_acquire(false);
    Ok(options.connect(&task.url).await?)
}
