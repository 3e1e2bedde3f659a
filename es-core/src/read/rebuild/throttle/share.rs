//! Which part of the time a rebuild may work, by how long appends take.

use std::{collections::VecDeque, time::Duration};

/// The part of the time that a rebuild gets in any case, so that it always goes on.
const LEAST: f64 = 0.05;

/// With which part it begins: what it does to appends is not known yet.
const FIRST: f64 = 0.25;

/// What it gets more after a sample that was fast throughout.
const STEP: f64 = 0.1;

/// How many probes are a sample. One of them may take longer than the limit: that is what its 99th percentile means.
const SAMPLE: usize = 100;

/// The part of the time for a rebuild: half as much as soon as two probes of a sample took too long, and a step more after a
/// sample in which none did.
#[derive(Debug)]
pub(super) struct Share {
    limit: Duration,
    now: f64,
    /// Of the sample that is being taken.
    probes: usize,
    late: usize,
    /// How long the last probes took, at most [`SAMPLE`].
    last: VecDeque<Duration>,
}

impl Share {
    pub(super) fn keeping(limit: Duration) -> Self {
        Self { limit, now: FIRST, probes: 0, late: 0, last: VecDeque::with_capacity(SAMPLE) }
    }

    pub(super) fn now(&self) -> f64 {
        self.now
    }

    /// A probe took so long.
    pub(super) fn note(&mut self, took: Duration) {
        self.last.truncate(SAMPLE - 1);
        self.last.push_front(took);
        self.probes += 1;
        self.late += usize::from(took > self.limit);
        if self.late > 1 {
            self.now = (self.now / 2.0).max(LEAST);
        } else if self.probes < SAMPLE {
            return;
        } else if self.late == 0 {
            self.now = (self.now + STEP).min(1.0);
        }
        (self.probes, self.late) = (0, 0);
    }

    /// The 99th percentile of the last probes: the longest, but for one of a hundred. `None` until there are a hundred.
    pub(super) fn p99(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        (sorted.len() == SAMPLE).then(|| sorted[SAMPLE - 2])
    }

    /// The pause that is due after so much `work`.
    pub(super) fn pause_after(&self, work: Duration) -> Duration {
        work.mul_f64(1.0 / self.now - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(2);
    const SLOW: Duration = Duration::from_millis(9);

    fn share() -> Share {
        Share::keeping(Duration::from_millis(5))
    }

    fn noted(share: &mut Share, probes: impl IntoIterator<Item = Duration>) -> f64 {
        probes.into_iter().for_each(|took| share.note(took));
        share.now()
    }

    fn is(share: f64, expected: f64) {
        assert!((share - expected).abs() < 1e-9, "{share} and not {expected}");
    }

    #[test]
    fn it_grows_by_a_step_after_each_fast_sample_up_to_all_of_the_time() {
        let mut share = share();
        is(noted(&mut share, [FAST; SAMPLE - 1]), FIRST);
        is(noted(&mut share, [FAST]), FIRST + STEP);
        is(noted(&mut share, vec![FAST; SAMPLE * 20]), 1.0);
        assert_eq!(share.pause_after(SLOW), Duration::ZERO);
    }

    #[test]
    fn a_probe_that_takes_as_long_as_the_limit_is_in_time() {
        let mut share = share();
        is(noted(&mut share, [Duration::from_millis(5); SAMPLE]), FIRST + STEP);
    }

    #[test]
    fn it_is_halved_at_once_when_two_of_a_hundred_probes_take_too_long() {
        let mut share = share();
        share.now = 1.0;
        is(noted(&mut share, [SLOW]), 1.0);
        is(noted(&mut share, [FAST; SAMPLE - 2]), 1.0);
        is(noted(&mut share, [SLOW]), 0.5);
        is(noted(&mut share, [SLOW]), 0.5);
        is(noted(&mut share, [SLOW]), 0.25);
    }

    #[test]
    fn it_stays_where_one_probe_of_a_hundred_takes_too_long() {
        let mut share = share();
        for _ in 0..10 {
            is(noted(&mut share, [SLOW]), FIRST);
            is(noted(&mut share, [FAST; SAMPLE - 1]), FIRST);
        }
    }

    #[test]
    fn a_rebuild_goes_on_however_long_appends_take() {
        let mut share = share();
        is(noted(&mut share, vec![SLOW; SAMPLE * 10]), LEAST);
        assert_eq!(share.pause_after(Duration::from_millis(100)), Duration::from_millis(1_900));
        // And it recovers.
        is(noted(&mut share, vec![FAST; SAMPLE * 2]), LEAST + 2.0 * STEP);
    }

    #[test]
    fn the_percentile_is_of_the_last_hundred_probes() {
        let mut share = share();
        noted(&mut share, [SLOW; SAMPLE - 1]);
        assert_eq!(share.p99(), None);
        noted(&mut share, [SLOW]);
        assert_eq!(share.p99(), Some(SLOW));
        noted(&mut share, [FAST; SAMPLE - 2]);
        assert_eq!(share.p99(), Some(SLOW), "two of them are slow");
        noted(&mut share, [FAST]);
        assert_eq!(share.p99(), Some(FAST));
    }
}
