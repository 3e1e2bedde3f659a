//! Queries of table projections.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use super::{TableProjection, TableReading, TableStore};
use crate::{
    read::{definition, query::QueryError, read_model::Documents, reads::Reads},
    stream::{Position, ReadToken},
};

/// The tables of one projection, for queries.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct Tables<P, S> {
    store: Arc<S>,
    /// The same for waiting.
    documents: Arc<dyn Documents>,
    patience: Duration,
    /// Whether they follow a topic of another system.
    is_foreign: bool,
    projection: PhantomData<fn() -> P>,
}

impl<P, S> Clone for Tables<P, S> {
    fn clone(&self) -> Self {
        let Self { store, documents, patience, is_foreign, .. } = self;
        let (store, documents) = (store.clone(), documents.clone());
        Self { store, documents, patience: *patience, is_foreign: *is_foreign, projection: PhantomData }
    }
}

impl<S: TableStore, P: TableProjection<S>> Tables<P, S> {
    /// The tables of `P` in `store`.
    pub fn new(store: S) -> Self {
        const { assert!(definition::is_name(P::NAME), "TableProjection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let store = Arc::new(store);
        Self { documents: store.clone(), store, patience: Duration::ZERO, is_foreign: false, projection: PhantomData }
    }

    /// The same where a topic of another system fills them ([`TableProjector::of_topic`](super::TableProjector::of_topic)): they have
    /// no position in the log.
    pub fn of_topic(store: S) -> Self {
        Self { is_foreign: true, ..Self::new(store) }
    }

    /// How long [`read`](Self::read) waits for a generation that this program can read (not at all, unless set otherwise).
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A transaction that only reads, with the tables of the generation that serves at this moment. All its queries see the same
    /// tables at the same moment, also if another generation is promoted meanwhile (R12). Begin no other transaction in it.
    ///
    /// It has one of the connections that the store keeps for reads until it is ended or dropped.
    ///
    /// # Errors
    /// [`QueryError::Building`] and [`QueryError::OtherVersion`] where no generation serves that this program can read, after
    /// [`patience`](Self::patience).
    pub async fn read(&self) -> Result<S::Reading, QueryError> {
        let mut wait = self.reads().wait(self.patience);
        loop {
            match self.read_now().await {
                Ok(reading) => return Ok(reading),
                Err(error) => wait.until_readable(error).await?,
            }
        }
    }

    /// As [`read`](Self::read), for a later page of the generation whose reader ([`Generation::reader`](crate::Generation::reader)) has
    /// this id.
    ///
    /// # Errors
    /// [`QueryError::Replaced`] when that generation was replaced: begin with the first page. Others as for [`read`](Self::read).
    pub async fn read_in(&self, generation: i64) -> Result<S::Reading, QueryError> {
        let reading = self.read().await?;
        if reading.generation().reader.id == generation {
            Ok(reading)
        } else {
            Err(QueryError::Replaced { projection: P::NAME })
        }
    }

    async fn read_now(&self) -> Result<S::Reading, QueryError> {
        let Some(reading) = self.store.read_tables(P::NAME).await? else {
            return Err(self.reads().building(&self.store.generations(P::NAME).await?));
        };
        self.reads().check(reading.generation())?;
        Ok(reading)
    }

    fn reads(&self) -> Reads<'_> {
        Reads { store: &self.documents, projection: P::NAME, since: P::READS_SINCE, version: P::VERSION }
    }

    /// The position that the tables have reached, as [`ReadModel::reached`](crate::ReadModel::reached).
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`QueryError::NotOfLog`] of [tables of a topic](Self::of_topic).
    pub async fn reached(&self) -> Result<Position, QueryError> {
        self.check_log()?;
        self.reads().reached(self.patience).await
    }

    /// Returns when the write that returned `token` is in the tables (R13). With [`Duration::MAX`] it waits without a limit.
    ///
    /// # Errors
    /// After `patience`: [`QueryError::Lagging`], or the reason why no generation serves that this program can read.
    /// [`QueryError::NotOfLog`] of [tables of a topic](Self::of_topic), at once.
    pub async fn wait_for(&self, token: ReadToken, patience: Duration) -> Result<(), QueryError> {
        self.check_log()?;
        self.reads().wait_for(token, patience).await
    }

    fn check_log(&self) -> Result<(), QueryError> {
        if self.is_foreign { Err(QueryError::NotOfLog { projection: P::NAME }) } else { Ok(()) }
    }
}
