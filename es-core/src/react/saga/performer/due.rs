//! What is due, as the read model of the instances tells.

use std::{collections::BTreeMap, time::Duration};

use super::{LONGEST, OUT_OF_DATE, Performed, Performer, SHORTEST, WOKEN, lock};
use crate::{
    error::with_causes,
    react::saga::{
        Overview, Saga, SagaError,
        queue::{Attempts, Due},
        version::gaps,
    },
    read::{engine_error::EngineError, query::QueryError},
    telemetry,
    write::store::ReadError,
};

/// How many instances the read model is asked for at once.
const PAGE: usize = 500;
/// How many instances are named that are under a version that this code does not run.
const NAMED: usize = 20;

impl<S: Saga> Performer<S> {
    /// Refuses to perform while instances are under way that this code cannot go on with.
    pub(in crate::react::saga) async fn admit_versions(&self) -> Result<(), EngineError> {
        let mut instances = Vec::new();
        for gap in gaps::<S>() {
            let mut range = Overview::VERSION.range(i64::from(gap.start)..i64::from(gap.end));
            loop {
                let page = match self.overview.find(range.clone(), PAGE).await {
                    Ok(page) => page,
                    Err(QueryError::Store(error)) => return Err(error.into()),
                    // It is being built. An instance that is found later is left as it is.
                    Err(_) => return Ok(()),
                };
                for (id, _) in &page.documents {
                    let Ok(loaded) = self.instances.load(id).await else { continue };
                    if let Err(SagaError::UnknownVersion { version, .. }) = loaded.state.admit() {
                        instances.push(format!("{id} (version {version})"));
                    }
                }
                match page.next {
                    Some(next) if instances.len() < NAMED => range = range.resume(next),
                    _ => break,
                }
            }
        }
        instances.truncate(NAMED);
        if instances.is_empty() {
            return Ok(());
        }
        Err(EngineError::SagaVersions { saga: S::NAME, known: S::VERSIONS, instances })
    }

    /// Takes what is due from the read model, and returns how long to wait before the next time.
    pub(super) async fn look(&self) -> Duration {
        if self.queue.len() >= PAGE {
            return SHORTEST;
        }
        match self.due().await {
            Ok(pause) => pause,
            // It is not built yet: what happens meanwhile is heard of.
            Err(LookError::Query(QueryError::Building { .. })) => LONGEST,
            Err(error) => {
                tracing::warn!(saga = S::NAME, error = %with_causes(&error), "cannot look for what is due");
                2 * LONGEST
            }
        }
    }

    async fn due(&self) -> Result<Duration, LookError> {
        let now = self.log.now().await?;
        // What cannot be done now must not hide what is due after it.
        let begin = lock(&self.page).take();
        let range = Overview::DUE.range(..=now);
        let page =
            self.overview.find(begin.map_or_else(|| range.clone(), |begin| range.clone().resume(begin)), PAGE).await?;
        lock(&self.unreadable).retain(|_, since| since.elapsed() < OUT_OF_DATE);
        lock(&self.woken).retain(|_, at| at.elapsed() < WOKEN);
        for (id, overview) in &page.documents {
            let mut timers: Vec<_> = overview.timers.iter().filter(|(_, timer)| timer.due <= now).collect();
            timers.sort_by_key(|(_, timer)| timer.due);
            let woken = lock(&self.woken);
            timers.retain(|(_, timer)| !woken.contains_key(&(id.clone(), timer.number)));
            for (_, timer) in &timers {
                telemetry::sagas::timer_found(S::NAME, (now - timer.due).to_std().unwrap_or_default());
            }
            let timers: Vec<_> = timers.into_iter().map(|(name, timer)| (name.clone(), timer.number)).collect();
            drop(woken);
            let actions = overview.actions.iter().filter(|(_, action)| action.due <= now);
            let performed = self.performed();
            let is_free = |number: u64, attempts| {
                performed.get(&(id.clone(), number)).is_none_or(|performed| performed.leaves(attempts))
            };
            let attempts =
                actions.map(|(number, action)| (*number, Attempts { rounds: action.rounds, failed: action.attempts }));
            let actions: BTreeMap<_, _> = attempts.filter(|(number, attempts)| is_free(*number, *attempts)).collect();
            drop(performed);
            let is_readable = !lock(&self.unreadable).contains_key(id);
            let is_awaited = overview.asked_at.is_some() || overview.deferred > 0;
            if is_readable && (!timers.is_empty() || !actions.is_empty() || is_awaited) {
                self.queue.push(id, Due { since: None, timers, at: now, actions });
            }
        }
        self.performed().retain(|_, performed| match performed {
            Performed::Now => true,
            Performed::Told { at, .. } => at.elapsed() < OUT_OF_DATE,
        });
        if page.next.is_some() {
            *lock(&self.page) = page.next;
            return Ok(SHORTEST);
        }
        let next = self.overview.find(Overview::DUE.range(now..), 1).await?;
        let next = next.documents.first().and_then(|(_, overview)| overview.due());
        let pause = next.map(|due| (due - now).to_std().unwrap_or_default());
        Ok(pause.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST))
    }
}

/// Why it is not known what is due.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Read(#[from] ReadError),
}
