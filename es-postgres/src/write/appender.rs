//! The session that writes.

use es_core::{
    StreamId,
    backend::{GenerationState, Inline, InlineFolds, InlineObstacle},
};

use crate::{
    error,
    guard::Guarded,
    session::Session,
    transaction,
    write::{
        batch::Batch,
        fate::Fate,
        inline::{self, Own, Refusable, Refusal},
        known::{Known, Start, Written},
        outcome,
        plan::{WritePlan, plan},
        statements,
    },
};

pub(crate) struct Appender {
    connection: Guarded,
    known: Known,
}

impl Appender {
    pub(crate) async fn open(session: &Session) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: session.open_appender().await?, known: Known::nothing() })
    }

    /// The session's process on the server.
    pub(crate) fn process(&self) -> i32 {
        self.connection.process
    }

    /// Takes note that another connection of this process writes to these streams.
    pub(crate) fn expect_others<'a>(&mut self, streams: impl Iterator<Item = &'a StreamId>) {
        self.known.expect_others(streams);
    }

    pub(crate) async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Writes `batch`, folds the inline read models, and tells the fate of each entry of the batch, in their order.
    pub(crate) async fn write(&mut self, batch: &Batch, inline: &Inline) -> Refusable<Vec<Fate>> {
        if inline.models.is_empty() {
            return self.write_alone(batch).await.map(Ok);
        }
        // (On the heap: while there are no read models, a batch takes no more than before.)
        Box::pin(self.write_and_fold(batch, inline)).await
    }

    async fn write_and_fold(&mut self, batch: &Batch, inline: &Inline) -> Refusable<Vec<Fate>> {
        transaction::begin(&mut self.connection, inline::IDLE_WITHIN).await?;
        let done = self.write_within(batch, inline).await;
        match transaction::end(&mut self.connection, done).await? {
            Ok((fates, written, folded)) => {
                inline.committed(folded);
                match written {
                    Some(written) => self.known.learn(batch, &written),
                    None => self.known.learn_fates(batch, &fates),
                }
                Ok(Ok(fates))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Writes `batch` and folds the read models in a transaction that has begun. Nothing is known of it before it is committed.
    async fn write_within(
        &mut self,
        batch: &Batch,
        inline: &Inline,
    ) -> Refusable<(Vec<Fate>, Option<Written>, InlineFolds)> {
        let (written, fates) = match plan(&self.known, batch) {
            WritePlan::Large => (None, statements::append_large(batch, &mut self.connection).await?),
            WritePlan::Next { version, .. } => self.all_or_each(batch, &[Start::Known(version)]).await?,
            WritePlan::All(starts) => self.all_or_each(batch, &starts).await?,
            WritePlan::Checked => (None, statements::append_batch(batch, &mut self.connection).await?),
        };
        let Some(head) = outcome::before(&fates) else { return Ok(Ok((fates, written, InlineFolds::new()))) };
        let (models, serving) = (&inline.models, GenerationState::Serving);
        let due = match inline::due(models, &models.names(), serving, head, &mut self.connection).await? {
            Ok(due) => due,
            Err(behind) => return Ok(Err(Refusal::Behind(behind, fates))),
        };
        let recorded_at = written.as_ref().and_then(|written| written.recorded_at);
        let appended = recorded_at.map(|recorded_at| batch.recorded(&fates, recorded_at));
        let own = appended.as_deref().map_or_else(|| Own::Written(batch.events_written(&fates)), Own::Known);
        match inline::fold(models, due, head, own, &mut self.connection).await? {
            Ok(folded) => Ok(Ok((fates, written, folded))),
            Err(InlineObstacle::Behind(behind)) => Ok(Err(Refusal::Behind(behind, fates))),
            Err(InlineObstacle::Failed(failure)) => {
                let request = failure.position.and_then(|position| batch.request_at(&fates, position));
                Ok(Err(Refusal::Request(request, failure)))
            }
        }
    }

    /// Writes all of `batch`, each entry after its start, or what is possible of it.
    async fn all_or_each(
        &mut self,
        batch: &Batch,
        starts: &[Start],
    ) -> Result<(Option<Written>, Vec<Fate>), sqlx::Error> {
        match statements::append_all(batch, starts, &mut self.connection).await? {
            Some(written) => {
                let fates = written.fates(batch);
                Ok((Some(written), fates))
            }
            None => Ok((None, statements::append_batch(batch, &mut self.connection).await?)),
        }
    }

    /// Writes `batch` and tells the fate of each of its entries, in their order.
    async fn write_alone(&mut self, batch: &Batch) -> Result<Vec<Fate>, sqlx::Error> {
        let written = match plan(&self.known, batch) {
            WritePlan::Large => return statements::append_large(batch, &mut self.connection).await,
            WritePlan::Next { after, version, is_plain } => {
                match statements::append_next(batch, after, version, is_plain, &mut self.connection).await {
                    Ok(true) => Some(Written { before: after, recorded_at: None, versions: vec![version] }),
                    Err(cause) if !is_plain || !error::is_taken(&cause) => return Err(cause),
                    refused => {
                        if refused.is_err() {
                            self.known.learn_disturbance();
                        }
                        let starts = [Start::Known(version)];
                        statements::append_all(batch, &starts, &mut self.connection).await?
                    }
                }
            }
            WritePlan::All(starts) => statements::append_all(batch, &starts, &mut self.connection).await?,
            WritePlan::Checked => None,
        };
        if let Some(written) = written {
            self.known.learn(batch, &written);
            return Ok(written.fates(batch));
        }
        let fates = statements::append_batch(batch, &mut self.connection).await?;
        self.known.learn_fates(batch, &fates);
        Ok(fates)
    }
}
