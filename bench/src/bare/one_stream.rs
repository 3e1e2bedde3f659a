//! Many clients on one stream: a task that keeps the state decides on the commands in the order of their arrival, and
//! inserts what it has decided as one statement.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    account::{Account, Deposit},
    bare::{self, Row, batch},
    contender::{Client, Contender, Task},
};

struct Asked {
    account: Uuid,
    deposit: Deposit,
    answer: oneshot::Sender<()>,
}

pub(crate) struct OneStream {
    queue: mpsc::Sender<Asked>,
}

impl OneStream {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        let (queue, asked) = mpsc::channel(batch::MOST);
        tokio::spawn(decide(bare::connect(&task.url).await?, asked));
        Ok(Self { queue })
    }
}

async fn decide(mut connection: PgConnection, mut queue: mpsc::Receiver<Asked>) -> Result<()> {
    let mut accounts = HashMap::<Uuid, Account>::new();
    let mut arrived = Vec::new();
    while queue.recv_many(&mut arrived, batch::MOST).await > 0 {
        let mut rows = Vec::new();
        for Asked { account, deposit, .. } in &arrived {
            let state = accounts.entry(*account).or_default();
            for event in state.decide(*deposit)? {
                rows.push(Row::deposit(*account, state.changes)?);
                state.fold(&event);
            }
        }
        let written = batch::insert(&mut connection, rows.iter()).await?;
        ensure!(written.len() == rows.len(), "a conflict on a stream that no other client writes to");
        for asked in arrived.drain(..) {
            // A client that is gone needs no answer.
            let _ = asked.answer.send(());
        }
    }
    Ok(())
}

#[async_trait]
impl Contender for OneStream {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Caller { queue: self.queue.clone() }))
    }
}

struct Caller {
    queue: mpsc::Sender<Asked>,
}

#[async_trait]
impl Client for Caller {
    async fn execute(&mut self, account: Uuid, _: u64) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Asked { account, deposit: Deposit { times: 1 }, answer }).await.is_err() {
            bail!("the bare writer has ended");
        }
        Ok(answered.await?)
    }
}
