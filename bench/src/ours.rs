//! The framework under test.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use es_core::{
    Append, CommandContext, Condition, EngineError, Event, EventOrder, EventQuery, EventStore, ExecuteError, Expected,
    FoldResult, Generation, Keys, LogSource, Metadata, NewEvent, Position, Projection, Projector, QueryError,
    ReadModel, ReadToken, Recorded, Repository, Service, StreamId, Tag, Version,
    backend::{AggregateStore, ReadModelStore},
};
use es_postgres::{Imported, PostgresStore};
use es_sqlite::SqliteStore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent, Deposit},
    contender::{Client, Contender, Task, Work},
    embedded,
    history::History,
};

/// The events of a page.
const PAGE: usize = 1_000;

async fn open(task: &Task) -> Result<PostgresStore> {
    Ok(PostgresStore::options(&task.url).schema("public").connect().await?)
}

/// The repository of accounts, with default settings unless the work is about one of them.
#[derive(Clone)]
pub(crate) struct Ours {
    accounts: Repository<Account>,
    work: Work,
}

impl Ours {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        Ok(Self::on(open(task).await?, task.work))
    }

    /// On a file of SQLite.
    pub(crate) async fn embedded(task: &Task) -> Result<Self> {
        Ok(Self::on(open_file(&task.url).await?, task.work))
    }

    fn on(store: impl AggregateStore, work: Work) -> Self {
        let accounts = Repository::<Account>::new(store);
        let accounts = match work {
            Work::ExecuteUncached | Work::LoadSnapshot => accounts.cache(0),
            Work::Load => accounts.cache(0).snapshot_every(0),
            _ => accounts,
        };
        Self { accounts, work }
    }
}

#[async_trait]
impl Contender for Ours {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for Ours {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        let if_version = self.work.begins(version).then_some(Version::ZERO);
        loop {
            let context = CommandContext { if_version, ..CommandContext::default() };
            match self.accounts.execute_with(account.to_string(), Deposit { times: 1 }, context).await {
                Err(ExecuteError::Contended { .. }) => {}
                outcome => return Ok(outcome.map(drop)?),
            }
        }
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        Ok(self.accounts.execute(account.to_string(), Deposit { times }).await.map(drop)?)
    }

    async fn load(&mut self, account: Uuid) -> Result<Account> {
        Ok(self.accounts.load(&account.to_string()).await?.state)
    }
}

/// The balance of every account, as a read model; there may be several of them.
pub(crate) struct Balances<const N: usize = 0>;

impl<const N: usize> Projection for Balances<N> {
    const NAME: &'static str = ["balances", "balances-1", "balances-2", "balances-3", "balances-4"][N];
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = AccountEvent;
    type Document = Account;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, account: &mut Option<Account>, event: &Recorded<AccountEvent>) -> FoldResult {
        account.get_or_insert_default().fold(&event.data);
        Ok(())
    }
}

/// The same for a reader that needs all events in log order.
pub(crate) struct Merged;

impl Projection for Merged {
    const NAME: &'static str = "merged";
    const ORDER: EventOrder = EventOrder::PerKey;
    type Event = AccountEvent;
    type Document = Account;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Balances::<0>.keys(event)
    }

    fn fold(&self, account: &mut Option<Account>, event: &Recorded<AccountEvent>) -> FoldResult {
        Balances::<0>.fold(account, event)
    }
}

/// The framework while a projector keeps a read model in the same store.
pub(crate) struct Projected {
    ours: Ours,
    _stop: DropGuard,
}

impl Projected {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        let store = open(task).await?;
        let source = LogSource::new(store.clone());
        let projector = Projector::new(Balances::<0>, source, store.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { projector.run(stopped).await });
        Ok(Self { ours: Ours::on(store, task.work), _stop: stop.drop_guard() })
    }
}

#[async_trait]
impl Contender for Projected {
    async fn client(&self) -> Result<Box<dyn Client>> {
        self.ours.client().await
    }
}

/// The framework while the store folds a read model in the transaction of each append.
pub(crate) struct Inlined {
    ours: Ours,
    _service: Service,
}

impl Inlined {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        let store = open(task).await?;
        let service = Service::builder("bench", store.clone()).inline(Balances::<0>).start().await?;
        // Until it serves, appends do not fold it.
        service.read_model::<Balances>().patience(Duration::from_secs(10)).get("none").await?;
        Ok(Self { ours: Ours::on(store, task.work), _service: service })
    }
}

#[async_trait]
impl Contender for Inlined {
    async fn client(&self) -> Result<Box<dyn Client>> {
        self.ours.client().await
    }
}

/// Appends with two tags: the account's, which is its client's alone, and its holder's, which its client uses again and
/// again.
#[derive(Clone)]
pub(crate) struct Tagged {
    store: PostgresStore,
    conditional: bool,
    holder: Tag,
    /// The last position of the account.
    seen: Position,
}

impl Tagged {
    /// On the condition that no client has used the account's tag since the client has, or without one.
    pub(crate) async fn connect(task: &Task, conditional: bool) -> Result<Self> {
        Ok(Self { store: open(task).await?, conditional, holder: holder()?, seen: Position::ZERO })
    }
}

fn holder() -> Result<Tag> {
    Ok(Tag::new(format!("holder:{}", Uuid::now_v7()))?)
}

#[async_trait]
impl Contender for Tagged {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Self { holder: holder()?, ..self.clone() }))
    }
}

#[async_trait]
impl Client for Tagged {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        if version == 0 {
            self.seen = Position::ZERO;
        }
        let tag = Tag::new(format!("account:{account}"))?;
        let stream = StreamId::new(AccountEvent::CATEGORY, &account.to_string())?;
        let event = NewEvent::of(&AccountEvent::deposit())?.with_tags([tag.clone(), self.holder.clone()]);
        let mut append = Append::new(stream, Expected::Any, vec![event]);
        if self.conditional {
            append = append.on(Condition::new(EventQuery::tagged([tag]), self.seen));
        }
        self.seen = self.store.append(append).await?.position;
        Ok(())
    }
}

/// Read models of a store with default settings.
#[derive(Clone)]
struct Models<S> {
    store: S,
    /// How many are rebuilt at once.
    models: usize,
}

impl<S: EventStore + ReadModelStore + Clone> Models<S> {
    /// Begins a rebuild beside others from the same source.
    fn rebuild_one<const N: usize>(
        &self,
        rebuilds: &mut JoinSet<Result<Option<Generation>, EngineError>>,
        source: &LogSource,
    ) {
        let projector = Projector::new(Balances::<N>, source.clone(), self.store.clone());
        rebuilds.spawn(async move { projector.rebuild(CancellationToken::new()).await });
    }

    async fn rebuild(&self) -> Result<()> {
        let (source, mut rebuilds) = (LogSource::new(self.store.clone()), JoinSet::new());
        self.rebuild_one::<0>(&mut rebuilds, &source);
        if self.models == 5 {
            self.rebuild_one::<1>(&mut rebuilds, &source);
            self.rebuild_one::<2>(&mut rebuilds, &source);
            self.rebuild_one::<3>(&mut rebuilds, &source);
            self.rebuild_one::<4>(&mut rebuilds, &source);
        }
        while let Some(rebuilt) = rebuilds.join_next().await {
            rebuilt??.context("it was interrupted")?;
        }
        Ok(())
    }

    async fn catch_up(&self) -> Result<()> {
        let projector = Projector::new(Balances::<0>, LogSource::new(self.store.clone()), self.store.clone());
        let (end, stop) = (ReadToken(self.store.head().await?), CancellationToken::new());
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { projector.run(stop).await }
        });
        let model = ReadModel::<Balances>::new(self.store.clone());
        // While the first generation is being built, none serves.
        while let Err(QueryError::Building { .. }) = model.wait_for(end, Duration::from_mins(10)).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        Ok(running.await??)
    }
}

/// For one piece of work.
#[derive(Clone)]
pub(crate) struct Importer(Models<PostgresStore>);

impl Importer {
    pub(crate) async fn connect(task: &Task, models: usize) -> Result<Self> {
        Ok(Self(Models { store: open(task).await?, models }))
    }
}

#[async_trait]
impl Contender for Importer {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for Importer {
    async fn import(&mut self, name: &str, history: History) -> Result<()> {
        let events = history.events.len();
        let done = self.0.store.import(name).events(history.events).await?;
        ensure!(usize::try_from(done.events)? == events, "{} of {events} events", done.events);
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<()> {
        self.0.rebuild().await
    }

    async fn catch_up(&mut self) -> Result<()> {
        self.0.catch_up().await
    }
}

/// The same on a file of `SQLite`.
#[derive(Clone)]
pub(crate) struct EmbeddedImporter(Models<SqliteStore>);

impl EmbeddedImporter {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        Ok(Self(Models { store: open_file(&task.url).await?, models: 1 }))
    }
}

#[async_trait]
impl Contender for EmbeddedImporter {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for EmbeddedImporter {
    async fn import(&mut self, _: &str, history: History) -> Result<()> {
        append(&self.0.store, history).await
    }

    async fn rebuild(&mut self) -> Result<()> {
        self.0.rebuild().await
    }

    async fn catch_up(&mut self) -> Result<()> {
        self.0.catch_up().await
    }
}

pub(crate) async fn open_file(url: &str) -> Result<SqliteStore> {
    Ok(SqliteStore::open(embedded::path(url)).await?)
}

/// Appends the events of the history to an empty log, in their order.
pub(crate) async fn append(store: &SqliteStore, history: History) -> Result<()> {
    // The events of one streams' turn, so that each append has a stream of its own.
    for (turn, events) in history.events.chunks(history.streams).enumerate() {
        for events in events.chunks(PAGE) {
            let expected = Expected::Exact(Version::new(u64::try_from(turn)?));
            let append = |event: &Imported| {
                let new = NewEvent {
                    id: event.id,
                    data: event.data.clone(),
                    metadata: Metadata::default(),
                    tags: Vec::new(),
                };
                Append::new(event.stream.clone(), expected, vec![new])
            };
            store.append_together(events.iter().map(append).collect()).await?;
        }
    }
    Ok(())
}

/// The log, read as engines read it.
#[derive(Clone)]
pub(crate) struct Log {
    store: PostgresStore,
    work: Work,
    end: Position,
    turn: u64,
}

impl Log {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        let store = open(task).await?;
        Ok(Self { end: store.head().await?, store, work: task.work, turn: 0 })
    }
}

#[async_trait]
impl Contender for Log {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Client for Log {
    async fn read(&mut self) -> Result<()> {
        if self.work == Work::Head {
            self.store.head().await?;
            return Ok(());
        }
        // Pages from all over the log, the same sequence each time.
        self.turn += 1;
        let after = self.turn.wrapping_mul(7_919 * PAGE as u64) % (self.end.get() - PAGE as u64);
        let page = self.store.read_log(Position::new(after), PAGE).await?;
        ensure!(page.len() == PAGE, "a page of {} events", page.len());
        Ok(())
    }
}
