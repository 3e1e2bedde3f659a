//! Decisions that no single aggregate can make: read what they depend on, decide, append, and again if others were
//! faster.

mod model;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, sync::Arc};

use quick_cache::sync::Cache;
use tokio::{sync::Mutex, time::Instant};
use tracing::Instrument;

pub use self::model::{AggregateModel, DecisionModel, Matching, Models};
use crate::{
    backoff::Backoff,
    counted::counted,
    event::{Event, Metadata, NewEvent, NewEventError},
    schema::DecodeError,
    stream::{Expected, Position, StreamId, Version},
    tag::{Condition, ConditionPart, InvalidTag},
    telemetry::{DecisionMeter, spans},
    write::{
        append::{Append, CommandKey},
        execute::{AFTER_CONFLICT, CommandContext, Receipt},
        store::{AppendError, EventStore, ReadError, is_last_page},
    },
};

/// Makes decisions of one kind on events of any streams, found by their tags.
///
/// A decision reads what its [models](DecisionModel) ask for, decides and appends on the condition that nothing that
/// they ask for has been added since; if something has, it reads on and decides again. It takes metadata and an
/// idempotency key and gives a receipt, as [`Repository::execute_with`](crate::Repository::execute_with) does, and it
/// sees what repositories write: tags come from the events.
///
/// Decisions of this process whose first models have the same query take turns: at most one of them could be written at a
/// time. What other processes and other models decide is found out by the condition.
///
/// ```
/// use es_core::{
///     Decision, DecisionModel, Decisions, Event, EventQuery, Expected, InvalidTag, MemoryStore, Recorded, StreamId, Tag,
/// };
///
/// # #[derive(Debug, Clone, PartialEq, Event)]
/// # #[event(category = "user")]
/// # enum UserEvent {
/// #     #[event(name = "user.registered", tag = "name:{name}")]
/// #     Registered { name: String },
/// # }
/// /// Whether a user name is taken, although every user is a stream of its own.
/// struct NameTaken {
///     name: String,
///     taken: bool,
/// }
///
/// impl DecisionModel for NameTaken {
///     type Event = UserEvent;
///
///     fn query(&self) -> Result<EventQuery, InvalidTag> {
///         Ok(EventQuery::tagged([Tag::new(format!("name:{}", self.name))?]))
///     }
///
///     fn apply(&mut self, _: &Recorded<UserEvent>) {
///         self.taken = true;
///     }
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the name is taken")]
/// struct Taken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registrations = Decisions::new(MemoryStore::new(), "register");
/// for (id, is_first) in [("1", true), ("2", false)] {
///     let user = StreamId::new("user", id)?;
///     let model = NameTaken { name: "ada".into(), taken: false };
///     let registered = registrations.decide(model, |name| {
///         if name.taken {
///             return Err(Taken);
///         }
///         Ok(Decision::append(user.clone(), Expected::NoStream, [UserEvent::Registered { name: "ada".into() }]))
///     });
///     assert_eq!(registered.await.is_ok(), is_first);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Together with an aggregate
///
/// A rule of one aggregate and a rule across aggregates hold together when the aggregate is a model too. Its events carry a tag
/// with its id, an [`AggregateModel`] folds them, and the decision asks [`Aggregate::handle`](crate::Aggregate::handle):
///
/// ```
/// # use es_core::{Aggregate, Event};
/// # #[derive(Debug, Clone, PartialEq, Event)]
/// # #[event(category = "book")]
/// # enum BookEvent {
/// #     #[event(name = "book.lent", tag = "book:{book}", tag = "member:{member}")]
/// #     Lent { book: String, member: String },
/// # }
/// # #[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
/// # struct Book { lent: bool }
/// # struct Lend { book: String, member: String }
/// # #[derive(Debug, thiserror::Error)]
/// # enum Refused { #[error("the book is lent")] Lent, #[error("the member has three books")] TooMany }
/// # impl Aggregate for Book {
/// #     type Command = Lend;
/// #     type Event = BookEvent;
/// #     type Error = Refused;
/// #     fn handle(&self, lend: &Lend) -> Result<Vec<BookEvent>, Refused> {
/// #         if self.lent { return Err(Refused::Lent) }
/// #         Ok(vec![BookEvent::Lent { book: lend.book.clone(), member: lend.member.clone() }])
/// #     }
/// #     fn apply(&mut self, _: &BookEvent) { self.lent = true }
/// # }
/// use es_core::{AggregateModel, Decision, Decisions, EventQuery, Expected, Matching, MemoryStore, StreamId, Tag};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lending = Decisions::new(MemoryStore::new(), "lend"); // in a service: Decisions::new(service.store(), "lend")
/// let stream = StreamId::new("book", "1")?;
/// let loans = Matching::<BookEvent>::new(EventQuery::tagged([Tag::new("member:ada")?]));
/// let this = AggregateModel::<Book>::new(stream.clone(), EventQuery::tagged([Tag::new("book:1")?]));
/// lending
///     .decide((loans, this), |(loans, this)| {
///         if loans.events.len() == 3 {
///             return Err(Refused::TooMany);
///         }
///         let events = this.state.handle(&Lend { book: "1".into(), member: "ada".into() })?;
///         // The model sees all that happens in the stream, so nothing more is expected of it.
///         Ok(Decision::append(stream.clone(), Expected::Any, events))
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// `testing::history` tests a decision without a store: `history().event(…).when(models, decision).then(…)`. Write the
/// models and the decision as functions, which the handler and the test both call:
/// `fn decide(models: &(Matching<BookEvent>, AggregateModel<Book>)) -> Result<Decision, Refused>`.
///
/// Make one for each kind of decision when the program starts, and clone it into the handlers: clones share the store and the
/// turns. One that is made for each request shares no turns, so that concurrent requests meet in conflicts instead.
#[derive(Debug, Clone)]
pub struct Decisions {
    store: Arc<dyn EventStore>,
    /// The key space of its idempotency keys: a decision's stream may follow from the decision.
    scope: StreamId,
    name: &'static str,
    /// The turns that are taken by decisions on the same first model, by its query.
    turns: Arc<Cache<String, Turn>>,
    meter: Arc<DecisionMeter>,
    attempts: u32,
    backoff: Backoff,
}

type Turn = Arc<Mutex<()>>;

/// Of how many boundaries the turns are kept.
const BOUNDARIES: usize = 10_000;

/// What was decided: events, each for a stream in a state that the decision names, all of them or none.
#[derive(Debug)]
pub struct Decision(Result<Vec<Append>, NewEventError>);

impl Decision {
    /// That nothing is to be done.
    pub fn nothing() -> Self {
        Self(Ok(Vec::new()))
    }

    /// That `events` happen in `stream`, which must be as `expected`.
    pub fn append<E: Event>(stream: StreamId, expected: Expected, events: impl IntoIterator<Item = E>) -> Self {
        let events: Result<_, _> = events.into_iter().map(|event| NewEvent::of(&event)).collect();
        Self(events.map(|events| vec![Append::new(stream, expected, events)]))
    }

    /// That both happen. No two appends of a decision may be to the same stream.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.and_then(|mut appends| {
            appends.extend(other.0?);
            Ok(appends)
        }))
    }
}

#[cfg(any(test, feature = "testing"))]
impl Decision {
    pub(crate) fn into_appends(self) -> Result<Vec<Append>, NewEventError> {
        self.0
    }
}

impl From<Vec<Append>> for Decision {
    fn from(appends: Vec<Append>) -> Self {
        Self(Ok(appends))
    }
}

impl Decisions {
    /// Decisions on the events of `store`. `name` is stable and tells this kind of decision from others: idempotency
    /// keys are unique within it.
    pub fn new(store: impl EventStore, name: &'static str) -> Self {
        let store = Arc::new(store);
        let (scope, turns) = (StreamId::of_decisions(name), Arc::new(Cache::new(BOUNDARIES)));
        let meter = Arc::new(DecisionMeter::of(name));
        Self { store, scope, name, turns, meter, attempts: 16, backoff: AFTER_CONFLICT }
    }

    /// The same decisions about one subject, such as the id that a request is about: idempotency keys are unique within the name
    /// and the subject, so that clients need not know the keys of requests about others.
    ///
    /// ```
    /// # use es_core::{Decisions, MemoryStore};
    /// let bookings = Decisions::new(MemoryStore::new(), "book");
    /// let of_this_room = bookings.about("room:7");
    /// ```
    pub fn about(&self, subject: &str) -> Self {
        // No name and no tag holds a control character, so no two of both are the same text.
        Self { scope: StreamId::of_decisions(&format!("{}\u{1f}{subject}", self.name)), ..self.clone() }
    }

    /// Tries a decision at most `attempts` times (16, unless set otherwise) when others are faster.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// Decides on `models`: one [`DecisionModel`], or a tuple of several.
    ///
    /// # Errors
    /// [`DecideError::Rejected`] is the decision's own refusal.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either none or all of the decision's events in the log (R7).
    pub async fn decide<M: Models, R: std::error::Error + 'static>(
        &self,
        models: M,
        decision: impl Fn(&M) -> Result<Decision, R> + Send,
    ) -> Result<Receipt, DecideError<R>> {
        self.decide_with(models, CommandContext::default(), decision).await
    }

    /// Decides on `models` with metadata, which goes onto every event that has none of its own, and an idempotency key:
    /// asked again under the same key, it returns the first receipt with `repeated` set, although its own success may
    /// be the reason to refuse by now (R6). A decision that was refused, or appends nothing, is made anew.
    ///
    /// A key is unique within the decisions of this name, whichever streams they append to: the content that goes with it
    /// ([`CommandContext::idempotent`]) must hold everything that tells one request from another, such as the id of what is
    /// decided on. Else another request under the same key gets the first receipt.
    ///
    /// The receipt's version is that of the stream of the last append, 0 where there is none.
    ///
    /// # Errors
    /// [`DecideError::Rejected`] is the decision's own refusal. [`DecideError::VersionGiven`] when the context names a
    /// version: which stream that would be about, the decision's appends say by what they expect.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either none or all of the decision's events in the log (R7).
    pub async fn decide_with<M: Models, R: std::error::Error + 'static>(
        &self,
        models: M,
        mut context: CommandContext,
        decision: impl Fn(&M) -> Result<Decision, R> + Send,
    ) -> Result<Receipt, DecideError<R>> {
        let began = Instant::now();
        let span = spans::decide(self.name, &mut context.metadata);
        let outcome = self.outcome(models, context, decision).instrument(span).await;
        self.meter.decided(began, &outcome);
        outcome
    }

    async fn outcome<M: Models, R: std::error::Error + 'static>(
        &self,
        mut models: M,
        context: CommandContext,
        decision: impl Fn(&M) -> Result<Decision, R> + Send,
    ) -> Result<Receipt, DecideError<R>> {
        if context.if_version.is_some() {
            return Err(DecideError::VersionGiven);
        }
        let ask = |model: &mut dyn model::Part| Ok(ConditionPart { query: model.asks()?, after: Position::ZERO });
        let mut parts = models.parts().into_iter().map(ask).collect::<Result<Vec<_>, InvalidTag>>()?;
        let turn = self.turn(&parts);
        let _turn = turn.lock().await;
        let mut conflict = None;
        for attempt in 1..=self.attempts {
            let has_news = self.read(&mut models, &mut parts).await?;
            if let Some(conflict) = conflict.take().filter(|_| !has_news) {
                // The models do not see what stands in the way: decided again, it would be the same.
                return Err(DecideError::Append(conflict));
            }
            let decided = match decision(&models) {
                Ok(decision) => decision.0?,
                Err(refusal) => {
                    // Not before what it was decided on was read: its own success may be among that.
                    return self.repeated(&context).await?.ok_or(DecideError::Rejected(refusal));
                }
            };
            if decided.is_empty() {
                return Ok(self.repeated(&context).await?.unwrap_or(NOTHING));
            }
            let appends = self.prepared(decided, &parts, &context);
            let span = spans::append(&appends);
            match self.store.append_together(appends).instrument(span).await {
                Ok(appended) => return Ok(appended.last().map_or(NOTHING, |last| (*last).into())),
                Err(error) if error.is_unknown() => return Err(error.into()),
                Err(error) => {
                    // What others were faster with may be this very request.
                    if let Some(receipt) = self.repeated(&context).await? {
                        return Ok(receipt);
                    }
                    match error {
                        AppendError::ConditionFailed { .. } => {}
                        AppendError::Conflict(_) => conflict = Some(error),
                        error => return Err(error.into()),
                    }
                }
            }
            tokio::time::sleep(self.backoff.pause(attempt)).await;
        }
        Err(conflict.map_or(DecideError::Contended { attempts: self.attempts }, DecideError::Append))
    }

    /// The turn that this decision must take. (One that is no longer kept while it is taken costs nothing but a conflict.)
    fn turn(&self, parts: &[ConditionPart]) -> Turn {
        let boundary = parts.first().map(|part| format!("{:?}", part.query)).unwrap_or_default();
        let turn = self.turns.get_or_insert_with(&boundary, || Ok::<_, Infallible>(Turn::default()));
        turn.unwrap_or_else(|never| match never {})
    }

    /// Folds what has been added since the last time; tells whether there was anything.
    async fn read<M: Models, R: std::error::Error + 'static>(
        &self,
        models: &mut M,
        parts: &mut [ConditionPart],
    ) -> Result<bool, DecideError<R>> {
        let mut has_news = false;
        for (model, ConditionPart { query, after }) in models.parts().into_iter().zip(parts) {
            // Such a query is answered, and its condition judged under the append lock, by going through the log: so
            // the position moves to its end, although nothing there may match.
            let end = if query.is_tagged() { Position::ZERO } else { self.store.head().await? };
            loop {
                let page = self.store.read_matching(query, *after, PAGE).await?;
                for event in &page {
                    model.fold(event)?;
                    *after = event.position;
                }
                has_news |= !page.is_empty();
                if is_last_page(&page, PAGE) {
                    break;
                }
            }
            *after = end.max(*after);
        }
        Ok(has_news)
    }

    /// All are made or none is, so one of them carries the condition for all. The last one carries the key, since its
    /// outcome is that of all.
    fn prepared(&self, mut appends: Vec<Append>, parts: &[ConditionPart], context: &CommandContext) -> Vec<Append> {
        for event in appends.iter_mut().flat_map(|append| &mut append.events) {
            if event.metadata == Metadata::default() {
                event.metadata = context.metadata.clone();
            }
        }
        if let Some(first) = appends.first_mut() {
            first.condition = Condition::all_of(first.condition_parts().chain(parts).cloned().collect());
        }
        if let Some((last, command)) = appends.last_mut().zip(context.idempotency.clone()) {
            last.command = Some(CommandKey { scope: Some(self.scope.clone()), ..command });
        }
        appends
    }

    /// The outcome of an earlier request under the same key (R6).
    async fn repeated<R: std::error::Error + 'static>(
        &self,
        context: &CommandContext,
    ) -> Result<Option<Receipt>, DecideError<R>> {
        let Some(command) = &context.idempotency else { return Ok(None) };
        let record = self.store.find_command(&self.scope, &command.key).await?;
        Ok(record.map(|record| record.repeat(command.fingerprint)).transpose()?.map(Receipt::from))
    }
}

/// How many events are read at once.
const PAGE: usize = 1_000;

/// The receipt of a decision that appends nothing.
const NOTHING: Receipt = Receipt::without_events(Version::ZERO);

/// Why a decision was not made, or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError<R: std::error::Error + 'static> {
    /// The decision refuses: its own words, untouched.
    #[error(transparent)]
    Rejected(R),
    /// Others were faster every time.
    #[error("other decisions were faster, {}", counted(*attempts, "time"))]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The context names a version, which only a command on one aggregate has.
    #[error("a decision takes no version; its appends say what they expect of their streams")]
    VersionGiven,
    /// A text by which a model asks for events cannot be a tag.
    #[error("the decision asks for events by an invalid tag")]
    Query(#[from] InvalidTag),
    /// An event that was decided cannot go into the log.
    #[error(transparent)]
    Event(#[from] NewEventError),
    /// The events could not be read.
    #[error("the events cannot be read")]
    Read(#[from] ReadError),
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The events could not be appended. A [`Conflict`](AppendError::Conflict) is one that the decision's models do not
    /// see, so that it would be decided in the same way again.
    #[error("the events cannot be appended")]
    Append(#[from] AppendError),
}

impl<R: std::error::Error + 'static> DecideError<R> {
    /// Whether deciding again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Contended { .. } => true,
            Self::Read(error) => error.is_transient(),
            Self::Append(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether newer code has written an event that would have to be read: trying again may help in a process of that code.
    pub(crate) fn is_of_newer_code(&self) -> bool {
        matches!(self, Self::Decode(error) if error.reason.is_of_newer_code())
    }
}
