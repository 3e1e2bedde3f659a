//! Who takes part in a workload, and how its contender comes about.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    bare::{
        self,
        batch::{Batch, Statement},
        copy::Copy,
        embedded::Embedded,
        embedded_fold::EmbeddedFold,
        insert::Insert,
        one_stream::OneStream,
        read::Read,
    },
    contender::{Contender, Task, Work},
    ours::{EmbeddedImporter, Importer, Inlined, Log, Ours, Projected, Tagged},
    peers::Peer,
    watched,
};

/// A participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrant {
    /// The framework.
    Ours,
    /// The framework with five read models at once.
    Five,
    /// The framework on a file of SQLite.
    Embedded,
    /// The framework with a reader that gets its events in log order from Kafka.
    Merged,
    /// The framework with a relay that is set otherwise.
    Relayed(Sending),
    /// The framework while a projector follows the log.
    Projected,
    /// The framework while appends fold a read model.
    Inlined,
    /// The framework while its metrics are collected.
    Watched,
    /// The framework with the same tags, but without a condition on them.
    Unconditional,
    /// The framework on a log that holds so many events already.
    Sized(u64),
    /// The least that has to be done.
    Bare(Bare),
    /// Another framework.
    Peer(Peer),
}

/// How a relay sends, other than by itself: compressed with lz4, and 2,000 events in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    Uncompressed,
    Zstd,
    /// So many events in a transaction.
    Batches(usize),
}

/// The kinds of bare work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bare {
    /// An INSERT of one row for each command.
    Insert,
    /// One writer, which inserts what has arrived.
    Batch,
    /// The same under a lock, for writers in several processes.
    LockedBatch,
    /// The same with tags.
    TaggedBatch,
    /// The same with a document for each account, in one transaction.
    FoldedBatch,
    /// One writer on a file of SQLite.
    Embedded,
    /// One writer, which decides on what has arrived.
    OneStream,
    /// A SELECT, parsed and folded.
    Read,
    /// One COPY of everything.
    Copy,
    /// One COPY out, a fold in memory, and one COPY of the documents.
    Fold,
    /// Pages, a fold in memory, and an upsert for each page.
    Upsert,
    /// The last two on a file of SQLite.
    EmbeddedFold,
    /// A producer or a consumer of Kafka.
    Kafka,
}

impl Entrant {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours | Self::Embedded => "es-core",
            Self::Five => "es-core, five",
            Self::Merged => "es-core, in log order",
            Self::Relayed(_) => "es-core, set otherwise",
            Self::Projected => "es-core, projecting",
            Self::Inlined => "es-core, inline",
            Self::Watched => "es-core, with metrics",
            Self::Unconditional => "es-core, no condition",
            Self::Sized(100_000) => "at 10^5 events",
            Self::Sized(1_000_000) => "at 10^6 events",
            Self::Sized(_) => "at 10^7 events",
            Self::Bare(_) => "bare",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether its database is a file.
    pub(crate) fn is_embedded(self) -> bool {
        matches!(self, Self::Embedded | Self::Bare(Bare::Embedded | Bare::EmbeddedFold))
    }

    /// How many read models it keeps.
    pub(crate) fn read_models(self) -> usize {
        if self == Self::Five { 5 } else { 1 }
    }

    /// Creates what the contender needs in its empty database.
    pub(crate) async fn prepare(self, task: &Task) -> Result<()> {
        match self {
            Self::Ours
            | Self::Five
            | Self::Merged
            | Self::Relayed(_)
            | Self::Projected
            | Self::Inlined
            | Self::Watched
            | Self::Unconditional
            | Self::Sized(_) => Ours::connect(task).await.map(drop),
            Self::Embedded | Self::Bare(Bare::EmbeddedFold) => Ours::embedded(task).await.map(drop),
            Self::Bare(Bare::Embedded) => bare::embedded::create_table(task).await,
            Self::Bare(_) => bare::create_tables(&task.url).await,
            Self::Peer(peer) => peer.create_tables(task).await,
        }
    }

    /// A contender with fresh connections: nobody's idle ones burden the server while others are measured.
    pub(crate) async fn connect(self, task: &Task) -> Result<Box<dyn Contender>> {
        watched::report(self == Self::Watched)?;
        Ok(match self {
            Self::Ours | Self::Sized(_) if task.work.reads_the_log() => Box::new(Log::connect(task).await?),
            Self::Ours if task.work == Work::Boundary => Box::new(Tagged::connect(task, true).await?),
            Self::Unconditional => Box::new(Tagged::connect(task, false).await?),
            Self::Ours if task.work.is_one_piece() => Box::new(Importer::connect(task, 1).await?),
            Self::Five => Box::new(Importer::connect(task, 5).await?),
            Self::Ours | Self::Watched | Self::Sized(_) => Box::new(Ours::connect(task).await?),
            Self::Projected => Box::new(Projected::connect(task).await?),
            Self::Inlined => Box::new(Inlined::connect(task).await?),
            Self::Embedded if task.work.is_one_piece() => Box::new(EmbeddedImporter::connect(task).await?),
            Self::Embedded => Box::new(Ours::embedded(task).await?),
            Self::Bare(Bare::Embedded) => Box::new(Embedded::connect(task).await?),
            Self::Bare(Bare::EmbeddedFold) => Box::new(EmbeddedFold::new(task)),
            Self::Bare(Bare::Insert) => Box::new(Insert::new(task)),
            Self::Bare(Bare::Batch) => Box::new(Batch::connect(task, Statement::Plain).await?),
            Self::Bare(Bare::LockedBatch) => Box::new(Batch::connect(task, Statement::Locked).await?),
            Self::Bare(Bare::TaggedBatch) => Box::new(Batch::connect(task, Statement::Tagged).await?),
            Self::Bare(Bare::FoldedBatch) => Box::new(Batch::connect(task, Statement::Folded).await?),
            Self::Bare(Bare::OneStream) => Box::new(OneStream::connect(task).await?),
            Self::Bare(Bare::Read) => Box::new(Read::new(task)),
            Self::Bare(Bare::Copy | Bare::Fold | Bare::Upsert) => Box::new(Copy::new(task)),
            Self::Merged | Self::Relayed(_) | Self::Bare(Bare::Kafka) => bail!("{} has no clients", self.name()),
            Self::Peer(peer) => peer.connect(task).await?,
        })
    }
}
