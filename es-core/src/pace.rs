//! How often a process looks for what other processes have done.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause between two looks.
const LEAST: Duration = Duration::from_millis(2);

/// The longest one: three looks a second are all that a quiet store costs.
const MOST: Duration = Duration::from_millis(400);

/// The part of a silence that a pause may take.
const SHARE: u32 = 100;

/// The times of the looks of a process: a pause takes a hundredth of the time since the last news, but at least 2 ms and at most
/// 400 ms. So what happens five times a second is seen within 2 ms, and a long silence costs little.
#[derive(Debug)]
pub(crate) struct Pace {
    looked: Option<Instant>,
    /// The look before the last one.
    before: Option<Instant>,
    news: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { looked: None, before: None, news: Instant::now() }
    }
}

impl Pace {
    /// When it is time for the next look.
    pub(crate) fn next(&self) -> Instant {
        let Some(looked) = self.looked else { return self.news };
        looked + (looked.saturating_duration_since(self.news) / SHARE).clamp(LEAST, MOST)
    }

    /// When the next look may be at the earliest, if there is a reason for it: after 2 ms, or at once where the last pause was a
    /// longer one. So reasons that come often cause one look in 2 ms, and one that comes alone waits for nothing.
    pub(crate) fn soonest(&self) -> Instant {
        let Some(looked) = self.looked else { return self.news };
        self.before.map_or(looked, |before| (before + 2 * LEAST).clamp(looked, looked + LEAST))
    }

    /// A look has ended, and found `news` or not.
    pub(crate) fn has_looked(&mut self, news: bool) {
        let now = Instant::now();
        (self.before, self.looked) = (self.looked, Some(now));
        if news {
            self.news = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause after a look that has ended `after` the last news.
    fn pause(after: Duration) -> Duration {
        let news = Instant::now();
        let looked = news + after;
        Pace { looked: Some(looked), before: None, news }.next() - looked
    }

    #[test]
    fn pauses_grow_with_the_silence() {
        let cases = [(0, 2), (50, 2), (200, 2), (300, 3), (1_000, 10), (10_000, 100), (3_600_000, 400)];
        for (after, expected) in cases {
            assert_eq!(pause(Duration::from_millis(after)), Duration::from_millis(expected), "{after} ms");
        }
    }

    #[test]
    fn the_first_look_waits_for_nothing_and_news_make_the_next_pause_short() {
        let mut pace = Pace::default();
        assert!(pace.next() <= Instant::now());
        pace.news = Instant::now().checked_sub(Duration::from_mins(1)).unwrap_or_else(Instant::now);
        pace.has_looked(true);
        assert_eq!(pace.next() - pace.looked.expect("it has looked"), LEAST);
    }

    #[test]
    fn a_reason_that_comes_alone_waits_for_nothing_and_reasons_that_come_often_cause_one_look_in_two_milliseconds() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let soonest = |before: Option<u64>, looked: u64| {
            let pace = Pace { looked: Some(after(looked)), before: before.map(after), news: begun };
            pace.soonest() - begun
        };
        assert_eq!(soonest(None, 10), Duration::from_millis(10), "the first reason");
        assert_eq!(soonest(Some(0), 10), Duration::from_millis(10), "after a long pause");
        assert_eq!(soonest(Some(8), 10), Duration::from_millis(12), "after a short one");
        assert_eq!(soonest(Some(10), 10), Duration::from_millis(12), "after none");
    }
}
