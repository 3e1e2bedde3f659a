//! A run: clients, readers and faults.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{sync::watch, task::JoinSet};

use super::{
    client::Client,
    history::{Record, Seen},
    plan::{Fault, Plan},
    reader::Reader,
    recorder::Recorder,
    session::Session,
};
use es_core::EventStore;

/// Injects faults into a run. The backend's tests implement it, since the checker knows only the port.
#[async_trait]
pub trait Disruption: Send + Sync {
    /// Injects `fault` and returns when it is over: calls made from then on must succeed.
    async fn inject(&self, fault: Fault);

    /// Returns when the other processes have done their part. No fault is injected after this call.
    async fn others_done(&self);

    /// Sends a probe to the server on a connection of its own and returns when the server has answered. It tells a store
    /// that fails from a machine that is overloaded. It never returns if there is no server.
    async fn ask(&self) {
        std::future::pending::<()>().await;
    }
}

/// No faults, and one process.
#[derive(Debug, Clone, Copy)]
pub struct NoFaults;

#[async_trait]
impl Disruption for NoFaults {
    async fn inject(&self, _: Fault) {}

    async fn others_done(&self) {}
}

/// Executes `plan` as its first process. All `stores` are the same store, opened several times as different processes
/// would. Returns the whole log at the end, for [`check`](super::check).
pub async fn run(
    plan: &Arc<Plan>,
    stores: Vec<Arc<dyn EventStore>>,
    recorder: &Arc<Recorder>,
    disruption: &dyn Disruption,
) -> Vec<Seen> {
    recorder.record(Record::Seed(plan.seed));
    let injected = watch::Sender::new(false);
    let faults = async {
        let mut done = recorder.done();
        for (after, fault) in &plan.faults {
            let reached = |done: &BTreeMap<u32, u64>| done.values().sum::<u64>() >= *after;
            // The sender lives as long as the recorder.
            let _ = done.wait_for(reached).await;
            recorder.record(Record::Injected(*fault));
            disruption.inject(*fault).await;
            recorder.record(Record::Recovered(*fault));
        }
        injected.send_replace(true);
    };
    let others = async {
        let _ = injected.subscribe().wait_for(|injected| *injected).await;
        disruption.others_done().await;
    };
    let log = async {
        tokio::join!(take_part(plan, 0, stores.clone(), recorder, others), faults);
        let session = Session { plan: plan.clone(), process: 0, stores, recorder: recorder.clone() };
        Reader::resume(Arc::new(session), plan.last_reader(), std::iter::empty()).whole().await
    };
    tokio::select! {
        log = log => log,
        never = ask(recorder, disruption) => match never {},
    }
}

async fn ask(recorder: &Recorder, disruption: &dyn Disruption) -> Infallible {
    loop {
        recorder.record(Record::Asked);
        let asked = Instant::now();
        disruption.ask().await;
        let after_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        recorder.record(Record::Answered { after_ms });
        // Often enough to see every stall that lasts. No result depends on this pause.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Executes the part of one process, or the rest of it after the process was killed. Its readers follow the log until
/// `others` have done their part.
///
/// # Panics
/// When the history cannot be read, or a client panics.
pub async fn take_part(
    plan: &Arc<Plan>,
    process: u32,
    stores: Vec<Arc<dyn EventStore>>,
    recorder: &Arc<Recorder>,
    others: impl Future<Output = ()>,
) {
    let session = Arc::new(Session { plan: plan.clone(), process, stores, recorder: recorder.clone() });
    let former = recorder.history().expect("the history can be read").records;
    let lines = |actor: u32| {
        former.iter().filter(move |record| match record {
            Record::Called { id, .. } | Record::Returned { id, .. } => id.actor == actor,
            _ => false,
        })
    };
    let resumed: Vec<_> =
        plan.clients_of(process).map(|client| Client::resume(session.clone(), client, lines(client))).collect();
    recorder.note_done(process, resumed.iter().map(|client| u64::from(client.next)).sum());
    let end = watch::Sender::new(None);
    let mut readers = JoinSet::new();
    for reader in plan.readers_of(process) {
        readers.spawn(Reader::resume(session.clone(), reader, lines(reader)).follow(end.subscribe()));
    }
    let clients: JoinSet<()> = resumed.into_iter().map(Client::run).collect();
    clients.join_all().await;
    others.await;
    let head = loop {
        match session.stores[0].head().await {
            Ok(head) => break head,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    end.send_replace(Some(head.get()));
    readers.join_all().await;
}
