//! How long to wait before the next attempt.

use std::time::Duration;

/// Pauses between attempts that grow with each failure, with full jitter.
///
/// The longest pause grows with each failure in a row, up to a limit. The pause itself is a random time up to the longest one, so
/// callers that failed at the same moment do not try again at the same moment.
///
/// ```
/// use std::time::Duration;
///
/// use es_core::Backoff;
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// assert_eq!(backoff.longest(1), Duration::from_millis(50));
/// assert_eq!(backoff.longest(3), Duration::from_millis(200));
/// assert_eq!(backoff.longest(100), Duration::from_secs(5));
/// assert!(backoff.pause(3) <= Duration::from_millis(200));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    growth: Growth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    Doubling,
    Linear,
}

impl Backoff {
    /// Pauses of up to `first` after the first failure, of up to twice as much after each further one, and never of more than
    /// `limit`.
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, growth: Growth::Doubling }
    }

    /// Pauses of up to `step` for each failure, and never of more than `limit`: for work that is cheap to repeat.
    pub const fn linear(step: Duration, limit: Duration) -> Self {
        Self { first: step, limit, growth: Growth::Linear }
    }

    /// How long to wait after `failures` attempts in a row that failed.
    pub fn pause(self, failures: u32) -> Duration {
        self.longest(failures).mul_f64(fastrand::f64())
    }

    /// The longest that [`pause`](Self::pause) returns. It is also how long to wait after `failures` looks without news, where
    /// callers that look at the same moment do no harm.
    pub fn longest(self, failures: u32) -> Duration {
        let times = match self.growth {
            Growth::Doubling => 2_u32.saturating_pow(failures.saturating_sub(1)),
            Growth::Linear => failures.max(1),
        };
        self.first.saturating_mul(times).min(self.limit)
    }
}

/// How long work must have gone on for the failures before it not to count any more.
const HELD: Duration = Duration::from_secs(30);

/// Failures in a row of work that is begun again after each.
#[derive(Debug, Default)]
pub(crate) struct Failures(u32);

impl Failures {
    /// Their number with the one that has now ended work which had gone on for `lasted`.
    pub(crate) fn add(&mut self, lasted: Duration) -> u32 {
        self.0 = if lasted > HELD { 1 } else { self.0.saturating_add(1) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_until_the_work_has_held_for_a_while() {
        let mut failures = Failures::default();
        let brief = Duration::from_secs(1);
        assert_eq!([brief, HELD, brief].map(|lasted| failures.add(lasted)), [1, 2, 3]);
        assert_eq!([HELD + brief, brief].map(|lasted| failures.add(lasted)), [1, 2]);
    }

    #[test]
    fn pauses_take_all_of_the_range_and_do_not_leave_it() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..1_000).map(|_| backoff.pause(2)).collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(200)));
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(40)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(160)));
        assert_eq!(backoff.longest(u32::MAX), Duration::from_secs(1));
        assert_eq!(backoff.longest(0), Duration::from_millis(100));
        let linear = Backoff::linear(Duration::from_millis(2), Duration::from_millis(32));
        assert_eq!(
            [0, 1, 3, 16, 17, u32::MAX].map(|failures| linear.longest(failures).as_millis()),
            [2, 2, 6, 32, 32, 32]
        );
    }
}
