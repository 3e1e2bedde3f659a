//! Appends on the condition that no client has used the same domain identifier: its event store's own, without a decision,
//! since what an append is conditional on is known here without loading anything.

use anyhow::{Context, Result};
use async_trait::async_trait;
use disintegrate::{Event, EventStore, query, serde::json::Json};
use disintegrate_postgres::{PgEventId, PgEventStore};
use serde::{Deserialize, Serialize};
use sqlx_0_8::PgPool;
use uuid::Uuid;

use crate::{
    account,
    contender::{Client, Contender},
};

type Events = PgEventStore<TaggedEvent, Json<TaggedEvent>>;

/// The same event with two domain identifiers.
#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
enum TaggedEvent {
    Deposited {
        #[id]
        account: Uuid,
        #[id]
        holder: Uuid,
        amount: u64,
        currency: String,
        reference: String,
        note: String,
    },
}

pub(super) async fn create_tables(pool: PgPool) -> Result<()> {
    Events::try_new(pool, Json::default()).await?;
    Ok(())
}

pub(super) fn connect(pool: PgPool) -> Box<dyn Contender> {
    Box::new(Boundary { events: Events::new_uninitialized(pool, Json::default()) })
}

struct Boundary {
    events: Events,
}

#[async_trait]
impl Contender for Boundary {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Caller { events: self.events.clone(), holder: Uuid::now_v7(), seen: 0 }))
    }

    fn count(&self) -> &'static str {
        "SELECT count(*) FROM event"
    }
}

struct Caller {
    events: Events,
    holder: Uuid,
    /// The last event of the account.
    seen: PgEventId,
}

#[async_trait]
impl Client for Caller {
    async fn execute(&mut self, owner: Uuid, version: u64) -> Result<()> {
        if version == 0 {
            self.seen = 0;
        }
        let account::AccountEvent::Deposited { amount, currency, reference, note } = account::AccountEvent::deposit();
        let holder = self.holder;
        let event = TaggedEvent::Deposited { account: owner, holder, amount, currency, reference, note };
        loop {
            let own = query!(TaggedEvent; account == owner);
            match self.events.append(vec![event.clone()], own, self.seen).await {
                Err(error) if super::is_conflict(&error) => {}
                outcome => {
                    self.seen = outcome?.last().context("an append without an event")?.id();
                    return Ok(());
                }
            }
        }
    }
}
