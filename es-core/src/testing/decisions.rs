//! `history().event(…).when(models, decision).then(…)`.

use std::fmt::{self, Debug};

use super::History;
use crate::{
    event::{Metadata, NewEvent},
    witness::Witness,
    write::{
        append::{Append, validate_together},
        decide::{Decision, Models},
    },
};

impl History {
    /// Folds the models from these events and lets `decision` decide on them.
    ///
    /// ```
    /// use es_core::{Decision, Event, EventQuery, Expected, Matching, StreamId, Tag, testing::history};
    ///
    /// # #[derive(Debug, Clone, PartialEq, Event)]
    /// # #[event(category = "user")]
    /// # enum UserEvent {
    /// #     #[event(name = "user.registered", tag = "name:{name}")]
    /// #     Registered { name: String },
    /// # }
    /// # #[derive(Debug, PartialEq, thiserror::Error)]
    /// # #[error("the name is taken")]
    /// # struct Taken;
    /// let registered = || UserEvent::Registered { name: "ada".into() };
    /// let named = || Ok::<_, es_core::InvalidTag>(Matching::<UserEvent>::new(EventQuery::tagged([Tag::new("name:ada")?])));
    /// let register = |named: &Matching<UserEvent>| {
    ///     if !named.events.is_empty() {
    ///         return Err(Taken);
    ///     }
    ///     Ok(Decision::append(StreamId::new("user", "2").unwrap(), Expected::NoStream, [registered()]))
    /// };
    ///
    /// history().event("1", registered()).when(named()?, register).then_refused(&Taken);
    ///
    /// let second = StreamId::new("user", "2")?;
    /// history().when(named()?, register).then(Decision::append(second, Expected::NoStream, [registered()]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When a model's query is invalid, or an event cannot be read.
    #[track_caller]
    pub fn when<M: Models, R>(self, mut models: M, decision: impl FnOnce(&M) -> Result<Decision, R>) -> Decided<M, R> {
        for model in models.parts() {
            let query = model.asks().unwrap_or_else(|error| panic!("a model asks for events by a tag: {error}"));
            if let Err(error) = query.validate() {
                panic!("{error}: {query:?}");
            }
            for (event, tags) in self.tagged().filter(|(event, tags)| query.matches(&event.data.name, tags)) {
                if let Err(error) = model.fold(event) {
                    panic!("{}; its tags: {tags:?}", crate::error::with_causes(&error));
                }
            }
        }
        let decided = decision(&models);
        Decided { history: self, models, outcome: decided }
    }
}

/// What was decided on models of a [`History`].
#[derive(Debug)]
pub struct Decided<M, R> {
    history: History,
    /// The models on which it was decided.
    pub models: M,
    outcome: Result<Decision, R>,
}

impl<M, R: fmt::Display> Decided<M, R> {
    /// Asserts the appends (streams, what is expected of them, and events; not the ids of events), and that the store would
    /// make them; returns the history with their events.
    ///
    /// # Panics
    /// When it has decided otherwise, or on something that the store refuses.
    #[track_caller]
    pub fn then(self, expected: Decision) -> History {
        let Self { mut history, outcome, .. } = self;
        let decided = outcome.unwrap_or_else(|refusal| panic!("refused: {refusal}"));
        let (decided, expected) = (appends(decided), appends(expected));
        let (told, wanted) = (told(&decided), told(&expected));
        assert!(told == wanted, "decided:\n{told}expected:\n{wanted}");
        if !decided.is_empty()
            && let Err(invalid) = validate_together(&decided)
        {
            panic!("the store refuses the appends: {invalid}");
        }
        for append in decided {
            let version = history.version(&append.stream);
            let last = history.events().iter().rev().find(|event| event.stream == append.stream).map(Witness::of);
            assert!(append.expected.holds(version, last), "the store refuses the append: {}", append.conflict(version));
            for event in append.events {
                history.push(append.stream.clone(), event);
            }
        }
        history
    }

    /// Asserts that nothing is to be done.
    ///
    /// # Panics
    /// When it has decided otherwise.
    #[track_caller]
    pub fn then_nothing(self) -> History {
        self.then(Decision::nothing())
    }
}

impl<M, R: Debug + PartialEq> Decided<M, R> {
    /// Asserts the refusal.
    ///
    /// # Panics
    /// When it has decided otherwise.
    #[track_caller]
    pub fn then_refused(self, refusal: &R) {
        match self.outcome {
            Ok(decision) => panic!("not refused:\n{}", told(&appends(decision))),
            Err(refused) => assert_eq!(&refused, refusal),
        }
    }
}

#[track_caller]
fn appends(decision: Decision) -> Vec<Append> {
    decision.into_appends().unwrap_or_else(|error| panic!("{}", crate::error::with_causes(&error)))
}

fn told(appends: &[Append]) -> String {
    let mut lines = Vec::new();
    for Append { stream, expected, events, condition, .. } in appends {
        let on = condition.as_ref().map(|condition| format!(", on {condition:?}")).unwrap_or_default();
        lines.push(format!("  to {stream}, expecting {expected}{on}"));
        lines.extend(events.iter().map(|event| format!("    {}", told_event(event))));
    }
    if lines.is_empty() { "  nothing\n".to_owned() } else { lines.join("\n") + "\n" }
}

fn told_event(NewEvent { data, metadata, tags, .. }: &NewEvent) -> String {
    let payload = String::from_utf8_lossy(&data.payload);
    let tags: String = tags.iter().flat_map(|tag| [", tagged ", tag.as_str()]).collect();
    let metadata = if *metadata == Metadata::default() { String::new() } else { format!(", with {metadata:?}") };
    format!("{} v{} {payload}{tags}{metadata}", data.name, data.schema_version)
}
