//! Documents, generations and leases as ports.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_core::{
    DeadLetter, Generation, KeyRange, LetterPage, Pause, Position, RecordedEvent,
    backend::{
        Changeover, Changes, CommitError, DeclaredField, Documents, EnsureError, FieldScan, FoundDocument,
        GenerationSet, GenerationState, Generations, KnownProgress, Lease, Leases, PromoteError, Promotion,
        ReadModelError, Reader, Served, Shard, Share, Situation, StoredDocument, Takeover,
    },
};
use uuid::Uuid;

use crate::{SqliteStore, documents, error::Failure, fields, generations, inbox, inline, leases, letters, operations};

/// The most letters that a worker handles again with one commit.
const LETTERS: usize = 100;

#[async_trait]
impl Documents for SqliteStore {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let document = documents::get(reader.connection(), projection, key).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(document)
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let found = documents::scan(reader.connection(), projection, &range, limit).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(found)
    }

    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let found = fields::find(reader.connection(), projection, scan, limit).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(found)
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let counted = fields::count(reader.connection(), projection, scan).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(counted)
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let loaded = documents::load(connection.connection(), reader, keys, budget).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(loaded)
    }

    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let stored = fields::stored(connection.connection(), reader, keys).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(stored)
    }

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let found = generations::of_projection(reader.connection(), projection).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(found)
    }

    fn known_progress(&self) -> &KnownProgress {
        self.progress()
    }
}

#[async_trait]
impl Generations for SqliteStore {
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError> {
        let (projection, definition) = (projection.to_owned(), definition.to_owned());
        let fields = fields::declared(fields);
        let ensured = self.connections().write(move |connection| {
            Box::pin(async move {
                generations::ensure(connection, &projection, version, state.as_str(), &definition, &fields).await
            })
        });
        ensured.await.map_err(ReadModelError::from)?
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let state = generations::state(reader.connection(), generation.reader.id).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(state)
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        let (models, generation) = (self.inline().models.clone(), building.clone());
        let promoted = self.connections().write(move |connection| {
            Box::pin(async move {
                // So a read model that appends fold has all events from its first moment on.
                let folded = inline::fold_building(connection, &models, &generation).await?;
                Ok((generations::promote(connection, generation.reader.id, promotion).await?, folded))
            })
        });
        let (promoted, folded) = promoted.await?;
        promoted?;
        self.inline().committed(folded);
        self.progress().moved(&building.reader.name);
        self.sweep().await;
        Ok(())
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        let id = building.reader.id;
        let retired = self.connections().write(move |connection| {
            Box::pin(async move { generations::retire(connection, id, GenerationState::Building).await })
        });
        retired.await?;
        self.sweep().await;
        Ok(())
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn id(&self) -> Result<Uuid, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let id = generations::store_id(reader.connection()).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(id)
    }

    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError> {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        let ensured = self.connections().write(move |connection| {
            Box::pin(async move { generations::ensure_reader(connection, &name, &definition).await })
        });
        Ok(ensured.await?)
    }

    async fn reached(&self, name: &str) -> Result<Position, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let reached = generations::reached(reader.connection(), name).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(reached)
    }

    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        let (holders, id, shards) = (self.holders().clone(), reader.id, shards.to_vec());
        let ensured = self.connections().write(move |connection| {
            Box::pin(async move { leases::ensure_shards(connection, &holders, id, &shards).await })
        });
        Ok(ensured.await?)
    }

    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        let (holders, place) = (self.holders().clone(), (reader.clone(), shard.clone()));
        let acquired = self.connections().write(move |connection| {
            Box::pin(async move { leases::acquire(connection, &holders, place, owner, takeover, ttl).await })
        });
        Ok(acquired.await?)
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError> {
        let mut reader = self.connections().reader().await?;
        let holds = leases::holds(reader.connection(), lease).await.map_err(Failure::from)?;
        reader.give_back();
        if holds { Ok(()) } else { Err(CommitError::Fenced(lease.shard.clone())) }
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        self.holders().heartbeat.ended(lease);
        let held = lease.clone();
        let released = self
            .connections()
            .write(move |connection| Box::pin(async move { leases::release(connection, &held).await }));
        Ok(released.await?)
    }

    async fn commit(&self, lease: &Lease, changes: Changes) -> Result<(), CommitError> {
        let (holders, held) = (self.holders().clone(), lease.clone());
        let committed = self.connections().write(move |connection| {
            Box::pin(async move {
                let healed = operations::healed(&held, &changes);
                let Changes { upserts, deletes, fields, checkpoint, letters, redemption, inbox, .. } = changes;
                if let Some(redemption) = &redemption
                    && !letters::are_as_read(connection, held.reader.id, redemption).await?
                {
                    return Ok(Err(CommitError::Edited(redemption.key.clone())));
                }
                // Nothing else is written until this transaction ends, so what is found is what the unique index would refuse.
                if let Some(taken) = fields::taken(connection, held.reader.id, &fields).await? {
                    return Ok(Err(CommitError::Taken(taken)));
                }
                // Before all that is written, the compare-and-set: a zombie writes nothing (R9).
                let acts = leases::advance(connection, &holders, &held, &checkpoint).await?;
                if acts.is_some() {
                    documents::write(connection, held.reader.id, &upserts, &deletes).await?;
                    fields::write(connection, held.reader.id, &fields).await?;
                    letters::park(connection, &held, &letters).await?;
                    if let Some(redemption) = &redemption {
                        letters::redeem(connection, held.reader.id, redemption).await?;
                    }
                    if let Some(inbox) = &inbox {
                        inbox::note(connection, held.reader.id, inbox).await?;
                    }
                    for note in healed {
                        note.write_if(true, connection).await?;
                    }
                }
                Ok(Ok(acts))
            })
        });
        let acts = committed.await??.ok_or_else(|| CommitError::Fenced(lease.shard.clone()))?;
        lease.hold().note(acts);
        self.progress().moved(&lease.reader.name);
        Ok(())
    }

    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError> {
        let mut reader = self.connections().reader().await?;
        let situation = letters::situation(reader.connection(), lease).await.map_err(Failure::from)?;
        reader.give_back();
        situation.ok_or_else(|| CommitError::Fenced(lease.shard.clone()))
    }

    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        let page = LetterPage::first(LETTERS).of_key(key);
        self.dead_letters_of(&lease.reader.name, &page, Some(lease.reader.id)).await
    }

    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let handled = inbox::handled(connection.connection(), reader.id, messages).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(handled)
    }

    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError> {
        let (held, event, cause) = (lease.clone(), event.clone(), cause.to_owned());
        let recorded = self.connections().write(move |connection| {
            Box::pin(async move { operations::stopped(connection, &held, &event, &cause).await })
        });
        Ok(recorded.await?)
    }

    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let pause = operations::paused(connection.connection(), reader).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(pause)
    }

    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let shares = leases::shares(connection.connection(), self.holders(), reader.id).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(shares)
    }

    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError> {
        let (id, shards) = (reader.id, shards.to_vec());
        let asked = self
            .connections()
            .write(move |connection| Box::pin(async move { leases::ask_for(connection, id, &shards).await }));
        Ok(asked.await?)
    }
}

impl SqliteStore {
    /// Deletes what retired generations hold. The promotion is already committed, so a failure here is only logged: the
    /// next sweep, at the latest when the file is opened again, deletes the rest.
    pub(crate) async fn sweep(&self) {
        if let Err(error) = generations::sweep(self.connections()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "documents of a retired generation were not deleted; the next sweep tries again");
        }
    }
}
