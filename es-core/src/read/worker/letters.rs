//! What a worker does about the acts of operators: it ends when the reader is paused, and handles dead letters again.

#[cfg(test)]
mod tests;

use tokio_util::sync::CancellationToken;

use super::{Course, Events, Handled, Worker, handle};
use crate::read::{
    engine_error::{EngineError, Location},
    failure::cause_of,
    read_model::{Changes, CommitError, DeadLetter, FailedLetter, Redemption, Shard},
};

impl Worker<'_> {
    /// Takes the acts of operators into account that the store has noticed since, and gives back the shards that others ask for.
    pub(super) async fn attend(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let news = self.held.values().filter(|held| held.lease.acts() > held.acts);
        let news: Vec<Shard> = news.map(|held| held.lease.shard.clone()).collect();
        for shard in news {
            self.settle(&shard).await?;
            self.learn(&shard, shutdown).await?;
        }
        self.give_back(shutdown).await
    }

    /// Learns which keys are parked, and what operators want.
    ///
    /// # Errors
    /// [`EngineError::Paused`], among others.
    pub(super) async fn learn(&mut self, shard: &Shard, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let Some(held) = self.held.get_mut(shard) else { return Ok(()) };
        let situation = match self.store.situation(&held.lease).await {
            Ok(situation) => situation,
            Err(CommitError::Fenced(_)) => {
                held.lease.hold().lose();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(pause) = situation.paused {
            return Err(EngineError::Paused(pause));
        }
        held.parked = situation.parked.into_iter().collect();
        held.letters = situation.letters;
        held.is_asked_for = situation.is_asked_for;
        held.acts = situation.acts;
        for key in situation.retries {
            self.redeem(shard, key, shutdown).await?;
        }
        Ok(())
    }

    /// Handles the letters under `key` again, in their order, until all are handled or one fails. What follows from them commits
    /// with their deletion, and no other event of the key is handled meanwhile (R19). A retry that a crash or a shutdown
    /// interrupts is found again when the shard is taken.
    async fn redeem(&mut self, shard: &Shard, key: String, shutdown: &CancellationToken) -> Result<(), EngineError> {
        // While the letter is looked for that makes a commit fail, fewer are handled at once.
        let (mut most, mut refused) = (usize::MAX, None);
        while let Some(held) = self.held.get_mut(shard) {
            let mut letters = self.store.letters(&held.lease, &key).await?;
            letters.truncate(most);
            let first = letters.first().map(|letter| letter.event.position);
            let refused_first = refused.take_if(|(position, _)| Some(*position) == first);
            let events: Vec<_> = letters.iter().map(DeadLetter::to_handle).collect();
            let handled = if events.is_empty() || refused_first.is_some() {
                Handled::default()
            } else {
                let (after, course, lease) = (held.lease.checkpoint.position, Course::only(&key), &held.lease);
                let changes = &|done: usize| {
                    let handled =
                        letters[..done].iter().map(|letter| (letter.event.position, letter.revision)).collect();
                    let redemption = Redemption { key: key.clone(), handled, failed: None, is_whole: false };
                    let checkpoint = lease.checkpoint.clone();
                    Changes { checkpoint, redemption: Some(redemption), ..Changes::default() }
                };
                let (batch, keeps_nothing, is_ahead) = (None, true, false);
                let events =
                    Events { list: &events, batch, shard, after, keeps_nothing, is_ahead, course, lease, changes };
                handle(self.handler, events, shutdown).await
            };
            if handled.is_committed {
                held.letters = held.letters.saturating_sub(handled.done);
                continue;
            }
            let failed = match (handled.failure, letters.get(handled.done)) {
                (None, first) => refused_first.zip(first).map(|((position, cause), first)| {
                    self.meter.failed(&first.event);
                    FailedLetter { position, revision: first.revision, cause }
                }),
                (Some(failure), Some(letter)) if failure.is_of_event() => {
                    self.meter.failed(&letter.event);
                    let (name, cause) = (&self.reader.name, cause_of(&failure));
                    let (position, revision) = (letter.event.position, letter.revision);
                    tracing::error!(name, key, %position, cause, "a dead letter failed again");
                    Some(FailedLetter { position, revision, cause })
                }
                // What was handled before it is committed first.
                (Some(_), _) if handled.done > 0 => None,
                (Some(failure), _) => return Err(failure),
            };
            if handled.done == 0 && failed.is_none() && !letters.is_empty() {
                if held.lease.is_lost() || shutdown.is_cancelled() {
                    return Ok(());
                }
                // Another worker has handled one of them meanwhile, which is known now.
                continue;
            }
            let is_whole = letters.is_empty();
            let is_over = is_whole || failed.is_some();
            let handled_letters = letters[..handled.done].iter();
            let handled_letters = handled_letters.map(|letter| (letter.event.position, letter.revision)).collect();
            let redemption = Redemption { key: key.clone(), handled: handled_letters, failed, is_whole };
            let changes = Changes {
                upserts: handled.upserts,
                deletes: handled.deletes,
                fields: handled.fields,
                checkpoint: held.lease.checkpoint.clone(),
                redemption: Some(redemption),
                inbox: handled.inbox,
                ..Changes::default()
            };
            match self.store.commit(&held.lease, changes).await {
                Ok(()) => {}
                // What an operator has changed meanwhile is read again.
                Err(CommitError::Edited(_)) => continue,
                Err(CommitError::Taken(_)) if handled.done > 1 => {
                    most = handled.done / 2;
                    continue;
                }
                Err(CommitError::Taken(taken)) => {
                    let Some(letter) = letters.first() else { continue };
                    let cause = cause_of(&EngineError::NotUnique { event: Location::of(&letter.event), taken });
                    refused = Some((letter.event.position, cause));
                    continue;
                }
                Err(CommitError::Fenced(_)) => {
                    held.lease.hold().lose();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            most = most.saturating_mul(2);
            held.letters = held.letters.saturating_sub(handled.done);
            if is_whole {
                held.parked.remove(&key);
            }
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }
}
