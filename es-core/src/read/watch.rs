//! Subscriptions: the documents of a read model, and each change of them.

mod error;
mod since;
#[cfg(test)]
mod tests;
mod touched;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

pub(crate) use self::touched::{Alone, TouchedKeys, Touches, keys_of};
pub use self::{
    error::WatchError,
    since::{ChangeToken, Since},
};
use crate::{
    read::{
        known_progress::Progresses,
        projection::Projection,
        query::{self, QueryError, ReadModel},
        read_model::{Documents, Generation, KeyRange, Progress, Served},
        reads,
    },
    stream::Position,
};

/// How many documents are read at a time, at most.
const PAGE: usize = 100;

/// Documents are loaded until they have so many bytes together.
const LOAD_BYTES: usize = 1024 * 1024;

/// A document and a moment from which on it had this state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<D> {
    /// Under which key.
    pub key: String,
    /// The document; `None` when there is none, or no more.
    pub document: Option<D>,
    /// All events of the key up to this position are in it, and perhaps later ones.
    pub position: Position,
    /// Where another watch continues after this change; `None` when the current state has begun and is not complete: then that
    /// watch begins with it again.
    pub token: Option<ChangeToken>,
}

/// The changes of a document, or of those in a range of keys: [`ReadModel::watch`], [`ReadModel::watch_range`].
#[derive(Debug)]
pub struct Watch<P> {
    model: ReadModel<P>,
    touched: Arc<TouchedKeys>,
    scope: Scope,
    since: Since,
    following: Option<Following>,
}

#[derive(Debug)]
enum Scope {
    Key(String),
    Range(KeyRange),
}

impl Scope {
    fn contains(&self, key: &str) -> bool {
        match self {
            Self::Key(wanted) => key == wanted,
            Self::Range(range) => range.contains(key),
        }
    }
}

/// A position, and what tells the event there from others.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: Position,
    witness: Option<u32>,
}

/// A watch that has begun.
struct Following {
    progresses: Progresses,
    generation: Generation,
    /// The position that the generation has reached.
    reached: Position,
    /// All changes up to it are in `pending` and `ready`, or were returned.
    at: Place,
    /// The same for what was returned; `None` as long as the current state is not complete.
    told: Option<Place>,
    /// The rest of the current state, if it is a range.
    rest: Option<KeyRange>,
    /// Keys with the position of their last event. They are those of one page of events.
    pending: VecDeque<(String, Position)>,
    /// Documents that are read.
    ready: VecDeque<(String, Option<Bytes>, Position)>,
}

impl<P: Projection> Watch<P> {
    pub(crate) fn key(model: ReadModel<P>, key: String, since: Since) -> Result<Self, WatchError> {
        Self::new(model, Scope::Key(key), since)
    }

    pub(crate) fn range(model: ReadModel<P>, range: KeyRange, since: Since) -> Result<Self, WatchError> {
        Self::new(model, Scope::Range(range), since)
    }

    fn new(model: ReadModel<P>, scope: Scope, since: Since) -> Result<Self, WatchError> {
        let touched = model.touched.clone().ok_or(WatchError::Unregistered { projection: P::NAME })?;
        Ok(Self { model, touched, scope, since, following: None })
    }

    /// The next change. It waits until there is one.
    ///
    /// First come the documents as they are, or what has changed [since](Since) the caller knows. Then comes each document that an
    /// event touches, in its last state: several changes that follow each other fast are one.
    ///
    /// # Delivery
    /// Of each key the last state comes, and no earlier state after a later one. The same state may come twice. What an operator
    /// changes without an event (a dead letter that is handled again) comes with the next event of the key.
    ///
    /// A caller that does not ask keeps nothing waiting: at most the keys of one page of events and a megabyte of documents are kept
    /// for it (R17), and it continues from there.
    ///
    /// # Errors
    /// [`WatchError`]; after that, begin another watch. If another generation was promoted, no change of it is returned as if it
    /// belonged to the former one ([`WatchError::Replaced`], R12).
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Result<Change<P::Document>, WatchError> {
        let following = match self.following.take() {
            Some(following) => following,
            None => self.begin().await?,
        };
        let Self { model, touched, scope, .. } = self;
        let following = self.following.insert(following);
        loop {
            if let Some((key, document, position)) = following.ready.pop_front() {
                if following.ready.is_empty() && following.pending.is_empty() && following.rest.is_none() {
                    following.told = Some(following.at);
                }
                let document = document.map(|bytes| query::open::<P>(&key, &bytes)).transpose()?;
                let generation = following.generation.reader.id;
                let token =
                    following.told.map(|Place { position, witness }| ChangeToken { generation, position, witness });
                return Ok(Change { key, document, position, token });
            }
            following.advance(&*model.store, touched, scope).await?;
        }
    }

    async fn begin(&self) -> Result<Following, WatchError> {
        let mut progresses = Progresses::follow(&self.model.store, P::NAME);
        let serving = query::serving(&self.model, &mut progresses).await?;
        let Progress { generation, reached, .. } = serving;
        let place =
            async |position| Ok::<_, WatchError>(Place { position, witness: self.touched.witness(position).await? });
        let (at, told, rest) = match (self.since, &self.scope) {
            (Since::Now, Scope::Range(range)) => (place(reached).await?, None, Some(range.clone())),
            (Since::Now, Scope::Key(_)) => (place(reached).await?, None, None),
            (Since::Write(token), _) => {
                let at = place(token.0).await?;
                (at, Some(at), None)
            }
            (Since::Change(token), _) if token.generation == generation.reader.id => {
                if token.position > reached {
                    // The log ended later when that was told.
                    self.touched.forget();
                    return Err(WatchError::History { reached: token.position, end: reached });
                }
                let at = place(token.position).await?;
                if token.witness.is_some_and(|witness| at.witness != Some(witness)) {
                    self.touched.forget();
                    return Err(WatchError::OtherHistory { position: token.position });
                }
                (at, Some(at), None)
            }
            (Since::Change(_), _) => return Err(WatchError::Replaced { projection: P::NAME }),
        };
        let pending = match (self.since, &self.scope) {
            (Since::Now, Scope::Key(key)) => VecDeque::from([(key.clone(), reached)]),
            _ => VecDeque::new(),
        };
        Ok(Following { progresses, generation, reached, at, told, rest, pending, ready: VecDeque::new() })
    }
}

impl Following {
    /// Makes one step: reads documents, or events, or waits for some.
    async fn advance(&mut self, store: &dyn Documents, touched: &TouchedKeys, scope: &Scope) -> Result<(), WatchError> {
        if let Some(range) = self.rest.clone() {
            return self.read_state(store, range).await;
        }
        if !self.pending.is_empty() {
            return self.read_pending(store).await;
        }
        if self.at.position < self.reached {
            let page = touched.page(&self.generation.reader, self.at.position, self.reached).await?;
            let keys = page.keys.iter().filter(|(key, _)| scope.contains(key));
            self.pending.extend(keys.cloned());
            self.at = Place { position: page.to, witness: Some(page.witness) };
            if self.pending.is_empty() && self.told.is_some() {
                self.told = Some(self.at);
            }
            return Ok(());
        }
        let found = self.progresses.next().await.map_err(|cause| reads::failed(&cause))?;
        let Some(progress) = found.serving.as_ref().filter(|serving| serving.generation == self.generation) else {
            return Err(self.replaced());
        };
        if progress.reached < self.reached {
            touched.forget();
            return Err(WatchError::History { reached: self.reached, end: progress.reached });
        }
        self.reached = progress.reached;
        Ok(())
    }

    /// Reads the next page of the current state.
    async fn read_state(&mut self, store: &dyn Documents, range: KeyRange) -> Result<(), WatchError> {
        // One document more than wanted shows whether there is a next page.
        let served = store.scan(self.projection(), range.clone(), PAGE + 1).await.map_err(QueryError::from)?;
        let mut found = self.of_this(served)?;
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        self.rest = found.last().filter(|_| more).map(|(key, _)| range.after(key.clone()));
        if self.rest.is_none() && found.is_empty() {
            self.told = Some(self.at);
        }
        self.ready.extend(found.into_iter().map(|(key, document)| (key, Some(document), self.at.position)));
        Ok(())
    }

    /// Reads the documents under the first keys of `pending`.
    async fn read_pending(&mut self, store: &dyn Documents) -> Result<(), WatchError> {
        let keys: Vec<_> = self.pending.iter().take(PAGE).map(|(key, _)| key.clone()).collect();
        let loaded = if let [key] = &keys[..] {
            let served = store.get(self.projection(), key).await.map_err(QueryError::from)?;
            vec![self.of_this(served)?]
        } else {
            let loaded = store.load(&self.generation.reader, &keys, LOAD_BYTES).await.map_err(QueryError::from)?;
            // The documents of a generation that was replaced meanwhile may have been deleted already.
            let now = store.generations(self.projection()).await.map_err(QueryError::from)?;
            if now.serving.is_none_or(|serving| serving.generation != self.generation) {
                return Err(self.replaced());
            }
            loaded
        };
        let read = self.pending.drain(..loaded.len()).zip(loaded);
        self.ready.extend(read.map(|((key, position), document)| (key, document, position)));
        Ok(())
    }

    fn of_this<T>(&self, served: Option<Served<T>>) -> Result<T, WatchError> {
        served
            .filter(|served| served.generation == self.generation)
            .map(|served| served.found)
            .ok_or_else(|| self.replaced())
    }

    fn projection(&self) -> &'static str {
        self.progresses.projection()
    }

    fn replaced(&self) -> WatchError {
        WatchError::Replaced { projection: self.projection() }
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following")
            .field("generation", &self.generation)
            .field("at", &self.at.position)
            .finish_non_exhaustive()
    }
}
