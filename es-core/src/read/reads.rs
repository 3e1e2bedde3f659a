//! Which generations of a read model a program can read, and waiting for one.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    read::{
        known_progress::Progresses,
        query::QueryError,
        read_model::{Documents, Generation, GenerationSet, ReadModelError},
    },
    stream::{Position, ReadToken},
};

/// What a program reads of one read model: the generations of versions from `since` to `version`.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'a> {
    pub(crate) store: &'a Arc<dyn Documents>,
    pub(crate) projection: &'static str,
    pub(crate) since: u32,
    pub(crate) version: u32,
}

impl<'a> Reads<'a> {
    /// Whether the program can read `serving`.
    pub(crate) fn check(self, serving: &Generation) -> Result<(), QueryError> {
        let Self { projection, since, version, .. } = self;
        if (since..=version).contains(&serving.version) {
            return Ok(());
        }
        Err(QueryError::OtherVersion { projection, serving: serving.version, ours: version })
    }

    pub(crate) fn building(self, found: &GenerationSet) -> QueryError {
        let progress = found.building.as_ref().or(found.serving.as_ref());
        let reached = progress.map(|progress| progress.reached).unwrap_or_default();
        QueryError::Building { projection: self.projection, reached }
    }

    /// The position that the generation has reached that serves, if the program can read it.
    pub(crate) fn reached_in(self, found: &GenerationSet) -> Result<Position, QueryError> {
        let serving = found.serving.as_ref().ok_or_else(|| self.building(found))?;
        self.check(&serving.generation)?;
        Ok(serving.reached)
    }

    /// The same of this moment, or after at most `patience`.
    pub(crate) async fn reached(self, patience: Duration) -> Result<Position, QueryError> {
        let mut wait = self.wait(patience);
        loop {
            match self.reached_in(&self.store.generations(self.projection).await?) {
                Ok(reached) => return Ok(reached),
                Err(error) => wait.until_readable(error).await?,
            }
        }
    }

    /// Returns when the read model has reached `token`.
    pub(crate) async fn wait_for(self, token: ReadToken, patience: Duration) -> Result<(), QueryError> {
        let holds = |found: &GenerationSet| match self.reached_in(found)? {
            reached if reached >= token.0 => Ok(()),
            reached => Err(QueryError::Lagging { reached, wanted: token.0 }),
        };
        let mut wait = self.wait(patience);
        let found = wait.progresses().next().await.map_err(|cause| failed(&cause))?;
        match holds(&found) {
            Ok(()) => Ok(()),
            Err(error) => wait.until(error, holds).await,
        }
    }

    pub(crate) fn wait(self, patience: Duration) -> Wait<'a> {
        Wait { reads: self, deadline: Instant::now().checked_add(patience), progresses: None }
    }
}

pub(super) fn failed(cause: &Arc<ReadModelError>) -> QueryError {
    QueryError::Store(ReadModelError::shared(cause))
}

/// The wait of one query.
pub(crate) struct Wait<'a> {
    reads: Reads<'a>,
    /// `None` means no deadline.
    deadline: Option<Instant>,
    progresses: Option<Progresses>,
}

impl Wait<'_> {
    fn progresses(&mut self) -> &mut Progresses {
        let Reads { store, projection, .. } = self.reads;
        self.progresses.get_or_insert_with(|| Progresses::follow(store, projection))
    }

    /// [`until`](Self::until) a generation serves that the program can read.
    pub(crate) async fn until_readable(&mut self, error: QueryError) -> Result<(), QueryError> {
        let reads = self.reads;
        self.until(error, |found| reads.reached_in(found).map(drop)).await
    }

    /// Returns when the generations are as `wanted`; returns the last error if the time is over, and an error that waiting does not
    /// mend at once.
    pub(crate) async fn until(
        &mut self,
        mut error: QueryError,
        wanted: impl Fn(&GenerationSet) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let deadline = self.deadline;
        loop {
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over || !error.is_transient() || matches!(error, QueryError::Store(_)) {
                return Err(error);
            }
            let Some(found) = self.progresses().next_before(deadline).await else {
                return Err(error);
            };
            let found = found.map_err(|cause| failed(&cause))?;
            match wanted(&found) {
                Ok(()) => return Ok(()),
                Err(now) => error = now,
            }
        }
    }
}
