//! Reactions at the same time, where their order does not matter.

use std::{collections::HashMap, pin::Pin};

use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Policy, PolicyRunner};
use crate::{
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        foreign,
        panics::caught,
        read_model::Shard,
        worker::{Course, HANDLE_FOR},
    },
    telemetry::spans,
};

/// The outcomes of reactions, in the order of their events.
pub(super) type Lanes<'a> = Pin<Box<dyn Stream<Item = Result<Option<()>, EngineError>> + Send + 'a>>;

impl<P: Policy> PolicyRunner<P> {
    /// The outcomes of the reactions to those of `events` that are not parked, if it reacts to several at the same time.
    pub(super) fn lanes<'a>(
        &'a self,
        events: &'a [RecordedEvent],
        course: &'a Course<'_>,
        shard: &'a Shard,
        began: Instant,
        stop: &'a CancellationToken,
    ) -> Option<Lanes<'a>> {
        // What is known of the messages of another system changes with each of them.
        if self.concurrency == 1 || self.foreign.is_some() {
            return None;
        }
        let mut is_over = false;
        let first = events.iter().take_while(move |event| {
            let begins = !is_over;
            // What follows of a stream that is given up with this event waits until that is known.
            is_over = began.elapsed() >= HANDLE_FOR || course.gives_up == Some(event.position);
            begins
        });
        let is_parked = |event: &RecordedEvent| {
            !course.parked.is_empty()
                && course.parked.contains(&*foreign::parked_as(self.foreign, shard, event.stream.as_str()))
        };
        let read = first.filter(move |event| !is_parked(event)).map(|event| {
            let read = self.read(event);
            let lane = read.as_ref().ok().and_then(Option::as_ref).and_then(|read| caught(|| P::lane(read)).ok());
            (lane, (event, read))
        });
        let react = move |(event, read)| self.react(event, read, stop).instrument(spans::react(P::NAME, event));
        Some(Box::pin(in_lanes(read, self.concurrency, react)))
    }
}

/// The outcomes of `react` for each of `events`, in their order. Up to `most` are under way at the same time, those of one lane one after
/// the other; after one that is not `Ok(Some(()))` the rest of its lane is `Ok(None)`: not reacted to.
fn in_lanes<'a, E, R, F>(
    events: impl Iterator<Item = (Option<String>, E)> + Send + 'a,
    most: usize,
    react: impl Fn(E) -> F + Send + 'a,
) -> impl Stream<Item = Result<Option<()>, R>> + Send + 'a
where
    E: Send + 'a,
    R: Send + 'a,
    F: Future<Output = Result<Option<()>, R>> + Send + 'a,
{
    // Who comes next in a lane waits for the one before it.
    let mut last: HashMap<String, oneshot::Receiver<()>> = HashMap::new();
    let reactions = events.map(move |(lane, event)| {
        let (done, next) = oneshot::channel();
        let before = lane.and_then(|lane| last.insert(lane, next));
        let reaction = react(event);
        async move {
            if let Some(before) = before
                && before.await.is_err()
            {
                return Ok(None);
            }
            let reacted = reaction.await;
            if let Ok(Some(())) = reacted {
                // None may wait.
                _ = done.send(());
            }
            reacted
        }
    });
    stream::iter(reactions).buffered(most)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// What was reacted to, in the order of the ends, and the most at one time.
    async fn reacted(
        events: &[(&str, u32)],
        most: usize,
        fails: u32,
    ) -> (Vec<Result<Option<()>, u32>>, Vec<u32>, usize) {
        let (now, peak, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let with_lanes = events.iter().map(|(lane, event)| (Some((*lane).to_owned()), *event));
        let outcomes = in_lanes(with_lanes, most, |event| {
            let (now, peak, ended) = (&now, &peak, &ended);
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The first ones take longest.
                for _ in 0..(20 - event) {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                ended.lock().expect("it does not panic").push(event);
                if event == fails { Err(event) } else { Ok(Some(())) }
            }
        });
        let outcomes = outcomes.collect().await;
        (outcomes, ended.into_inner().expect("it does not panic"), peak.into_inner())
    }

    #[tokio::test]
    async fn lanes_are_under_way_at_the_same_time_and_each_goes_in_order() {
        let events = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5)];
        let (outcomes, ended, peak) = reacted(&events, 3, 0).await;
        assert_eq!(outcomes, [Ok(Some(())); 5]);
        assert!(peak > 1, "{peak}");
        let of_a: Vec<_> = ended.iter().filter(|event| **event % 2 == 1).copied().collect();
        assert_eq!(of_a, [1, 3, 5], "{ended:?}");
        assert_eq!(reacted(&events, 1, 0).await.1, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_of_its_lane_is_reacted_to() {
        let events = [("a", 1), ("a", 2), ("b", 3), ("a", 4)];
        let (outcomes, ended, _) = reacted(&events, 4, 1).await;
        assert_eq!(outcomes, [Err(1), Ok(None), Ok(Some(())), Ok(None)]);
        assert_eq!(ended, [3, 1]);
    }
}
