//! Spans and log lines of one test, while other tests run in the same process.

use tracing::{
    Dispatch, Subscriber,
    subscriber::{self, DefaultGuard, NoSubscriber},
};

/// `subscriber` gets the spans and log lines of this thread until this is dropped.
#[derive(Debug)]
#[must_use = "a subscriber that is dropped gets nothing"]
pub struct Subscribed {
    _default: DefaultGuard,
    _second: Dispatch,
}

/// Makes `subscriber` the subscriber of this thread: a test sees what its own code reports, while other tests run beside it.
///
/// [`tracing::subscriber::set_default`] alone misses spans there. While there is one subscriber in the process, a place in the
/// code that another thread reaches first is judged by that thread's subscriber; if it has none, the place stays silent for all.
/// So there is a second subscriber, which takes nothing.
pub fn subscribe(subscriber: impl Subscriber + Send + Sync) -> Subscribed {
    Subscribed { _default: subscriber::set_default(subscriber), _second: Dispatch::new(NoSubscriber::default()) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tracing::{Span, info_span};

    use super::*;

    fn place() -> Span {
        info_span!("place")
    }

    /// Seen to fail with `set_default` alone, where this test runs by itself.
    #[test]
    fn a_place_that_another_thread_reached_first_is_seen() {
        let _subscribed = subscribe(tracing_subscriber::registry());
        thread::spawn(|| drop(place())).join().expect("no panic");
        assert!(!place().is_disabled());
    }
}
