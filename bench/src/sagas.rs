//! The measurement of sagas: one piece of work in each round, on a log that holds the events that start them.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use es_core::{
    ActionContext, ActionError, Append, Correlation, Effect, EventStore, Expected, Input, NewEvent, Recorded,
    Repository, Saga, Service, Step, StepSaga, Steps, StreamId,
    backend::BoxError,
    react::saga::{NamedSaga, Status},
};
use es_postgres::PostgresStore;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent, Deposit},
    bare,
    contender::Work,
    database::{Database, Server},
    entrant::Entrant,
    measure::{self, Measurement},
};

/// How many instances there are.
pub(crate) const INSTANCES: usize = 5_000;
/// How many steps each of them has.
pub(crate) const STEPS: usize = 3;
/// How many timers there are.
pub(crate) const TIMERS: usize = 20_000;
/// How many events are appended together before.
const BATCH: usize = 1_000;

/// Measures all instances from the first reaction until the last of them has ended: reactions to the event that starts one and to each
/// answer, each with a command in between; or timers that are set, and fire.
pub(crate) async fn measure(server: &Server, work: Work, entrant: Entrant) -> Result<Measurement> {
    let url = server.create(entrant.name(), Duration::ZERO).await?;
    let (count, transitions) =
        if work == Work::Sagas { (INSTANCES, INSTANCES * (STEPS + 1)) } else { (TIMERS, TIMERS) };
    let mut database = Database::open(&url).await?;
    let measured = if entrant == Entrant::Ours {
        let store = PostgresStore::options(&url).schema("public").connect().await?;
        filled(&store, count).await?;
        database.analyze().await?;
        let work = tokio::spawn(async move {
            if work == Work::Sagas {
                all_ended(store, count, |service| service.saga(Sending::of)).await
            } else {
                all_ended(store, count, |service| service.saga(|_| Waking)).await
            }
        });
        measure::piece(&mut database, transitions, async { work.await? }).await?
    } else {
        bare::create_tables(&url).await?;
        bare::sagas::create_tables(&url).await?;
        database.analyze().await?;
        let ids: Vec<_> = (0..count).map(|_| Uuid::now_v7()).collect();
        let work = tokio::spawn(async move {
            if work == Work::Sagas { bare::sagas::run(&url, ids).await } else { bare::sagas::wake(&url, ids).await }
        });
        measure::piece(&mut database, transitions, async { work.await? }).await?
    };
    server.drop(entrant.name()).await?;
    Ok(measured)
}

/// Appends the events that start the instances.
async fn filled(store: &PostgresStore, count: usize) -> Result<()> {
    let ids: Vec<_> = (0..count).map(|_| format!("{FROM}{}", Uuid::now_v7())).collect();
    for ids in ids.chunks(BATCH) {
        let append = |id: &String| {
            let event = NewEvent::of(&AccountEvent::deposit())?;
            Ok(Append::new(StreamId::new("account", id)?, Expected::NoStream, vec![event]))
        };
        store.append_together(ids.iter().map(append).collect::<Result<_>>()?).await?;
    }
    Ok(())
}

async fn all_ended(
    store: PostgresStore,
    count: usize,
    with_saga: impl FnOnce(es_core::ServiceBuilder) -> es_core::ServiceBuilder,
) -> Result<()> {
    let service = with_saga(Service::builder("bench", store.clone()).aggregate::<Account>()).start().await?;
    loop {
        let all = NamedSaga::all(&store).await?;
        let Some(saga) = all.first() else { continue };
        if saga.count(Status::Completed).await? == count as u64 {
            break;
        }
        ensure!(saga.count(Status::Failed).await? == 0, "an instance has failed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}

/// What the ids of accounts begin with that start an instance.
const FROM: &str = "from-";

fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
    let id = event.stream.id().strip_prefix(FROM);
    id.map_or(Correlation::None, |id| Correlation::Starts(id.to_owned()))
}

/// Deposits into three accounts, one after the other.
struct Sending {
    accounts: Repository<Account>,
}

impl Sending {
    fn of(shared: &es_core::Resources) -> Self {
        Self { accounts: shared.repository() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Send {
    to: String,
}

#[async_trait]
impl StepSaga for Sending {
    const NAME: &'static str = "sending";
    type Event = AccountEvent;
    type Data = String;
    type Action = Send;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        correlate(event)
    }

    fn learn(data: &mut String, event: &Recorded<AccountEvent>) {
        event.stream.id().trim_start_matches(FROM).clone_into(data);
    }

    fn steps(_: u32) -> Steps<Self> {
        Steps::new()
            .step(Step::<Self>::new("one", |data| Send { to: format!("one-{data}") }))
            .step(Step::<Self>::new("two", |data| Send { to: format!("two-{data}") }))
            .step(Step::<Self>::new("three", |data| Send { to: format!("three-{data}") }))
    }

    async fn perform(&self, Send { to }: &Send, context: ActionContext) -> Result<(), ActionError> {
        self.accounts.execute_with(to, Deposit { times: 1 }, context.command()?).await?;
        Ok(())
    }
}

/// Waits for a second, and ends.
struct Waking;

#[async_trait]
impl Saga for Waking {
    const NAME: &'static str = "waking";
    type Event = AccountEvent;
    type State = ();
    type Action = ();
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        correlate(event)
    }

    fn react((): &mut (), input: Input<'_, Self>) -> Result<Vec<Effect<()>>, BoxError> {
        Ok(match input {
            Input::Event(_) => vec![Effect::SetTimer { name: "wake".to_owned(), after: bare::sagas::AFTER }],
            _ => vec![Effect::End],
        })
    }

    async fn perform(&self, (): &(), _: ActionContext) -> Result<(), ActionError> {
        Ok(())
    }
}
