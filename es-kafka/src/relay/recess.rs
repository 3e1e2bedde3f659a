//! The pause between two transactions.

use std::time::{Duration, Instant};

const LONGEST: Duration = Duration::from_millis(8);
const SHORTEST: Duration = Duration::from_millis(1);
/// An answer that takes longer was probably put off by the client.
const LATE: Duration = Duration::from_millis(15);

/// How long after a commit the next transaction begins.
///
/// Brokers confirm a commit before they write the markers of its transaction, which takes them a few milliseconds. A client that sends
/// during that time is refused (`CONCURRENT_TRANSACTIONS`), and librdkafka tries again only after 20 ms. So the relay waits for the markers.
/// How long they take is learnt from the answers.
#[derive(Debug)]
pub(crate) struct Recess {
    pause: Duration,
    committed: Option<Instant>,
}

impl Recess {
    pub(crate) fn new() -> Self {
        Self { pause: 2 * SHORTEST, committed: None }
    }

    /// The pause begins.
    pub(crate) fn begin(&mut self) {
        self.committed = Some(Instant::now());
    }

    /// Returns when it is over.
    pub(crate) fn end(&mut self) {
        if let Some(committed) = self.committed.take() {
            std::thread::sleep(self.pause.saturating_sub(committed.elapsed()));
        }
    }

    /// Brokers have answered the first record of a transaction this long after all were sent.
    pub(crate) fn learn(&mut self, answered: Duration) {
        let pause = if answered > LATE { self.pause * 2 } else { self.pause * 49 / 50 };
        self.pause = pause.clamp(SHORTEST, LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_follows_what_markers_take() {
        let mut recess = Recess::new();
        let learn = |recess: &mut Recess, times, answered| (0..times).for_each(|_| recess.learn(answered));
        learn(&mut recess, 10, LATE + SHORTEST);
        assert_eq!(recess.pause, LONGEST);
        learn(&mut recess, 200, SHORTEST);
        assert_eq!(recess.pause, SHORTEST);
    }
}
