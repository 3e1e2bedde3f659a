//! The end of the log as this process knows it, and what follows for the next batch.

use std::mem;

use es_core::{
    Position,
    backend::{InlineFolds, InlineModels},
};
use sqlx::{Connection, SqliteConnection};

use crate::{
    batch,
    error::is_refusal,
    inline::{self, Behind},
    optimistic,
    queue::{Outcome, Prepared},
    verdict::Written,
};

/// Where this process has left the end of the log.
#[derive(Debug, Default)]
pub(crate) struct End {
    position: Position,
    /// Whether the last batch found it where the one before had left it. Then no other process appends, and the next batch is
    /// written before it is checked.
    undisturbed: bool,
}

impl End {
    /// Writes `batch` in a transaction of its own and returns the outcome of each entry, in order. After an error the transaction
    /// may still be open.
    pub(crate) async fn write(
        &mut self,
        connection: &mut SqliteConnection,
        batch: &[Prepared],
        own: &mut Written,
    ) -> Result<Vec<Outcome>, sqlx::Error> {
        // Unknown after an error.
        if mem::take(&mut self.undisturbed)
            && let Some(outcomes) = optimistic::write(connection, batch, self.position, own).await?
        {
            *self = Self { position: last(&outcomes, self.position), undisturbed: true };
            return Ok(outcomes);
        }
        match batch::write(connection, batch, own).await {
            Ok((outcomes, found)) => {
                *self = Self { position: last(&outcomes, found), undisturbed: found == self.position };
                Ok(outcomes)
            }
            Err(error) if is_refusal(&error) => {
                sqlx::query("ROLLBACK").execute(&mut *connection).await?;
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let mut outcomes = batch::write_in_parts(&mut transaction, batch).await?;
                own.recognise(&mut outcomes);
                transaction.commit().await?;
                Ok(outcomes)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`write`](Self::write), and folds the read models.
    pub(crate) async fn write_and_fold(
        &mut self,
        connection: &mut SqliteConnection,
        batch: &[Prepared],
        own: &mut Written,
        models: &InlineModels,
    ) -> Result<Result<(Vec<Outcome>, InlineFolds), Behind>, sqlx::Error> {
        // The next batch without read models looks for the end.
        *self = Self::default();
        let written = inline::write(connection, batch, own, models).await?;
        Ok(written.map(|(outcomes, position, folded)| {
            self.position = position;
            (outcomes, folded)
        }))
    }
}

/// The last position of what was written after `head`.
fn last(outcomes: &[Outcome], head: Position) -> Position {
    outcomes.iter().flatten().flatten().map(|appended| appended.position).fold(head, Position::max)
}
