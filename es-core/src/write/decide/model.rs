//! What a decision is made on.

use crate::{
    event::{EventSet, Recorded, RecordedEvent},
    schema::DecodeError,
    stream::{StreamId, Version},
    tag::{EventQuery, InvalidTag},
    write::aggregate::Aggregate,
};

/// What a decision is made on: a fold of all events that match a query.
///
/// Several compose: a tuple of models is read, decided on and guarded together, each from its own position.
///
/// A decision reads its models from the beginning of the log each time, so ask for what is about few events; see
/// [`EventQuery`] for what a query costs.
pub trait DecisionModel: Send {
    /// The events that it folds. Those of other categories are not shown to it, although they match.
    type Event: EventSet;

    /// Which events it is made of. It is asked once.
    ///
    /// # Errors
    /// [`InvalidTag`] when a text of the request cannot be a tag: the decision ends with
    /// [`DecideError::Query`](crate::DecideError::Query).
    fn query(&self) -> Result<EventQuery, InvalidTag>;

    /// Folds: the model after `event`.
    fn apply(&mut self, event: &Recorded<Self::Event>);
}

/// A [`DecisionModel`] that keeps all events that match a query, for decisions that are short enough to look at them.
#[derive(Debug, Clone)]
pub struct Matching<E> {
    query: EventQuery,
    /// The events, in the order of the log.
    pub events: Vec<Recorded<E>>,
}

impl<E: EventSet> Matching<E> {
    /// The events that match `query`.
    pub fn new(query: EventQuery) -> Self {
        Self { query, events: Vec::new() }
    }
}

impl<E: EventSet + Clone> DecisionModel for Matching<E> {
    type Event = E;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(self.query.clone())
    }

    fn apply(&mut self, event: &Recorded<E>) {
        self.events.push(event.clone());
    }
}

/// A [`DecisionModel`] made of the fold of an aggregate, so that its rules and rules across aggregates hold together.
#[derive(Debug, Clone)]
pub struct AggregateModel<A> {
    stream: StreamId,
    query: EventQuery,
    /// How many events it has.
    pub version: Version,
    /// The aggregate.
    pub state: A,
}

impl<A: Aggregate> AggregateModel<A> {
    /// The aggregate in `stream`. All of its events must match `query`: they carry a tag with its id. Of what else matches
    /// nothing is folded.
    pub fn new(stream: StreamId, query: EventQuery) -> Self {
        Self { stream, query, version: Version::ZERO, state: A::default() }
    }
}

impl<A: Aggregate> DecisionModel for AggregateModel<A> {
    type Event = A::Event;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(self.query.clone())
    }

    fn apply(&mut self, event: &Recorded<A::Event>) {
        if event.stream == self.stream {
            self.version = event.version;
            self.state.apply(&event.data);
        }
    }
}

/// What one decision is made on: a [`DecisionModel`] or a tuple of up to four.
pub trait Models: Send {
    /// Each of them.
    #[doc(hidden)]
    fn parts(&mut self) -> Vec<&mut dyn Part>;
}

/// A model without its type of events.
#[doc(hidden)]
pub trait Part: Send {
    fn asks(&self) -> Result<EventQuery, InvalidTag>;

    fn fold(&mut self, event: &RecordedEvent) -> Result<(), DecodeError>;
}

impl<M: DecisionModel> Part for M {
    fn asks(&self) -> Result<EventQuery, InvalidTag> {
        self.query()
    }

    fn fold(&mut self, event: &RecordedEvent) -> Result<(), DecodeError> {
        if let Some(event) = event.decode()? {
            self.apply(&event);
        }
        Ok(())
    }
}

impl<M: DecisionModel> Models for M {
    fn parts(&mut self) -> Vec<&mut dyn Part> {
        vec![self]
    }
}

macro_rules! models {
    ($($model:ident)+) => {
        impl<$($model: DecisionModel),+> Models for ($($model,)+) {
            fn parts(&mut self) -> Vec<&mut dyn Part> {
                #[expect(non_snake_case, reason = "a variable for each type")]
                let ($($model,)+) = self;
                vec![$($model),+]
            }
        }
    };
}

models! { A }
models! { A B }
models! { A B C }
models! { A B C D }
