//! One client: an INSERT of one row, committed by itself.

use anyhow::Result;
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    bare::{self, Row},
    contender::{Client, Contender, Task},
};

pub(crate) struct Insert {
    url: String,
}

impl Insert {
    pub(crate) fn new(task: &Task) -> Self {
        Self { url: task.url.clone() }
    }
}

#[async_trait]
impl Contender for Insert {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Inserter { connection: bare::connect(&self.url).await? }))
    }
}

struct Inserter {
    connection: PgConnection,
}

#[async_trait]
impl Client for Inserter {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        let row = Row::deposit(account, version)?;
        sqlx::query(include_str!("../sql/bare_insert.sql"))
            .bind(row.version)
            .bind(row.id)
            .bind(row.schema_version)
            .bind(row.stream)
            .bind(row.name)
            .bind(row.payload)
            .bind(None::<&[u8]>)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
