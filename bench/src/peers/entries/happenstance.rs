//! happenstance with happenstance-postgres, in `boundary-64`: its event store's own conditional append, without a decision model,
//! since what an append is conditional on is known here without loading anything.

use anyhow::{Result, bail};
use async_trait::async_trait;
use happenstance::{AppendCondition, AppendError, Event, EventStore, Query, QueryItem, SequencePosition, Tags};
use happenstance_postgres::{event_store::PostgresEventStore, migration};
use uuid::Uuid;

use crate::{
    account::AccountEvent,
    contender::{Client, Contender, Task},
    peers::entries,
};

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    migration::apply(&entries::pool_0_8(task, 1).await?).await?;
    Ok(())
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let pool = entries::pool_0_8(task, entries::connections(task)).await?;
    Ok(Box::new(Happenstance { events: PostgresEventStore::new(pool) }))
}

struct Happenstance {
    events: PostgresEventStore,
}

#[async_trait]
impl Contender for Happenstance {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Caller { events: self.events.clone(), holder: Uuid::now_v7(), seen: None }))
    }

    fn count(&self) -> &'static str {
        "SELECT count(*) FROM event"
    }
}

struct Caller {
    events: PostgresEventStore,
    holder: Uuid,
    /// The last event of the account.
    seen: Option<SequencePosition>,
}

#[async_trait]
impl Client for Caller {
    async fn execute(&mut self, owner: Uuid, version: u64) -> Result<()> {
        if version == 0 {
            self.seen = None;
        }
        let [account, holder] = [owner, self.holder].map(|id| id.to_string());
        let tags = Tags::from_pairs([("account", account.as_str()), ("holder", &holder)])?;
        let event = Event::new("deposited", serde_json::to_vec(&AccountEvent::deposit())?)?.with_tags(tags);
        let own = Query::from_item(QueryItem::tagged(Tags::from_pairs([("account", account.as_str())])?)?);
        let condition = AppendCondition::new(own).after_every_guard_opt(self.seen);
        loop {
            match self.events.append(std::slice::from_ref(&event), Some(&condition)).await {
                Err(AppendError::Busy(_)) => {}
                Err(error) => bail!(error),
                Ok(last) => {
                    self.seen = Some(last);
                    return Ok(());
                }
            }
        }
    }
}
