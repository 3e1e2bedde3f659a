//! Appends as part of the caller's own transaction.

use es_core::{Append, AppendError, Appended};
use sqlx::PgConnection;

use crate::{
    error::{self, InlineModelsMissed},
    guard::HERE,
    store::{PostgresStore, only},
    write::{append::Prepared, batch::Batch, statements},
};

impl PostgresStore {
    /// Writes `append` as part of the caller's own transaction on the store's database.
    ///
    /// Make it the **last statement** before the commit: it takes the append lock, and until the
    /// transaction ends no other session can append to this schema. The events exist once the caller has
    /// committed; whether they are durable then is up to the caller's `synchronous_commit`.
    ///
    /// A conflict leaves the transaction usable; after any other error Postgres has aborted it.
    ///
    /// # Errors
    /// As [`EventStore::append`](es_core::EventStore::append). Under `REPEATABLE READ` or
    /// `SERIALIZABLE` a transaction whose snapshot is older than the log gets
    /// [`AppendError::Store`] with [`StaleSnapshot`](crate::StaleSnapshot) as its source: begin it again. While a service of this
    /// process has [inline](es_core::ServiceBuilder::inline) read models on this store, which only the store's own transactions fold:
    /// [`AppendError::Refused`] with [`InlineModelsMissed`](crate::InlineModelsMissed) as its source.
    ///
    /// # Cancel safety
    /// What is written belongs to the transaction: roll it back.
    pub async fn append_in(&self, transaction: &mut PgConnection, append: Append) -> Result<Appended, AppendError> {
        only(&self.append_together_in(transaction, vec![append]).await?)
    }

    /// Writes all of `appends`, or none, as part of the caller's own transaction; see
    /// [`append_in`](Self::append_in).
    ///
    /// # Errors
    /// As [`append_in`](Self::append_in).
    ///
    /// # Cancel safety
    /// What is written belongs to the transaction: roll it back.
    pub async fn append_together_in(
        &self,
        transaction: &mut PgConnection,
        appends: Vec<Append>,
    ) -> Result<Vec<Appended>, AppendError> {
        es_core::backend::validate_together(&appends)?;
        if !self.inner.inline.models.is_empty() {
            return Err(AppendError::Refused(InlineModelsMissed { names: self.inner.inline.models.names() }.into()));
        }
        let batch = Batch::of_one(appends.into_iter().map(Prepared::checked).collect());
        let (schema, oid) = (&self.inner.schema, self.inner.schema_oid);
        let sql = include_str!("../sql/append_batch.sql")
            .replace("append_batch(", &format!("{schema}.append_in_transaction('{schema}', "))
            .replace(
                HERE,
                &format!("CASE '{schema}'::regnamespace::oid WHEN {oid} THEN true ELSE {schema}.refuse_session() END"),
            );
        let written = statements::append_batch_in(sql, &batch, transaction);
        let fates = written.await.map_err(|cause| error::append_in(cause, schema))?;
        batch.outcome_of_one(&fates)
    }
}
