//! Reads that share statements: whatever is asked for while the server is busy becomes one statement.
//! There is no timer here either.
//!
//! A few callers are served at once and alone, each by a statement of its own, and who comes after them shares one. Where
//! very many share it, no caller goes alone, and there is one statement at a time. (64 clients, loading for each command: 0.64
//! of the bare work instead of 0.55. With 8 that only load it is the other way round: 0.50 instead of 0.75.)

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{
    ReadError,
    backend::{is_of_engine, likewise, of_engine},
    telemetry::LoadMeter,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task,
};

use crate::{connections::Connections, error};

/// How many statements there are at once, at most.
const MOST_STATEMENTS: u32 = 4;

/// With more reads than this in one statement no caller goes alone.
const CONCURRENT: usize = 16;

/// How often others are let in before a statement for many is sent; see the writer's.
const YIELDS_BEFORE_A_BATCH: usize = 3;

/// How many reads one statement serves, at most.
const MOST_READS: usize = 128;

/// A read that can share a statement with others of its kind.
pub(crate) trait Shareable: Send + Sync + Sized + 'static {
    /// What it finds.
    type Found: Send + 'static;

    /// What it finds by a statement of its own.
    fn alone(&self, connections: &Connections) -> impl Future<Output = Result<Self::Found, ReadError>> + Send;

    /// Answers each of `asked`.
    fn together(connections: &Connections, asked: Vec<Asked<Self>>) -> impl Future<Output = ()> + Send;
}

/// A read and its caller, who waits.
pub(crate) struct Asked<R: Shareable> {
    pub(crate) read: R,
    answer: oneshot::Sender<Result<R::Found, ReadError>>,
}

impl<R: Shareable> Asked<R> {
    pub(crate) fn answer(self, found: Result<R::Found, ReadError>) {
        // The caller may have dropped its future.
        let _ = self.answer.send(found);
    }
}

/// The ways of such reads to the server, which end when this is dropped.
///
/// Engines have one of their own: who shares a statement shares its wait for a connection, and one of those is for engines alone.
pub(crate) struct Shared<R: Shareable> {
    connections: Arc<Connections>,
    callers: Way<R>,
    engines: Way<R>,
    meter: LoadMeter,
}

impl<R: Shareable> Shared<R> {
    pub(crate) fn start(connections: Arc<Connections>) -> Self {
        let (callers, of_callers) = Way::new();
        let (engines, of_engines) = Way::new();
        tokio::spawn(run(connections.clone(), of_callers));
        tokio::spawn(of_engine(run(connections.clone(), of_engines)));
        Self { connections, callers, engines, meter: LoadMeter::default() }
    }

    /// What `read` finds, in a snapshot that is taken later than this is called.
    pub(crate) async fn read(&self, read: R) -> Result<R::Found, ReadError> {
        let way = if is_of_engine() { &self.engines } else { &self.callers };
        if !way.traffic.is_contended.load(Ordering::Relaxed)
            && let Ok(_statement) = way.traffic.statements.try_acquire()
        {
            // Boxed, since it is large: those who share a statement do not need its room.
            return Box::pin(read.alone(&self.connections)).await;
        }
        let closed = || error::read(sqlx::Error::PoolClosed);
        let (answer, answered) = oneshot::channel();
        let shared = async {
            way.queue.send(Asked { read, answer }).await.map_err(|_| closed())?;
            answered.await.unwrap_or_else(|_| Err(closed()))
        };
        self.meter.waiting(shared).await
    }
}

struct Way<R: Shareable> {
    queue: mpsc::Sender<Asked<R>>,
    traffic: Traffic,
}

#[derive(Clone)]
struct Traffic {
    statements: Arc<Semaphore>,
    /// Whether many are asking.
    is_contended: Arc<AtomicBool>,
}

impl<R: Shareable> Way<R> {
    fn new() -> (Self, (mpsc::Receiver<Asked<R>>, Traffic)) {
        let (queue, asked) = mpsc::channel(1_024);
        let statements = Arc::new(Semaphore::new(MOST_STATEMENTS as usize));
        let traffic = Traffic { statements, is_contended: Arc::default() };
        (Self { queue, traffic: traffic.clone() }, (asked, traffic))
    }
}

/// Serves concurrent callers.
async fn run<R: Shareable>(connections: Arc<Connections>, (mut queue, traffic): (mpsc::Receiver<Asked<R>>, Traffic)) {
    let Traffic { statements, is_contended } = traffic;
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, 1).await > 0 {
        let needed = if is_contended.load(Ordering::Relaxed) { MOST_STATEMENTS } else { 1 };
        let Ok(statement) = statements.clone().acquire_many_owned(needed).await else { return };
        // Those who were just answered may want the next one.
        for _ in 0..YIELDS_BEFORE_A_BATCH {
            task::yield_now().await;
        }
        while waiting.len() < MOST_READS
            && let Ok(asked) = queue.try_recv()
        {
            waiting.push(asked);
        }
        is_contended.store(waiting.len() > CONCURRENT, Ordering::Relaxed);
        let (connections, asked) = (connections.clone(), std::mem::take(&mut waiting));
        tokio::spawn(likewise(async move {
            R::together(&connections, asked).await;
            drop(statement);
        }));
    }
}
