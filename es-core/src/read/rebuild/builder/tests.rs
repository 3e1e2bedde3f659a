use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use super::Builder;
use crate::{
    FailurePolicy, Field, Fields, FoldResult, Keys, MemoryStore, Projection, ReadModel, Recorded, Repository,
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        projector::Projector,
        read_model::{GenerationState, Generations, Reader},
        samples::Texts,
        scripted::Watched,
        source::LogSource,
        worker::{Course, Events, Handled, Handler},
    },
    stream::Position,
    testing::{
        account::{Account, AccountCommand, AccountEvent},
        recorded,
    },
};

/// Commits have 1,000 bytes, and memory holds 8,000.
async fn made() -> (Projector<Texts>, Reader, Watched) {
    let store = Watched::default();
    let generation =
        store.ensure_generation("texts", 1, GenerationState::Building, "projection", &[]).await.expect("made");
    let reader = generation.reader;
    let projector = Projector::new(Texts, LogSource::new(store.memory.clone()), store.clone()).document_bytes(1_000);
    (projector, reader, store)
}

fn texts<const N: usize>(texts: [(&'static str, u64); N]) -> Vec<RecordedEvent> {
    recorded(texts.map(|(id, amount)| (id, AccountEvent::Deposited { amount })))
}

/// The last events of the source.
fn end(events: &[RecordedEvent]) -> Events<'_> {
    Events { keeps_nothing: true, ..Events::of_log(events) }
}

async fn built(builder: &Builder<'_, Texts>, reader: &Reader, events: Events<'_>) -> Handled {
    builder.handle(reader, events, &CancellationToken::new()).await
}

#[tokio::test]
async fn documents_stay_in_memory_until_they_fill_a_commit_or_the_source_ends() {
    let (projector, reader, store) = made().await;
    let builder = Builder::new(&projector);
    let small = texts([("a", 10), ("b", 10)]);
    let events = Events { keeps_nothing: false, ..Events::of_log(&small) };
    let handled = built(&builder, &reader, events).await;
    assert_eq!((handled.done, handled.kept, handled.upserts.len()), (2, true, 0));
    assert_eq!(projector.report.building(), Some(Position::new(2)), "before it is committed");
    let large = texts([("c", 5_000)]);
    let after = Position::new(2);
    let handled = built(&builder, &reader, Events { keeps_nothing: false, after, ..Events::of_log(&large) }).await;
    assert_eq!((handled.done, handled.kept, handled.upserts.len()), (1, false, 3));
    let end = Events { keeps_nothing: true, after, ..Events::of_log(&small) };
    let handled = built(&builder, &reader, end).await;
    assert_eq!((handled.done, handled.kept, handled.upserts.len()), (2, false, 2));
    assert_eq!(store.asked(), 0, "the store has no others");
}

#[tokio::test]
async fn r16_a_builder_that_is_told_to_stop_folds_no_more() {
    let (projector, reader, _) = made().await;
    let (builder, events, stop) = (Builder::new(&projector), texts([("a", 10)]), CancellationToken::new());
    stop.cancel();
    assert_eq!(builder.handle(&reader, Events::of_log(&events), &stop).await.done, 0);
}

#[tokio::test]
async fn r17_documents_that_are_too_many_for_memory_are_read_again() {
    let (projector, reader, store) = made().await;
    let builder = Builder::new(&projector);
    built(&builder, &reader, end(&texts([("a", 10)]))).await;
    built(&builder, &reader, end(&texts([("a", 20)]))).await;
    assert_eq!(store.asked(), 0, "it is kept");
    built(&builder, &reader, end(&texts([("a", 2_600), ("b", 2_600), ("c", 2_600)]))).await;
    built(&builder, &reader, end(&texts([("a", 20)]))).await;
    assert_eq!(store.asked(), 1);
    // So it is with the documents of a shard that another worker had meanwhile.
    let builder = Builder::new(&projector);
    built(&builder, &reader, end(&texts([("a", 10)]))).await;
    builder.forget(end(&[]).shard);
    built(&builder, &reader, Events { after: Position::new(1), ..end(&texts([("a", 10)])) }).await;
    assert_eq!(store.asked(), 2);
}

#[tokio::test]
async fn a_builder_gives_up_at_what_does_not_fit_and_not_at_a_store_that_fails() {
    let (projector, reader, store) = made().await;
    store.has(&reader, [("a", 8_000), ("b", 10)]).await;
    let events = texts([("a", 1), ("b", 1)]);
    let events = Events { after: Position::new(1), ..Events::of_log(&events) };
    let builder = Builder::new(&projector);
    let handled = built(&builder, &reader, events).await;
    assert!(matches!(handled.failure, Some(EngineError::TooLarge { documents: 2, .. })), "{handled:?}");
    assert!(builder.has_given_up());
    let builder = Builder::new(&projector);
    let one = texts([("b", 1)]);
    let handled = built(&builder, &reader, Events { list: &one, ..events }).await;
    assert_eq!((handled.done, handled.failure.is_none()), (1, true));
    store.breaks();
    let builder = Builder::new(&projector);
    let handled = built(&builder, &reader, events).await;
    assert!(matches!(handled.failure, Some(EngineError::Store(_))), "{handled:?}");
    assert!(!builder.has_given_up(), "its own handler would not do better");
}

#[tokio::test]
async fn a_builder_leaves_parked_keys_and_their_letters_to_the_other_handler() {
    let (projector, reader, _) = made().await;
    let (events, parked) = (texts([("a", 1)]), HashSet::from(["a".to_owned()]));
    let with_parked = Course { parked: &parked, ..Course::default() };
    for course in [with_parked, Course::only("a")] {
        let builder = Builder::new(&projector);
        let handled = built(&builder, &reader, Events { course, ..Events::of_log(&events) }).await;
        assert!(matches!(handled.failure, Some(EngineError::ParkedKeys(_))), "{handled:?}");
        assert!(handled.done == 0 && builder.has_given_up());
    }
}

/// The value of its field cannot be told for every document.
struct Cursed;

const CURSE: Field<u64, i64> = Field::new("curse", |amount| {
    assert!(*amount != 666, "cursed");
    Some(1)
});

impl Projection for Cursed {
    const NAME: &'static str = "cursed";
    const FIELDS: Fields<u64> = &[&CURSE];
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, last: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        *last = Some(amount);
        Ok(())
    }
}

/// Code of the application that panics while documents are written is a failure of one of the events, as in the projector. (Seen to
/// fail: the panic ended the reader, whatever its failure policy.)
#[tokio::test]
async fn r19_a_panic_while_a_build_is_written_is_left_to_the_failure_policy() {
    let store = MemoryStore::new();
    let repository = Repository::<Account>::new(store.clone());
    for (id, amount) in [("a", 1), ("b", 666), ("c", 1)] {
        repository.execute(id, AccountCommand::Deposit(amount)).await.expect("executed");
    }
    let projector = Projector::new(Cursed, LogSource::new(store.clone()), store.clone());
    let projector = projector.on_failure(FailurePolicy::park());
    projector.rebuild(CancellationToken::new()).await.expect("built").expect("no shutdown");
    let found = ReadModel::<Cursed>::new(store).find(CURSE.is(1), 10).await.expect("it serves");
    assert_eq!(found.documents, [("a".to_owned(), 1), ("c".to_owned(), 1)]);
}
