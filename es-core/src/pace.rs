//! How often a process looks for what other processes have done.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause between two looks.
const LEAST: Duration = Duration::from_millis(2);

/// The longest one: ten looks a second are all that a quiet store costs.
const MOST: Duration = Duration::from_millis(100);

/// The part of a silence that a pause may take.
const SHARE: u32 = 50;

/// The times of the looks of a process: a pause takes a fiftieth of the time since the last news, but at least 2 ms and at most
/// 100 ms. So what happens five times a second is seen within 4 ms, and a silence of a few seconds costs little.
#[derive(Debug)]
pub(crate) struct Pace {
    looked: Option<Instant>,
    news: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { looked: None, news: Instant::now() }
    }
}

impl Pace {
    /// When it is time for the next look.
    pub(crate) fn next(&self) -> Instant {
        let Some(looked) = self.looked else { return self.news };
        looked + (looked.saturating_duration_since(self.news) / SHARE).clamp(LEAST, MOST)
    }

    /// When the next look may be at the earliest, if there is a reason for it.
    pub(crate) fn soonest(&self) -> Instant {
        self.looked.map_or(self.news, |looked| looked + LEAST)
    }

    /// A look has ended, and found `news` or not.
    pub(crate) fn has_looked(&mut self, news: bool) {
        let now = Instant::now();
        self.looked = Some(now);
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
        Pace { looked: Some(looked), news }.next() - looked
    }

    #[test]
    fn pauses_grow_with_the_silence() {
        let cases = [(0, 2), (50, 2), (200, 4), (1_000, 20), (5_000, 100), (3_600_000, 100)];
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
        assert_eq!(pace.next(), pace.soonest());
    }
}
