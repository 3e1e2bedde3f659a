//! `history().event(…).when_reacting(policy).await.then(…)`.

use std::sync::Arc;

use super::{History, history::described};
use crate::{
    error::with_causes,
    event::{NewEvent, RecordedEvent},
    memory::MemoryStore,
    react::policy::{Policy, PolicyError},
    service::{ByType, Resources},
    stream::{Expected, Position},
    write::{aggregate::Aggregate, append::Append, execute::Repository, store::EventStore},
};

/// How many events a policy may react to in a test. One that reacts to each of its own effects with another one has no end.
const MOST: usize = 1_000;

impl History {
    /// These events, for a policy whose commands go to aggregates of the kind `A`.
    pub fn aggregate<A: Aggregate>(self) -> Reacting {
        Reacting { history: self, store: MemoryStore::new(), repositories: ByType::default() }.aggregate::<A>()
    }

    /// Lets a policy without commands react to each of these events: see [`Reacting::when_reacting`].
    ///
    /// # Panics
    /// As [`Reacting::when_reacting`].
    pub async fn when_reacting<P: Policy>(self, policy: impl FnOnce(&Resources) -> P) -> Reacted<P> {
        let (store, repositories) = (MemoryStore::new(), ByType::default());
        Reacting { history: self, store, repositories }.when_reacting(policy).await
    }
}

/// A history, and the aggregates to which a policy sends commands.
#[derive(Debug)]
pub struct Reacting {
    history: History,
    store: MemoryStore,
    repositories: ByType,
}

impl Reacting {
    /// Adds the aggregates of one more kind.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.repositories.insert(Repository::<A>::new(self.store.clone()));
        self
    }

    /// Lets a policy react to each of these events, and to what follows from that, as it does in a service. It is made in the
    /// same way as for [`ServiceBuilder::policy`](crate::service::ServiceBuilder::policy).
    ///
    /// ```
    /// # use async_trait::async_trait;
    /// # use es_core::{Policy, PolicyError, Recorded, Repository, reaction};
    /// use es_core::testing::{account::{Account, AccountCommand, AccountEvent}, history};
    ///
    /// # struct Copying { accounts: Repository<Account> }
    /// # #[async_trait]
    /// # impl Policy for Copying {
    /// #     const NAME: &'static str = "copying";
    /// #     type Event = AccountEvent;
    /// #     async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
    /// #         let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
    /// #         if event.stream.id() == "copy" { return Ok(()) }
    /// #         let context = reaction(event, Self::NAME, "copy")?;
    /// #         self.accounts.execute_with("copy", AccountCommand::Deposit(amount), context).await?;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let reacted = history()
    ///     .event("a", AccountEvent::Deposited { amount: 5 })
    ///     .aggregate::<Account>()
    ///     .when_reacting(|shared| Copying { accounts: shared.repository() })
    ///     .await;
    /// let repeated = reacted.then(history().event("copy", AccountEvent::Deposited { amount: 5 })).again().await;
    /// repeated.then(history());
    /// # }
    /// ```
    ///
    /// # Panics
    /// When an event cannot be read, or the policy reacts to its own effects without end.
    pub async fn when_reacting<P: Policy>(self, policy: impl FnOnce(&Resources) -> P) -> Reacted<P> {
        let Self { history, store, repositories } = self;
        for (event, tags) in history.tagged() {
            let RecordedEvent { stream, id, metadata, data, .. } = event.clone();
            let new = NewEvent { id, data, metadata, tags: tags.to_vec() };
            let appended = store.append(Append::new(stream, Expected::Any, vec![new])).await;
            appended.unwrap_or_else(|error| panic!("{}: {}", described(event), with_causes(&error)));
        }
        let shared = Resources::new("test".to_owned(), Arc::new(store.clone()), None, None, Vec::new(), repositories);
        let mut reacted = Reacted {
            policy: policy(&shared),
            store,
            given: history.events().to_vec(),
            effects: Vec::new(),
            failure: None,
        };
        reacted.react().await;
        reacted
    }
}

/// What a policy has done.
#[derive(Debug)]
pub struct Reacted<P> {
    /// The policy. A test may have given it a stand-in for what is outside, such as a mail server, and can look at that now.
    pub policy: P,
    store: MemoryStore,
    /// What it reacts to first.
    given: Vec<RecordedEvent>,
    /// The events of its commands.
    effects: Vec<RecordedEvent>,
    failure: Option<(String, PolicyError)>,
}

impl<P: Policy> Reacted<P> {
    async fn react(&mut self) {
        let end = self.head().await;
        let mut next = 0;
        loop {
            self.effects = self.read_after(end).await;
            let Some(event) = self.given.iter().chain(&self.effects).nth(next) else { return };
            assert!(next < MOST, "the policy {:?} has reacted to {MOST} events and there are more", P::NAME);
            next += 1;
            let event = event.decode().unwrap_or_else(|error| panic!("{}", with_causes(&error)));
            let Some(event) = event else { continue };
            if let Err(error) = self.policy.react(&event).await {
                let at = format!("{} (position {})", event.stream, event.position);
                self.effects = self.read_after(end).await;
                self.failure = Some((at, error));
                return;
            }
        }
    }

    async fn read_after(&self, end: Position) -> Vec<RecordedEvent> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = events.last().map_or(end, |event| event.position);
            let page = self.store.read_log(after, usize::MAX).await.expect("a store in memory can be read");
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    async fn head(&self) -> Position {
        self.store.head().await.expect("a store in memory can be read")
    }

    /// Asserts the events of its commands, by stream, kind and content; position, time, id and metadata may be others.
    ///
    /// # Panics
    /// When it has done something else, or has failed.
    #[track_caller]
    pub fn then(self, expected: History) -> Self {
        if let Some((at, error)) = &self.failure {
            panic!("the policy {:?} failed at {at}: {}", P::NAME, with_causes(error));
        }
        let list = |events: Vec<RecordedEvent>| events.iter().map(described).collect::<Vec<_>>();
        let (done, wanted) = (list(self.effects.clone()), list(expected.into_events()));
        let told = |list: &[String]| list.join("\n  ");
        assert!(
            done == wanted,
            "the policy {:?} has brought about:\n  {}\nexpected:\n  {}\n",
            P::NAME,
            told(&done),
            told(&wanted)
        );
        self
    }

    /// Asserts that it could not react to an event; returns why.
    ///
    /// # Panics
    /// When it could.
    #[track_caller]
    pub fn then_failed(self) -> PolicyError {
        let Some((_, error)) = self.failure else { panic!("the policy {:?} has not failed", P::NAME) };
        error
    }

    /// Lets it react to everything once more, as after a crash before its checkpoint: a policy whose commands carry
    /// idempotency keys ([`reaction`](crate::reaction)) brings about nothing.
    ///
    /// # Panics
    /// As [`Reacting::when_reacting`].
    pub async fn again(mut self) -> Self {
        self.given.append(&mut self.effects);
        self.failure = None;
        self.react().await;
        self
    }
}
