use super::*;
use crate::{
    memory::MemoryStore,
    read::{definition, engine_error::Location, projector::Projector},
    testing::{
        account::{AccountEvent, Histories, Ledger},
        recorded,
    },
};

fn projector<const V: u32>() -> Arc<dyn InlineModel> {
    let store = MemoryStore::new();
    Arc::new(Projector::new(Ledger::<V>::default(), LogSource::new(store.clone()), store))
}

fn state(id: i64, version: u32, reached: u64) -> InlineState {
    InlineState {
        reader: Reader { id, name: "ledger".to_owned() },
        version,
        definition: definition::of_projection::<Ledger<1>>(),
        fencing_token: 1,
        checkpoint: Some(Checkpoint { position: Position::new(reached), ..Checkpoint::default() }),
        is_detached: false,
    }
}

#[test]
fn models_are_there_as_long_as_they_are_registered() {
    let models = InlineModels::default();
    assert!(models.is_empty());
    let (one, same) = (models.register(projector::<1>()), models.register(projector::<1>()));
    let other = models.clone().register(projector::<2>());
    assert_eq!(models.names(), ["ledger"]);
    drop(one);
    assert!(models.of("ledger", 1).is_some() && models.of("ledger", 2).is_some());
    drop(same);
    assert!(models.of("ledger", 1).is_none() && !models.is_empty());
    drop(other);
    assert!(models.is_empty());
}

#[test]
fn r12_a_generation_of_another_version_is_left_to_the_processes_that_have_it() {
    let models = InlineModels::default();
    let _registered = (models.register(projector::<1>()), models.register(projector::<2>()));
    let states =
        vec![state(9, 2, 5), state(3, 1, 5), state(4, 3, 5), InlineState { is_detached: true, ..state(2, 1, 5) }];
    let due = models.due(states, Position::new(5)).expect("the same definition");
    let due: Vec<_> = due.iter().map(|(model, state)| (model.version(), state.reader.id)).collect();
    assert_eq!(due, [(1, 3), (2, 9)], "in the order in which their checkpoints are locked");
}

#[test]
fn r11_what_another_definition_has_folded_is_not_folded() {
    let models = InlineModels::default();
    let _registered = models.register(projector::<1>());
    let other = InlineState { definition: definition::of_projection::<Histories>(), ..state(3, 1, 5) };
    let Err(behind) = models.due(vec![other], Position::new(7)) else { panic!("it is folded") };
    assert!(!behind.may_pass());
    let error = AppendError::from(behind);
    assert!(!error.is_transient() && !error.is_unknown(), "{error:?}");
    assert_eq!(error.to_string(), "the inline read model ledger has reached position 5 of 7, so no event can be added");
}

#[test]
fn an_append_folds_a_thousand_events_beside_its_own() {
    assert_eq!([1, MOST_MISSING, MOST_MISSING + 1].map(InlineState::page), [1, 1_000, 1]);
    let missing =
        |state: &InlineState, head| state.missing("ledger", Position::new(head)).map_err(|behind| behind.may_pass());
    assert_eq!(missing(&state(1, 1, 5), 5), Ok(0));
    assert_eq!(missing(&state(1, 1, 5), 1_006), Ok(1_001));
    assert_eq!(missing(&state(1, 1, 5), 4), Err(true), "a log that was restored");
    let behind = state(1, 1, 5).missing("ledger", Position::new(4)).expect_err("a log that was restored");
    assert!(AppendError::from(behind).is_transient(), "its projector may catch up");
}

/// Whether the first `read` of two missing events are folded; otherwise, whether that may pass.
fn begun(models: &InlineModels, events: &[RecordedEvent], read: usize) -> Result<bool, bool> {
    let (model, head) = (projector::<1>(), Position::new(2));
    let begun = models.begin_missing(&model, &state(1, 1, 0), &events[..read], events.len(), head);
    begun.map(|fold| fold.is_some()).map_err(|behind| behind.may_pass())
}

#[test]
fn r4_missing_events_are_folded_before_an_append_and_fail_without_it() {
    let models = InlineModels::default();
    let deposited = || AccountEvent::Deposited { amount: 1 };
    let mut events = recorded([("a", deposited()), ("b", deposited())]);
    assert_eq!(begun(&models, &events, 2), Ok(true));
    assert_eq!(begun(&models, &events, 1), Err(true), "they are more than a page");
    assert_eq!(begun(&models, &events, 0), Err(true));
    events[0].data.payload = "[]".into();
    assert_eq!(begun(&models, &events, 2), Err(false));
    assert_eq!(begun(&models, &events, 1), Err(false), "its projector has stopped there");

    let event = Location::of(&events[1]);
    let too_large = || EngineError::TooLarge { event: event.clone(), documents: 2, bytes: 9, limit: 8 };
    let failed = |missing| {
        let failure = InlineFailure { projection: "ledger", position: None, reason: Box::new(too_large()) };
        let failed = models.missing_failed(failure, &state(1, 1, 0), missing, Position::new(2));
        failed.map_err(|behind| behind.may_pass())
    };
    assert_eq!(failed(2), Err(true), "the projector makes several commits");
    assert_eq!(failed(1), Err(false));
}

#[test]
fn r12_what_only_newer_code_can_fold_is_left_out_until_it_is_past() {
    let models = InlineModels::default();
    let _registered = models.register(projector::<1>());
    let deposited = || AccountEvent::Deposited { amount: 1 };
    let mut events = recorded([("a", deposited()), ("b", deposited())]);
    events[1].data.name = "account.frozen".into();
    let due =
        |id, reached| models.due(vec![state(id, 1, reached)], Position::new(2)).expect("the same definition").len();
    assert_eq!((due(1, 0), due(7, 0)), (1, 1));
    assert_eq!(begun(&models, &events, 2), Ok(false));
    assert_eq!((due(7, 0), due(1, 0), due(1, 1)), (1, 0, 0));
    assert_eq!((due(1, 2), due(1, 0)), (1, 1), "it is past, and asked again");
}

#[test]
fn r13_a_generation_that_does_not_follow_the_log_is_left_to_its_projector() {
    let models = InlineModels::default();
    let _registered = models.register(projector::<1>());
    let from_kafka = InlineState { checkpoint: None, ..state(1, 1, 5) };
    assert!(models.due(vec![from_kafka], Position::new(5)).expect("the same definition").is_empty());
}

/// A fold that knows whether it was told of its commit.
struct Told(Arc<AtomicBool>);

impl InlineFold for Told {
    fn missing(&self) -> &[String] {
        &[]
    }

    fn budget(&self) -> usize {
        0
    }

    fn fold(&mut self, _: Vec<Option<Bytes>>) -> Result<Changes, InlineFailure> {
        Ok(Changes::default())
    }

    fn refused(&self, taken: Taken) -> InlineFailure {
        panic!("{taken:?}")
    }

    fn committed(self: Box<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Otherwise each append would load the documents of the one before it.
#[test]
fn a_fold_is_told_that_it_is_committed() {
    let told = Arc::new(AtomicBool::new(false));
    Inline::default().committed(vec![("ledger", Box::new(Told(told.clone())))]);
    assert!(told.load(Ordering::Relaxed));
}
