//! How far the log has come, as a process knows.

use tokio::sync::watch;

use crate::stream::Position;

/// The last position that a store knows of in this process. Clones share it.
///
/// It may know more than the log holds when a failover or a restore has lost the tail, until the log is read again.
#[derive(Debug, Clone, Default)]
pub struct KnownHead(watch::Sender<Position>);

impl KnownHead {
    /// It begins at `position`.
    pub fn new(position: Position) -> Self {
        Self(watch::Sender::new(position))
    }

    /// What is known without asking.
    pub fn get(&self) -> Position {
        *self.0.borrow()
    }

    /// The log has come to `position`, or further.
    pub fn raise(&self, position: Position) {
        self.0.send_if_modified(|head| {
            let is_news = position > *head;
            *head = position.max(*head);
            is_news
        });
    }

    /// The log ended at `end` when it was read, and `before` was known when that was asked. If that shows that the tail of the log
    /// is lost, the head falls to `end`; returns whether it does.
    ///
    /// A task that has raised it meanwhile knows better. One that has raised it to this very number again, after another task had
    /// lowered it, raises it once more with the next read.
    pub fn lower(&self, before: Position, end: Position) -> bool {
        self.0.send_if_modified(|head| {
            let is_lost = end < before && *head == before;
            if is_lost {
                *head = end;
            }
            is_lost
        })
    }

    /// Returns when the log is known to have come past `after`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn past(&self, after: Position) {
        // It fails only if there is no sender.
        let _ = self.0.subscribe().wait_for(|head| *head > after).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_a_look_at_the_log_does_not_take_back_what_was_appended_meanwhile() {
        let [three, five, six] = [3, 5, 6].map(Position::new);
        let head = KnownHead::new(six);
        assert!(!head.lower(five, three), "an append has raised it since");
        assert!(!head.lower(six, six), "nothing is lost");
        head.raise(five);
        assert_eq!(head.get(), six);
        assert!(head.lower(six, three));
        assert_eq!(head.get(), three);
    }

    #[tokio::test]
    async fn waiters_are_woken_by_a_higher_head_only() {
        let head = KnownHead::new(Position::new(3));
        head.past(Position::new(2)).await;
        let mut past = std::pin::pin!(head.past(Position::new(3)));
        head.raise(Position::new(3));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut past).await.is_err());
        head.clone().raise(Position::new(4));
        past.await;
    }

    #[test]
    fn what_is_known_is_no_news() {
        let head = KnownHead::new(Position::new(3));
        let watcher = head.0.subscribe();
        head.raise(Position::new(3));
        assert!(!watcher.has_changed().expect("the head lives"));
        head.raise(Position::new(4));
        assert!(watcher.has_changed().expect("the head lives"));
    }
}
