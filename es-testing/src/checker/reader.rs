//! A reader that remembers one number.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    history::{Call, CallId, Outcome, Record, Seen},
    plan::mixed,
    session::{PATIENCE, Session},
};

/// The pause after a failed read, so that a server that is down is not called a thousand times. No result depends on it.
const BREATH: Duration = Duration::from_millis(5);

/// Pages of the reading at the end.
const LARGE_PAGE: usize = 1_000;

#[derive(Debug)]
pub(super) struct Reader {
    session: Arc<Session>,
    actor: u32,
    /// The calls that it has made.
    calls: u32,
    /// The last position that it has read.
    after: u64,
}

impl Reader {
    /// A reader that continues after `records`, its lines of the history.
    pub(super) fn resume<'a>(session: Arc<Session>, actor: u32, records: impl Iterator<Item = &'a Record>) -> Self {
        let mut reader = Self { session, actor, calls: 0, after: 0 };
        for record in records {
            match record {
                Record::Called { id, .. } => reader.calls = id.number + 1,
                Record::Returned { outcome: Outcome::Events(page), .. } => {
                    reader.after = page.last().map_or(reader.after, |event| event.position);
                }
                _ => {}
            }
        }
        reader
    }

    /// Follows the log until it has reached the position in `end`.
    pub(super) async fn follow(mut self, end: watch::Receiver<Option<u64>>) {
        let mut rng = fastrand::Rng::with_seed(mixed(self.session.plan.seed, u64::from(self.actor) << 32));
        while end.borrow().is_none_or(|end| self.after < end) {
            let id = self.next_call();
            let call = Call::WaitPast { after: self.after };
            let outcome = self.session.read_until(id, call, nothing_to_wait_for(end.clone(), self.after)).await;
            if matches!(outcome, Outcome::Failed { .. }) {
                tokio::time::sleep(BREATH).await;
            }
            // Sometimes it reads without having been woken.
            if outcome != Outcome::Woken && rng.bool() {
                continue;
            }
            let limit = 1 << rng.u32(1..9);
            if self.page(rng.usize(1..limit)).await.is_none() {
                return;
            }
        }
    }

    /// Reads the whole log.
    pub(super) async fn whole(mut self) -> Vec<Seen> {
        let mut log = Vec::new();
        while let Some(page) = self.page(LARGE_PAGE).await {
            let short = page.len() < LARGE_PAGE;
            log.extend(page);
            if short {
                break;
            }
        }
        log
    }

    /// The next page, as soon as a read succeeds; `None` when the reader cannot continue.
    async fn page(&mut self, limit: usize) -> Option<Vec<Seen>> {
        loop {
            let id = self.next_call();
            let call = Call::ReadLog { after: self.after, limit };
            match self.session.read(id, 0, call, None).await {
                Outcome::Events(page) => {
                    self.after = page.last().map_or(self.after, |event| event.position);
                    return Some(page);
                }
                Outcome::Failed { .. } => tokio::time::sleep(BREATH).await,
                _ => return None,
            }
        }
    }

    fn next_call(&mut self) -> CallId {
        self.calls += 1;
        CallId { actor: self.actor, number: self.calls - 1, attempt: 0 }
    }
}

/// Returns when it is known that the log ends at `after`. A reader that is not woken although the log has more is stuck.
async fn nothing_to_wait_for(mut end: watch::Receiver<Option<u64>>, after: u64) -> Outcome {
    let is_last = match end.wait_for(Option::is_some).await {
        Ok(end) => end.is_none_or(|end| end <= after),
        Err(_) => true,
    };
    if !is_last {
        tokio::time::sleep(PATIENCE).await;
        return Outcome::Stuck;
    }
    Outcome::Dropped
}
