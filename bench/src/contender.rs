//! The participants that do the work: ours, the bare one, the peers.

use anyhow::{Result, bail};
use async_trait::async_trait;
use uuid::Uuid;

use crate::{account::Account, history::History};

/// The kind of work, by which a contender chooses its best configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Commands on accounts that no other client touches.
    Execute,
    /// The same, with nothing kept in memory between two commands.
    ExecuteUncached,
    /// Commands of all clients on one account, each retried until it wins.
    OneStream,
    /// Loading an account from all of its events.
    Load,
    /// Loading an account from a snapshot and the events after it.
    LoadSnapshot,
    /// Appends with two tags each, on the condition that no other client has used one of them.
    Boundary,
    /// Writing a history from elsewhere into the log.
    Import,
    /// Folding the whole log into a read model, before anyone may read it.
    Rebuild,
    /// Folding the whole log into the read model that serves.
    CatchUp,
    /// Writing the whole log into an SQL table.
    Tables,
    /// Running sagas of three steps.
    Sagas,
    /// Setting timers of sagas, and waking them.
    Timers,
    /// Publishing the whole log to Kafka.
    Publish,
    /// Folding what is in Kafka into the read model that serves.
    Follow,
    /// Asking for the log's last position.
    Head,
    /// Reading a page of the log.
    Page,
}

impl Work {
    /// Whether a command begins its account, and its client knows, since it has just made up the number.
    pub(crate) fn begins(self, version: u64) -> bool {
        self == Self::Execute && version == 0
    }

    /// Whether it is one piece of work and no closed loop of clients.
    pub(crate) fn is_one_piece(self) -> bool {
        !matches!(
            self,
            Self::Execute
                | Self::ExecuteUncached
                | Self::OneStream
                | Self::Load
                | Self::LoadSnapshot
                | Self::Boundary
                | Self::Head
                | Self::Page
        )
    }

    /// Whether it is about the log as a whole.
    pub(crate) fn reads_the_log(self) -> bool {
        matches!(self, Self::Head | Self::Page)
    }
}

/// Where a contender works, and on what.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Its own, empty database.
    pub(crate) url: String,
    /// What is going to be asked of it.
    pub(crate) work: Work,
    /// By how many clients at once.
    pub(crate) clients: usize,
}

/// An implementation that is connected and has its tables.
#[async_trait]
pub(crate) trait Contender: Send + Sync {
    /// One closed loop's way to it.
    async fn client(&self) -> Result<Box<dyn Client>>;

    /// The query that counts the events of its log.
    fn count(&self) -> &'static str {
        "SELECT count(*) FROM events"
    }
}

/// What a closed loop asks for, one after the other.
#[async_trait]
pub(crate) trait Client: Send {
    /// Deposits once into the account, of which this client knows that it has `version` events unless others use it
    /// too. Returns when the event is durable; a conflict is retried until it wins.
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        bail!("{account} cannot be given its event {version} here");
    }

    /// Deposits `times` at once into a new account, to prepare a measurement.
    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        bail!("{account} cannot be filled with {times} events here");
    }

    /// The account as it is now.
    async fn load(&mut self, account: Uuid) -> Result<Account> {
        bail!("{account} cannot be loaded here");
    }

    /// Writes the events of the history into the log. They follow those of earlier ones, and are durable then.
    async fn import(&mut self, name: &str, history: History) -> Result<()> {
        bail!("the {} events of {name} cannot be imported here", history.events.len());
    }

    /// Folds the log into a read model with one document for each stream, which are durable then.
    async fn rebuild(&mut self) -> Result<()> {
        bail!("there is no read model here");
    }

    /// As `rebuild`, but what was folded is to be seen early: after a thousand events, or some thousand.
    async fn catch_up(&mut self) -> Result<()> {
        bail!("there is no read model here");
    }

    /// Reads something of the log.
    async fn read(&mut self) -> Result<()> {
        bail!("the log cannot be read here");
    }
}
