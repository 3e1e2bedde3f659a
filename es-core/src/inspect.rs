//! The port by which operators look into a store: which streams and readers it has, and what is wrong with it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    error::BoxError,
    read::{
        definition,
        read_model::{GenerationState, ReadModelError, Reader, Shard},
    },
    stream::{Position, StreamId, Version},
    write::store::ReadError,
};

/// Shows operators what is in a store. The `es` command is made of it and of the other ports.
///
/// # Cancel safety
/// Dropping the future of any call changes nothing.
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// Up to `limit` streams whose names start with `prefix` and come after `after`, in byte order of their names. The last name of
    /// a page is the cursor of the next one.
    ///
    /// # Errors
    /// [`ReadError`].
    async fn list_streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, ReadError>;

    /// All readers with their checkpoints and leases, at one moment: in byte order of their names, and of one name first the
    /// generation that serves. Generations that were replaced are not among them.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError>;

    /// What the store finds when it examines itself: who is connected and with which rights, settings that endanger a promise,
    /// clocks, versions, room on the disk, sessions that hold up appends. What is in order is listed too.
    ///
    /// # Errors
    /// The backend's own, when the store does not answer.
    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError>;
}

#[async_trait]
impl<T: Inspect + ?Sized> Inspect for Arc<T> {
    async fn list_streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, ReadError> {
        (**self).list_streams(prefix, after, limit).await
    }

    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError> {
        (**self).list_readers().await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError> {
        (**self).diagnose().await
    }
}

/// A stream, and its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub stream: StreamId,
    /// Its version: how many events it has.
    pub version: Version,
    /// The position of its last event.
    pub position: Position,
    /// When its last event was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// A reader: a generation of a read model, or a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderSummary {
    /// Its name and its number.
    pub reader: Reader,
    /// The generation that it is; `None` for a policy and a consumer.
    pub generation: Option<GenerationSummary>,
    /// Its definition; the first word is its [kind](Self::kind).
    pub definition: String,
    /// Its checkpoints, in the order of the shards. There is none before its first worker has opened its source.
    pub shards: Vec<ShardSummary>,
}

impl ReaderSummary {
    /// `projection`, `policy` or `consumer`.
    pub fn kind(&self) -> &str {
        definition::kind(&self.definition)
    }

    /// Every event of the log up to this position was handled: the least of its checkpoints, 0 where it has none. `None`: a consumer
    /// reads what another system writes.
    pub fn reached(&self) -> Option<Position> {
        let least = self.shards.iter().map(|shard| shard.position).min().unwrap_or_default();
        (self.kind() != "consumer").then_some(least)
    }
}

/// What makes a reader a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationSummary {
    /// The version of the projection that folds it.
    pub version: u32,
    /// Whether it serves or is being built.
    pub state: GenerationState,
}

/// A checkpoint and the lease on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSummary {
    /// The shard of the source.
    pub shard: Shard,
    /// Every event of the shard up to this position was handled.
    pub position: Position,
    /// When the last event that was handled was recorded.
    pub recorded_at: Option<DateTime<Utc>>,
    /// Who may advance the checkpoint; `None` while the lease is free or has expired.
    pub lease: Option<LeaseSummary>,
}

/// A lease that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSummary {
    /// The worker that holds it.
    pub owner: Uuid,
    /// Its fencing token.
    pub fencing_token: i64,
    /// Since when that worker holds it, by the clock of the store.
    pub since: DateTime<Utc>,
}

/// What an examination of a store has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was examined, in a word or two: the same in each examination.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How bad a [`Finding`] is; the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is in order.
    Ok,
    /// It may be meant so, or may become a problem.
    Warning,
    /// It breaks a promise, or stops work.
    Problem,
}

impl Severity {
    /// The word for it, as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Finding {
    /// Something that is in order.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, found: found.into(), advice: None }
    }

    /// Something that may be meant so, and what to do if it is not.
    pub fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    /// Something that is wrong, and what to do about it.
    pub fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Problem, found: found.into(), advice: Some(advice.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Severity;

    /// Scripts compare them.
    #[test]
    fn severities_have_words() {
        let words = [Severity::Ok, Severity::Warning, Severity::Problem].map(Severity::as_str);
        assert_eq!(words, ["ok", "warning", "problem"]);
    }
}
