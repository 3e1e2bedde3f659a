//! cqrs-es with postgres-es.
//!
//! It offers three sources of truth: the events, snapshots, and the serialized aggregate. Short streams are quickest from
//! the events, a hot stream from the aggregate.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use cqrs_es::{
    Aggregate, AggregateError, CqrsFramework, DomainEvent, EventStore, event_sink::EventSink,
    persist::PersistedEventStore,
};
use postgres_es::PostgresEventRepository;
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent, Deposit, Full},
    contender::{Client, Contender, Task, Work},
    peers::entries,
};

/// Events between two snapshots: as many as ours, and the number in its documentation.
const SNAPSHOT_EVERY: usize = 100;

type Store = PersistedEventStore<PostgresEventRepository, Account>;

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> String {
        "Deposited".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Deposit;
    type Event = AccountEvent;
    type Error = Full;
    type Services = ();

    async fn handle(&mut self, command: Deposit, (): &(), sink: &EventSink<Self>) -> Result<(), Full> {
        // Onto a copy: version 0.5.0 applies an event when it is written here, and once more to the same aggregate when
        // that becomes a snapshot, which then counts it twice.
        let mut copy = *self;
        for event in self.decide(command)? {
            sink.write(event, &mut copy).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AccountEvent) {
        self.fold(&event);
    }
}

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    let pool = entries::pool_0_8(task, 1).await?;
    sqlx_0_8::raw_sql(include_str!("../../sql/cqrs_es.sql")).execute(&pool).await?;
    Ok(())
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let pool = entries::pool_0_8(task, entries::connections(task)).await?;
    let store = || {
        let repository = PostgresEventRepository::new(pool.clone());
        match task.work {
            Work::LoadSnapshot => Store::new_snapshot_store(repository, SNAPSHOT_EVERY),
            Work::OneStream => Store::new_aggregate_store(repository),
            _ => Store::new_event_store(repository),
        }
    };
    Ok(Box::new(CqrsEs { framework: Arc::new(CqrsFramework::new(store(), Vec::new(), ())), store: Arc::new(store()) }))
}

#[derive(Clone)]
struct CqrsEs {
    framework: Arc<CqrsFramework<Account, Store>>,
    store: Arc<Store>,
}

#[async_trait]
impl Contender for CqrsEs {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for CqrsEs {
    async fn execute(&mut self, account: Uuid, _: u64) -> Result<()> {
        loop {
            match self.framework.execute(&account.to_string(), Deposit { times: 1 }).await {
                Err(AggregateError::AggregateConflict) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        Ok(self.framework.execute(&account.to_string(), Deposit { times }).await?)
    }

    async fn load(&mut self, account: Uuid) -> Result<Account> {
        Ok(self.store.load_aggregate(&account.to_string()).await?.aggregate)
    }
}
