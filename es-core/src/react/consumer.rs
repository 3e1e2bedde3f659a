//! Messages of other systems in, commands out.

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::policy::{Policy, PolicyError, PolicyRunner};
use crate::{
    event::{EventSet, Recorded},
    read::{
        definition,
        engine_error::EngineError,
        failure::FailurePolicy,
        foreign::{Foreign, UnknownTypes},
        read_model::Leases,
        source::EventSource,
        worker_state::WorkerState,
    },
};

/// Handles the messages of a topic that another system writes.
///
/// It is a reader like a [`Policy`]: with checkpoints, leases, a [failure policy](FailurePolicy) and dead letters. What it reads are
/// not events of the log, so nothing of the log waits for it, and it can neither be rebuilt nor waited for.
///
/// A message is declared as an [`Event`](crate::Event) is. Its name is the type that the other system gives it, its payload the data.
/// Fields that are not declared are passed over.
///
/// ```
/// use async_trait::async_trait;
/// use es_core::{Consumer, Event, PolicyError, Recorded, Repository, reaction};
/// # use es_core::testing::account::{Account, AccountCommand};
///
/// #[derive(Debug, PartialEq, Event)]
/// #[event(category = "payment")]
/// enum PaymentMessage {
///     #[event(name = "payment.captured")]
///     Captured { account: String, amount: u64 },
/// }
///
/// struct Payments {
///     accounts: Repository<Account>,
/// }
///
/// #[async_trait]
/// impl Consumer for Payments {
///     const NAME: &'static str = "payments";
///     type Message = PaymentMessage;
///
///     async fn handle(&self, message: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
///         let PaymentMessage::Captured { account, amount } = &message.data;
///         let context = reaction(message, Self::NAME, "deposit")?;
///         self.accounts.execute_with(account.as_str(), AccountCommand::Deposit(*amount), context).await?;
///         Ok(())
///     }
/// }
/// # let builder = es_core::Service::builder("accounts", es_core::MemoryStore::new());
/// # let topic = es_core::LogSource::new(es_core::MemoryStore::new());
///
/// // `topic` is a source, for example an `es_kafka::KafkaTopic`:
/// let builder = builder.aggregate::<Account>().consumer(topic, |shared| Payments { accounts: shared.repository() });
/// ```
///
/// # Delivery
/// The messages of a stream, which is a key of the topic, come in order. What `handle` has done commits with the checkpoint after each
/// batch or second. A crash before that repeats the messages since the last commit, so commands carry an idempotency key that
/// [`reaction`](crate::reaction) makes from the id of the message.
///
/// A producer may send a message again, to another place of the topic. The consumer knows its id from its *inbox*, which commits with the
/// checkpoint, and passes over it ([`ConsumerRunner::inbox`]). If two workers get it at the same moment, both handle it; what it brings
/// about happens once if its commands carry keys.
#[async_trait]
pub trait Consumer: Sized + Send + Sync + 'static {
    /// Its stable name, by the rule of [`Projection::NAME`](crate::Projection::NAME), whose name space it shares.
    const NAME: &'static str;

    /// The messages that it handles.
    type Message: EventSet;

    /// A name by which another reader under the same [`NAME`](Self::NAME) is recognised and refused: the type's name.
    /// After the type was renamed, return the former name here.
    fn identity() -> &'static str {
        definition::type_name::<Self>()
    }

    /// Does what follows from `message`.
    ///
    /// # Errors
    /// [`PolicyError`]: the consumer tries again if that may help. Otherwise the [`FailurePolicy`] decides.
    async fn handle(&self, message: &Recorded<Self::Message>) -> Result<(), PolicyError>;
}

/// A consumer as the engine of policies runs it.
#[derive(Debug)]
pub(crate) struct Consuming<C>(C);

#[async_trait]
impl<C: Consumer> Policy for Consuming<C> {
    const NAME: &'static str = C::NAME;
    type Event = C::Message;

    fn identity() -> &'static str {
        C::identity()
    }

    async fn react(&self, message: &Recorded<C::Message>) -> Result<(), PolicyError> {
        self.0.handle(message).await
    }
}

/// Runs a consumer and keeps its checkpoints.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct ConsumerRunner<C> {
    pub(crate) runner: PolicyRunner<Consuming<C>>,
}

impl<C: Consumer> ConsumerRunner<C> {
    /// Runs `consumer` on the messages of `source` and keeps its checkpoints in `leases`.
    pub fn new(consumer: C, source: impl EventSource, leases: impl Leases) -> Self {
        const { assert!(definition::is_name(C::NAME), "Consumer::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let mut runner = PolicyRunner::new(Consuming(consumer), source, leases);
        (runner.kind, runner.foreign) = ("consumer", Some(Foreign::default()));
        Self { runner }
    }

    fn with(mut self, change: impl FnOnce(&mut Foreign)) -> Self {
        if let Some(foreign) = &mut self.runner.foreign {
            change(foreign);
        }
        self
    }

    /// What it does with messages of types that it does not know ([stops](UnknownTypes::Stop) by default).
    pub fn unknown_types(self, unknown: UnknownTypes) -> Self {
        self.with(|foreign| foreign.unknown = unknown)
    }

    /// For how long it knows the messages that it has handled (7 days by default): one that its producer repeats within this time is
    /// passed over. [`Duration::ZERO`]: it keeps no inbox.
    pub fn inbox(self, keep_for: Duration) -> Self {
        self.with(|foreign| foreign.keep_for = keep_for)
    }

    /// How long the lease of a runner lasts after its process was killed or stalls, as [`PolicyRunner::lease`].
    pub fn lease(self, ttl: Duration) -> Self {
        Self { runner: self.runner.lease(ttl) }
    }

    /// How often it tries again while it [stands by](WorkerState::StandingBy) (every 5 s by default).
    pub fn standby(self, retry: Duration) -> Self {
        Self { runner: self.runner.standby(retry) }
    }

    /// How long it [stands by](WorkerState::StandingBy) at one message that this program does not know, as
    /// [`PolicyRunner::standby_limit`].
    pub fn standby_limit(self, limit: Duration) -> Self {
        Self { runner: self.runner.standby_limit(limit) }
    }

    /// What it does when it cannot handle or read a message ([stops](FailurePolicy::stop) by default). A parked key is a stream in
    /// one shard of the source: `<shard>/<stream>`, for example `payments/3/payment-42`.
    ///
    /// With a policy that [forwards](FailurePolicy::forward), return [`PolicyError::Permanent`] for what is wrong with this message or
    /// concerns it alone, and [`PolicyError::Transient`] for what concerns all of them, such as a service that does not answer: that is
    /// waited for, with all messages of the shard, and forwards nothing.
    pub fn on_failure(self, policy: FailurePolicy) -> Self {
        Self { runner: self.runner.on_failure(policy) }
    }

    /// How many dead letters it may have, as [`PolicyRunner::most_letters`].
    pub fn most_letters(self, letters: usize) -> Self {
        Self { runner: self.runner.most_letters(letters) }
    }

    /// How long it may take to handle a message, as [`PolicyRunner::time_limit`].
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { runner: self.runner.time_limit(limit) }
    }

    /// What [`run`](Self::run) is doing; the receiver sees each change.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.runner.state()
    }

    /// Runs until `shutdown`, as [`PolicyRunner::run`].
    ///
    /// # Errors
    /// A permanent error stops the consumer at the message that it concerns (R11). The checkpoint is before that message.
    ///
    /// # Cancel safety
    /// Dropping the future may repeat the messages of the last second.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.runner.run(shutdown).await
    }
}
