//! The four ways to write a batch, and which of them is tried first.

use es_core::{Position, Version};

use crate::write::{
    batch::Batch,
    known::{Known, Start},
};

/// How a batch is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WritePlan {
    /// Its events are large: they are written before the append lock is taken, and numbered under it.
    Large,
    /// Its only event goes after this position of the log and this version of its stream. If another event has either
    /// place, it is not written, and `All` is next.
    Next { after: Position, version: Version, is_plain: bool },
    /// It is written whole, each entry after its start. If one of them does not fit, none is written, and `Checked` is next.
    All(Vec<Start>),
    /// Each entry is checked by itself, and written if it fits.
    Checked,
}

/// How to write `batch`, by what the session knows. Most batches fit as they are, so that is tried first.
pub(crate) fn plan(known: &Known, batch: &Batch) -> WritePlan {
    if batch.has_large_events() {
        return WritePlan::Large;
    }
    let starts = || batch.entries().map(|entry| known.start(entry)).collect::<Option<Vec<_>>>();
    let Some(starts) = batch.is_plain().then(starts).flatten() else { return WritePlan::Checked };
    if batch.lone_event().is_some()
        && let Some(after) = known.undisturbed_head()
        && let [Start::Known(version)] = starts[..]
    {
        // That a stream exists already is nothing unusual, so its first event may be refused.
        return WritePlan::Next { after, version, is_plain: version > Version::ZERO && known.is_alone() };
    }
    WritePlan::All(starts)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use es_core::{Append, Condition, EventData, EventQuery, Expected, NewEvent, StreamId, Tag};

    use super::*;
    use crate::write::{
        fate::{Failed, Fate},
        known::Written,
        request::Request,
    };

    fn append(stream: &str, expected: Expected) -> Append {
        let data = EventData { name: "test.happened".into(), schema_version: 1, payload: "{}".into() };
        Append::new(StreamId::new("test", stream).unwrap(), expected, vec![NewEvent::new(data)])
    }

    fn exact(version: u64) -> Expected {
        Expected::Exact(Version::new(version))
    }

    fn tag() -> Tag {
        Tag::new("course:1").unwrap()
    }

    fn batch(appends: impl IntoIterator<Item = Append>) -> Batch {
        let mut batch = Batch::default();
        for append in appends {
            assert!(batch.offer(Request::of_one(append).unwrap()).is_ok());
        }
        batch
    }

    /// What a session knows that has written the events 1 to `events` of stream `a`, one by one, and of the log.
    fn known(events: u64) -> Known {
        let mut known = Known::nothing();
        for version in 0..events {
            let written =
                Written { before: Position::new(version), recorded_at: None, versions: vec![Version::new(version)] };
            known.learn(&batch([append("a", exact(version))]), &written);
        }
        known
    }

    fn plan_of(known: &Known, appends: impl IntoIterator<Item = Append>) -> WritePlan {
        plan(known, &batch(appends))
    }

    #[test]
    fn a_lone_event_goes_after_the_end_that_the_session_knows() {
        let next =
            |after, is_plain| WritePlan::Next { after: Position::new(after), version: Version::new(after), is_plain };
        assert_eq!(plan_of(&known(1), [append("a", exact(1))]), WritePlan::All(vec![Start::Known(Version::new(1))]));
        assert_eq!(plan_of(&known(2), [append("a", exact(2))]), next(2, false));
        assert_eq!(plan_of(&known(9), [append("a", exact(9))]), next(9, true));
        let new = WritePlan::Next { after: Position::new(9), version: Version::ZERO, is_plain: false };
        assert_eq!(plan_of(&known(9), [append("b", Expected::NoStream)]), new);

        let mut disturbed = known(9);
        disturbed.learn_disturbance();
        assert_eq!(plan_of(&disturbed, [append("a", exact(9))]), WritePlan::All(vec![Start::Known(Version::new(9))]));
    }

    #[test]
    fn what_the_session_does_not_know_is_checked_or_looked_up() {
        let known = known(9);
        let checked = |version| WritePlan::All(vec![Start::Checked(Version::new(version), None)]);
        assert_eq!(plan_of(&known, [append("a", exact(8))]), checked(8));
        assert_eq!(plan_of(&known, [append("b", exact(1))]), checked(1));
        let any = [append("a", Expected::Any), append("b", Expected::Any)];
        let starts = vec![Start::Known(Version::new(9)), Start::LookedUp];
        assert_eq!(plan_of(&known, any), WritePlan::All(starts));
        assert_eq!(plan_of(&known, [append("b", Expected::StreamExists)]), WritePlan::Checked);
    }

    #[test]
    fn r2_an_entry_that_needs_another_one_or_the_log_is_checked_by_itself() {
        let known = known(9);
        let mut tagged = append("a", exact(9));
        tagged.events[0].tags.push(tag());
        let on = |query| append("b", Expected::NoStream).on(Condition::new(query, Position::new(9)));
        let one = |version| WritePlan::All(vec![Start::Known(Version::new(version))]);
        assert_eq!(plan_of(&known, [tagged.clone()]), one(9));
        assert_eq!(plan_of(&known, [on(EventQuery::tagged([tag()]))]), one(0));
        assert_eq!(plan_of(&known, [tagged, on(EventQuery::tagged([tag()]))]), WritePlan::Checked);
        assert_eq!(plan_of(&known, [on(EventQuery::all())]), WritePlan::Checked);
        assert_eq!(plan_of(&known, [append("a", exact(9)), append("a", exact(9))]), WritePlan::Checked);
    }

    #[test]
    fn the_end_of_a_stream_to_which_others_write_is_checked() {
        let checked = WritePlan::All(vec![Start::Checked(Version::new(10), None)]);
        let fates = [
            Fate::Failed(Failed::Conflict { actual: Version::new(10) }),
            Fate::Written { version: Version::new(10), position: Position::new(12) },
        ];
        for (expected, fate) in [exact(9), Expected::Any].into_iter().zip(fates) {
            let mut known = known(9);
            known.learn_fates(&batch([append("a", expected)]), &[fate]);
            assert_eq!(plan_of(&known, [append("a", exact(10))]), checked);
            assert_eq!(plan_of(&known, [append("a", Expected::Any)]), WritePlan::All(vec![Start::LookedUp]));
        }
    }

    #[test]
    fn r17_large_events_are_written_before_the_lock() {
        let mut large = append("a", exact(9));
        let payload = format!("\"{}\"", "x".repeat(700_000));
        let data = EventData { name: "test.happened".into(), schema_version: 1, payload: payload.into() };
        large.events = vec![NewEvent::new(data.clone()), NewEvent::new(data)];
        assert_eq!(plan_of(&known(9), [large]), WritePlan::Large);
    }
}
