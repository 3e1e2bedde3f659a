//! A client that executes its part of the plan, one operation after the other.

use std::sync::Arc;

use super::{
    content::{self, Basis, Origin},
    history::{Call, CallId, Outcome, Record},
    knowledge::Knowledge,
    operation::Operation,
    polls,
    sent::Sent,
    session::Session,
};

/// How often a client sends an append whose outcome it does not learn.
const MOST_SENDS: u32 = 4;

/// The attempt numbers of an append that is sent at once with others start at its number among them and grow in steps of
/// this.
const LINKS: u32 = 16;

#[derive(Debug)]
pub(super) struct Client {
    session: Arc<Session>,
    actor: u32,
    /// The next operation.
    pub(super) next: u32,
    /// What it knows of the log.
    knowledge: Knowledge,
    /// The appends that this client has sent.
    past: Vec<Past>,
    /// The appends that were in progress when its process was killed, and the next call of each.
    interrupted: Vec<(CallId, Past)>,
}

/// An append that was sent, and may be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Past {
    origin: Origin,
    bases: Vec<Basis>,
}

impl Client {
    /// A client that continues after `records`, its lines of the history.
    pub(super) fn resume<'a>(session: Arc<Session>, actor: u32, records: impl Iterator<Item = &'a Record>) -> Self {
        let mut client = Self {
            session,
            actor,
            next: 0,
            knowledge: Knowledge::default(),
            past: Vec::new(),
            interrupted: Vec::new(),
        };
        // The appends of the last operation that have not returned.
        let mut open: Vec<(CallId, Past)> = Vec::new();
        let mut attempts = 0;
        for record in records {
            match record {
                Record::Called { id, call, .. } => {
                    if client.next <= id.number {
                        client.next = id.number + 1;
                        open.clear();
                        attempts = 0;
                    }
                    attempts = attempts.max(id.attempt + 1);
                    let Some(past) = client.past_of(*id, call.sent()) else { continue };
                    if client.is_first(*id) {
                        client.remember(past.clone(), call.sent());
                    }
                    open.push((*id, past));
                }
                Record::Returned { id, .. } => open.retain(|(called, _)| called != id),
                _ => {}
            }
        }
        // The same append is sent again if any of its calls has not returned (R6).
        let step = attempts.next_multiple_of(LINKS);
        for (id, past) in open {
            if !client.interrupted.iter().any(|(_, known)| *known == past) {
                let link = u32::try_from(past.origin.link).unwrap_or(0);
                client.interrupted.push((CallId { attempt: step + link, ..id }, past));
            }
        }
        client
    }

    pub(super) async fn run(mut self) {
        for (id, past) in std::mem::take(&mut self.interrupted) {
            self.append(id, &past, 0, None).await;
        }
        let session = self.session.clone();
        while let Some(operation) =
            session.plan.clients.get(self.actor as usize).and_then(|all| all.get(self.next as usize))
        {
            self.step(self.next, operation).await;
            self.next += 1;
            session.recorder.add_done(session.process);
        }
    }

    async fn step(&mut self, number: u32, operation: &Operation) {
        let id = CallId { actor: self.actor, number, attempt: 0 };
        let store = self.actor as usize;
        match operation {
            Operation::Append { twice, drop_after, .. } => {
                let past = self.decide(Origin { actor: self.actor, number, link: 0 });
                if *twice {
                    self.twice(id, &past, *drop_after).await;
                } else {
                    self.append(id, &past, store, *drop_after).await;
                }
            }
            Operation::AtOnce { links, dropped } => self.at_once(id, links.len(), *dropped).await,
            Operation::Again { back, elsewhere, drop_after } => {
                if let Some(past) = self.past.iter().rev().nth(*back).cloned() {
                    self.append(id, &past, store + usize::from(*elsewhere), *drop_after).await;
                }
            }
            Operation::ReadStream { stream, back, limit, drop_after } => {
                let stream = self.session.plan.stream(*stream);
                let after = self.knowledge.version(&stream).saturating_sub(*back);
                self.read(id, Call::ReadStream { stream, after, limit: *limit }, *drop_after).await;
            }
            Operation::ReadMatching { look, limit } => {
                let after = self.knowledge.after(look);
                self.read(id, Call::ReadMatching { query: content::query(look), after, limit: *limit }, None).await;
            }
            Operation::Head => self.read(id, Call::Head, None).await,
            Operation::FindCommand { stream, key } => {
                let stream = self.session.plan.stream(*stream);
                self.read(id, Call::FindCommand { stream, key: content::key_name(*key) }, None).await;
            }
        }
    }

    /// Decides an append by what the client knows now.
    fn decide(&mut self, origin: Origin) -> Past {
        let session = self.session.clone();
        let drafts = content::drafts(&session.plan, origin).iter();
        let bases = drafts.map(|draft| self.knowledge.basis(&session.plan, origin, draft)).collect();
        let past = Past { origin, bases };
        let sent: Vec<Sent> =
            content::appends(&session.plan, origin, &past.bases).into_iter().map(|(_, sent)| sent).collect();
        self.remember(past.clone(), &sent);
        past
    }

    fn remember(&mut self, past: Past, sent: &[Sent]) {
        if sent.iter().all(|sent| sent.flaw.is_none()) {
            self.past.push(past);
        }
    }

    /// Sends an append as the call `id`, and again while its outcome is unknown.
    async fn append(&mut self, id: CallId, past: &Past, store: usize, drop_after: Option<u32>) {
        for again in 0..MOST_SENDS {
            // Each of several links has call numbers of its own.
            let id = CallId { attempt: id.attempt + again * LINKS, ..id };
            // Through another store than before, if there is one.
            let outcome = self.send(id, past, store + again as usize, drop_after).await;
            self.learn(past, &outcome);
            if !matches!(outcome, Outcome::Failed { .. }) {
                return;
            }
        }
    }

    async fn twice(&mut self, id: CallId, past: &Past, drop_after: Option<u32>) {
        let again = CallId { attempt: 1, ..id };
        let store = self.actor as usize;
        // Half of the pairs go through one store, the others through two.
        let other = store + (id.number as usize % 2);
        let (one, two) = tokio::join!(self.send(id, past, store, drop_after), self.send(again, past, other, None));
        self.learn(past, &one);
        self.learn(past, &two);
    }

    /// Sends all links at once, each decided as if those before it were written, as a cache of aggregates does.
    async fn at_once(&mut self, id: CallId, links: usize, dropped: Option<(usize, u32)>) {
        let mut chain: Vec<(CallId, Past)> = Vec::new();
        for link in 0..links {
            let origin = Origin { actor: self.actor, number: id.number, link };
            let past = self.decide(origin);
            let attempt = u32::try_from(link).unwrap_or(0);
            self.suppose(&past);
            chain.push((CallId { attempt, ..id }, past));
        }
        let store = self.actor as usize;
        let sends = chain.iter().enumerate().map(|(link, (id, past))| {
            let drop_after = dropped.filter(|(one, _)| *one == link).map(|(_, polls)| polls);
            self.send(*id, past, store, drop_after)
        });
        let outcomes = polls::all(sends).await;
        self.knowledge.forget_suppositions();
        for ((id, past), outcome) in chain.iter().zip(outcomes) {
            self.learn(past, &outcome);
            if matches!(outcome, Outcome::Failed { .. }) {
                self.append(CallId { attempt: id.attempt + LINKS, ..*id }, past, store + 1, None).await;
            }
        }
    }

    async fn send(&self, id: CallId, past: &Past, store: usize, drop_after: Option<u32>) -> Outcome {
        let appends = content::appends(&self.session.plan, past.origin, &past.bases);
        self.session.append(id, store, appends, drop_after).await
    }

    async fn read(&mut self, id: CallId, call: Call, drop_after: Option<u32>) {
        let outcome = self.session.read(id, self.actor as usize, call, drop_after).await;
        self.knowledge.learn(&[], &outcome);
    }

    /// The state that the next link of a chain expects.
    fn suppose(&mut self, past: &Past) {
        for (_, sent) in content::appends(&self.session.plan, past.origin, &past.bases) {
            self.knowledge.suppose(&sent);
        }
    }

    fn learn(&mut self, past: &Past, outcome: &Outcome) {
        let appends = content::appends(&self.session.plan, past.origin, &past.bases);
        let sent: Vec<Sent> = appends.into_iter().map(|(_, sent)| sent).collect();
        self.knowledge.learn(&sent, outcome);
    }

    /// The append that the call `id` of the history sent.
    fn past_of(&self, id: CallId, sent: &[Sent]) -> Option<Past> {
        let link = match self.operation(id.number)? {
            Operation::Append { .. } => 0,
            Operation::AtOnce { .. } => id.attempt as usize % LINKS as usize,
            Operation::Again { back, .. } => return self.past.iter().rev().nth(*back).cloned(),
            _ => return None,
        };
        let origin = Origin { actor: self.actor, number: id.number, link };
        Some(Past { origin, bases: sent.iter().map(Basis::of).collect() })
    }

    /// Whether it is the first call by which an append is sent.
    fn is_first(&self, id: CallId) -> bool {
        match self.operation(id.number) {
            Some(Operation::Append { .. }) => id.attempt == 0,
            Some(Operation::AtOnce { .. }) => id.attempt < LINKS,
            _ => false,
        }
    }

    fn operation(&self, number: u32) -> Option<&Operation> {
        self.session.plan.clients.get(self.actor as usize)?.get(number as usize)
    }
}
