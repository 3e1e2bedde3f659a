//! The session that writes.

use es_core::StreamId;

use crate::{
    error,
    guard::Guarded,
    session::Session,
    write::{
        batch::Batch,
        fate::Fate,
        known::{Known, Start, Written},
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

    /// Writes `batch` and tells the fate of each of its entries, in their order.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<Vec<Fate>, sqlx::Error> {
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
            return Ok(self.known.learn(batch, &written));
        }
        let fates = statements::append_batch(batch, &mut self.connection).await?;
        self.known.learn_fates(batch, &fates);
        Ok(fates)
    }
}
