//! The instances of a saga, for callers and operators.

use std::{fmt, time::Duration};

use super::{Ask, Asked, Instance, Instances, Overview, Saga, SagaCommand, SagaError, Status};
use crate::{
    read::{
        query::ReadModel,
        read_model::Act,
        watch::{Since, WatchError},
    },
    write::execute::{ExecuteError, LoadError, Receipt, Repository},
};

/// The instances of the saga `S`.
pub struct Sagas<S: Saga> {
    instances: Repository<Instance<S>>,
    overview: ReadModel<Instances<S>>,
}

impl<S: Saga> fmt::Debug for Sagas<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sagas({})", S::NAME)
    }
}

impl<S: Saga> Sagas<S> {
    pub(crate) fn new(instances: Repository<Instance<S>>, overview: ReadModel<Instances<S>>) -> Self {
        Self { instances, overview }
    }

    /// What is known of all instances, for queries: by [status](Overview::STATUS), and by what is [due](Overview::DUE).
    pub fn overview(&self) -> &ReadModel<Instances<S>> {
        &self.overview
    }

    /// The instance `id` as its stream tells it; `None` if it has not begun.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get(&self, id: &str) -> Result<Option<Instance<S>>, LoadError> {
        let loaded = self.instances.load(id).await?;
        Ok(loaded.state.status().is_some().then_some(loaded.state))
    }

    /// Returns when the instance `id` has ended, or has failed and needs an operator. It may begin later.
    ///
    /// # Errors
    /// [`SagaQueryError::UnderWay`] after `patience`; [`SagaQueryError::Watch`] if its read model cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ended(&self, id: &str, patience: Duration) -> Result<Overview, SagaQueryError> {
        let mut last = None;
        let watches = async {
            // It may be in its first build.
            let mut watch = self.overview.clone().patience(patience).watch(id, Since::Now)?;
            loop {
                match watch.next().await?.document {
                    Some(overview) if overview.status.has_ended() || overview.status == Status::Failed => {
                        return Ok(overview);
                    }
                    found => last = found.map(|overview| overview.status),
                }
            }
        };
        match tokio::time::timeout(patience, watches).await {
            Ok(ended) => ended,
            Err(_) => Err(SagaQueryError::UnderWay { id: id.to_owned(), status: last, patience }),
        }
    }

    /// Asks the instance `id` for something, in the name of the operator of whom `act` tells. Its stream tells that too, and what follows.
    ///
    /// # Errors
    /// [`SagaError::Declined`] as [`ExecuteError::Rejected`]: it has not failed, it has ended, or the saga does nothing on that. Nothing was
    /// written then.
    pub async fn ask(&self, id: &str, ask: Ask, act: &Act) -> Result<Receipt, ExecuteError<SagaError>> {
        self.instances.execute(id, SagaCommand::Ask(Asked::new(ask, act))).await
    }
}

/// Why it is not known how an instance has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaQueryError {
    /// It has not ended yet.
    #[error("instance {id:?} has not ended within {patience:?} ({})", status.map_or("not begun", Status::as_str))]
    UnderWay {
        /// Its id.
        id: String,
        /// How it is, as far as is known.
        status: Option<Status>,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The read model of the instances cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl SagaQueryError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::UnderWay { .. } => true,
            Self::Watch(error) => error.is_transient(),
        }
    }
}
