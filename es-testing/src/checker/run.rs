//! A run: clients, readers, and what is done to them.

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
    plan::{Blow, Plan},
    reader::Reader,
    recorder::Recorder,
    session::Session,
};
use es_core::EventStore;

/// What is done to a run from outside. It belongs to the backend: the checker knows nothing but the port.
#[async_trait]
pub trait Disruption: Send + Sync {
    /// Strikes, and returns when what was struck is whole again: calls made from then on must succeed.
    async fn strike(&self, blow: Blow);

    /// Returns when the other processes have done their part. No blow comes after it is called.
    async fn others_done(&self);

    /// Asks the server something, on a connection of its own, and returns when it has answered: a bystander by whom a
    /// store that fails is told from a machine that is too busy. Never returns where there is no server.
    async fn ask(&self) {
        std::future::pending::<()>().await;
    }
}

/// Nothing happens, and there is one process.
#[derive(Debug, Clone, Copy)]
pub struct Peace;

#[async_trait]
impl Disruption for Peace {
    async fn strike(&self, _: Blow) {}

    async fn others_done(&self) {}
}

/// Carries out `plan` as its first process, with `stores` that are all the same store, opened as different processes
/// would open it. Returns the whole log at the end, for [`check`](super::check).
pub async fn run(
    plan: &Arc<Plan>,
    stores: Vec<Arc<dyn EventStore>>,
    recorder: &Arc<Recorder>,
    disruption: &dyn Disruption,
) -> Vec<Seen> {
    recorder.record(Record::Seed(plan.seed));
    let struck = watch::Sender::new(false);
    let blows = async {
        let mut done = recorder.done();
        for (after, blow) in &plan.blows {
            let reached = |done: &BTreeMap<u32, u64>| done.values().sum::<u64>() >= *after;
            // The sender lives as long as the recorder.
            let _ = done.wait_for(reached).await;
            recorder.record(Record::Struck(*blow));
            disruption.strike(*blow).await;
            recorder.record(Record::Recovered(*blow));
        }
        struck.send_replace(true);
    };
    let others = async {
        let _ = struck.subscribe().wait_for(|struck| *struck).await;
        disruption.others_done().await;
    };
    let log = async {
        tokio::join!(take_part(plan, 0, stores.clone(), recorder, others), blows);
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
        // Often enough to see every stall that lasts. Nothing waits for this pause.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Carries out the part of one process, or what is left of it after the process was killed; its readers follow the log
/// until `others` have done theirs.
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
