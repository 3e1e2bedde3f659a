//! Services, on every store.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use es_core::{
    Act, EngineError, Policy, PolicyError, Position, Projection, Recorded, Repository, Service, ServiceBuilder,
    ServiceStore, Since,
    backend::GenerationState,
    reaction,
    service::{PartState, Parts, Unsettled},
    testing::account::{Account, AccountCommand, AccountEvent, Histories, Ledger},
};

use super::{
    engines_failures::{eventually, unreadable},
    engines_project::PATIENCE,
};

/// Tests services on a store: `service_suite!(async { … })` with an expression that makes an empty store which
/// implements [`ServiceStore`] and `Clone`.
#[macro_export]
macro_rules! service_suite {
    ($make:expr) => {
        $crate::__suite! { service, $make,
            r13_a_service_shows_what_its_commands_have_written
            r13_a_service_has_not_settled_where_other_definitions_keep_its_readers
            r16_a_service_ends_in_good_order_under_load
            r9_services_on_one_store_share_the_work_and_one_takes_over
            r22_a_reader_that_has_stopped_continues_when_the_event_is_skipped
            r22_a_watch_passes_an_event_that_an_operator_has_skipped
        }
        $crate::__suite! { sagas, $make,
            r20_a_saga_performs_its_actions_one_after_the_other_and_completes
            r20_a_refusal_is_an_answer_and_what_was_done_is_taken_back
            r20_an_action_that_fails_for_now_is_attempted_again_and_done_once
            r20_r22_after_its_last_attempt_a_saga_has_failed_and_goes_on_when_an_operator_says_so
            r20_a_timer_wakes_its_saga_and_those_of_a_saga_that_has_ended_are_gone
            r20_r22_an_instance_does_what_its_stream_tells_that_an_operator_has_asked_for
            r20_code_that_lacks_the_version_of_an_instance_refuses_and_code_that_migrates_it_goes_on
            r20_what_a_process_has_left_behind_is_done_by_the_next_one
            r20_what_was_done_before_a_process_was_killed_takes_effect_once
            r20_services_that_come_and_go_leave_no_saga_unfinished
        }
        $crate::__suite! { commands, $make,
            r6_a_command_that_is_delivered_again_is_executed_once_and_answered_the_same
            r6_a_refusal_that_was_answered_stays_a_refusal
            r6_a_command_that_had_nothing_to_do_does_nothing_later
            r20_a_command_whose_deadline_has_passed_is_not_executed
            r11_r14_what_is_no_command_of_this_service_is_a_permanent_failure
            commands_to_aggregates_of_the_same_store_are_executed_there
        }
        $crate::__suite! { schedules, $make,
            r20_what_an_application_or_a_policy_has_planned_is_done_at_its_time_and_once
            r20_a_plan_outlives_its_process_and_is_cancelled
        }
        $crate::__suite! { inline, $make,
            r13_a_read_after_the_receipt_sees_the_write_without_waiting
            r9_inline_documents_are_the_fold_of_the_log
            r1_r4_an_append_that_cannot_be_folded_fails_alone
            r4_what_builds_on_an_append_that_cannot_be_folded_is_a_conflict
            r11_an_append_that_gives_a_taken_value_is_refused
            r12_inline_read_models_are_rebuilt_beside_appends
            r9_what_was_appended_without_the_read_model_is_folded_later
            r9_an_ordinary_projector_beside_appends_folds_nothing_twice
            r11_r22_appends_are_refused_while_the_projector_has_stopped
            r22_a_paused_read_model_is_left_out_of_appends
            r13_a_read_model_that_had_several_shards_is_folded_with_appends
            r13_a_read_model_that_was_rebuilt_from_another_source_is_folded_with_appends
            r22_a_read_model_of_another_source_is_left_out_of_appends_while_it_is_paused
            r6_a_retry_gets_its_first_outcome_while_appends_are_refused
            r2_a_conflict_is_told_while_appends_are_refused
            r12_an_event_of_newer_code_does_not_stop_the_appends_of_older_code
            r4_an_append_is_not_blamed_for_the_documents_of_missing_events
            r4_an_append_is_not_blamed_for_a_value_that_missing_events_have_taken
        }
        $crate::__suite! { live, $make,
            r3_a_live_document_is_not_folded_from_two_histories
            r9_a_live_document_of_several_streams_is_at_each_read_the_fold_of_the_log
            r9_a_live_read_of_several_streams_is_of_one_moment
            r13_a_live_read_sees_all_that_was_written_before_it
            r14_a_live_read_names_the_event_that_fails
            a_live_document_is_folded_up_to_a_moment
        }
        $crate::__suite! { refold_shards, $make,
            r9_a_verification_of_shards_that_are_apart_finds_nothing
            r19_what_a_shard_behind_has_not_parked_yet_fails_no_verification
        }
        $crate::__suite! { refold_fields, $make,
            r9_what_is_stored_is_told_with_its_fields
            r9_r22_values_that_are_not_those_of_the_document_are_found_and_mended
            r11_a_value_that_would_be_taken_twice_hinders_a_document
        }
        $crate::__suite! { refold, $make,
            r9_a_verification_finds_each_document_that_is_not_the_fold_of_the_log
            r9_a_verification_beside_writers_finds_nothing
            a_sample_is_a_part_of_all_documents
            r19_r22_what_is_folded_again_is_treated_as_the_projector_treats_it
            r22_what_was_skipped_is_left_out_when_it_is_folded_again
            r22_documents_that_differ_are_mended_and_each_is_recorded
            r22_only_the_read_model_that_is_named_is_mended
            r22_documents_of_several_shards_are_mended
            r22_mending_beside_writers_loses_and_repeats_nothing
            a_document_is_folded_up_to_a_moment
            a_history_that_is_changed_on_the_side_shows_what_would_be_other
        }
    };
}

/// Adds 1 to each first deposit.
#[derive(Debug)]
pub struct Bonus(pub Repository<Account>);

#[async_trait]
impl Policy for Bonus {
    const NAME: &'static str = "bonus";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        if event.version.get() == 1 {
            let context = reaction(event, Self::NAME, "deposit")?;
            self.0.execute_with(event.stream.id(), AccountCommand::Deposit(1), context).await?;
        }
        Ok(())
    }
}

fn accounts<S: ServiceStore + Clone>(store: &S) -> ServiceBuilder {
    Service::builder("accounts", store.clone())
        .aggregate::<Account>()
        .projection(Histories)
        .projection(Ledger::<1>::default())
        .policy(|resources| Bonus(resources.repository()))
}

/// All positions are reached, and what is read was folded by other code. (Seen to fail on `SQLite` where a policy that had stopped
/// counted as late.)
pub async fn r13_a_service_has_not_settled_where_other_definitions_keep_its_readers<S: ServiceStore + Clone>(
    store: &S,
) {
    let (count, serving) = ("projection Count of account in per-key order", GenerationState::Serving);
    store.ensure_generation(Ledger::<1>::NAME, 1, serving, count, &[]).await.expect("made");
    store.ensure_reader(Bonus::NAME, "policy Watch").await.expect("made");
    let empty = || Service::builder("accounts", store.clone()).aggregate::<Account>();
    let mut services = Vec::new();
    for parts in [Parts::All, Parts::None] {
        for (builder, name) in [
            (empty().projection(Ledger::<1>::default()), Ledger::<1>::NAME),
            (empty().policy(|resources| Bonus(resources.repository())), Bonus::NAME),
        ] {
            let service = builder.parts(parts.clone()).start().await.expect("it starts");
            let state = async || service.status().await.part(name).expect("registered").state.clone();
            let begun = Instant::now();
            while matches!(parts, Parts::All) && !matches!(state().await, PartState::Stopped { .. }) {
                assert!(begun.elapsed() < PATIENCE, "{service:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let settled = service.settled(PATIENCE).await;
            let Err(Unsettled::OtherDefinition { reader, cause }) = settled else { panic!("{name}: {settled:?}") };
            assert!(reader == name && matches!(*cause, EngineError::OtherDefinition { .. }), "{reader}: {cause}");
            services.push(service);
        }
    }
    // That of the first one closes the store.
    for service in services {
        service.shutdown(PATIENCE).await.expect("it ends");
    }
}

async fn deposit(service: &Service, id: &str) -> Position {
    let executed = service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await;
    executed.expect("executed").position.expect("it has an event")
}

/// R13
pub async fn r13_a_service_shows_what_its_commands_have_written<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).start().await.expect("it starts");
    for id in ["a", "b"] {
        deposit(&service, id).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    let balance = service.repository::<Account>().load("a").await.expect("loaded").state.balance;
    let history = service.read_model::<Histories>().get("a").await.expect("it serves");
    assert_eq!((balance, history), (2, Some(vec![1, 2])));
    let health = service.health().await;
    assert!(health.live && health.ready, "{health:?}");
    assert_eq!(health.status.head, Some(Position::new(4)));
    for part in &health.status.parts {
        assert_eq!(
            (&part.state, part.lag, part.position),
            (&PartState::Running, Some(0), health.status.head),
            "{part:?}"
        );
    }
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R16: while clients write. Acknowledged writes are kept.
pub async fn r16_a_service_ends_in_good_order_under_load<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).start().await.expect("it starts");
    let client = tokio::spawn({
        let accounts = service.repository::<Account>();
        async move {
            let mut written = 0_u64;
            while accounts.execute("a", AccountCommand::Deposit(1)).await.is_ok() && written < 1_000 {
                written += 1;
            }
            written
        }
    });
    deposit(&service, "b").await;
    let begun = Instant::now();
    service.shutdown(PATIENCE).await.expect("it ends in good order");
    assert!(begun.elapsed() < PATIENCE);
    client.await.expect("no panic");
    let health = service.health().await;
    assert!(!health.live && !health.ready, "{health:?}");
    assert!(health.status.parts.iter().all(|part| part.state == PartState::Ended), "{health:?}");
    service.shutdown(PATIENCE).await.expect("again is the same");
}

/// R22: the process is not started again. A pause and a resumption, which concern no event, change nothing about the stop.
///
/// (Seen to fail, after as long as its patience, where a part that has stopped stays so.)
pub async fn r22_a_reader_that_has_stopped_continues_when_the_event_is_skipped<S: ServiceStore + Clone>(store: &S) {
    let ledger = Ledger::<1> { poison: Some(666) };
    let service = Service::builder("accounts", store.clone()).aggregate::<Account>().projection(ledger);
    let service = service.start().await.expect("it starts");
    deposit(&service, "a").await;
    let poison = service.repository::<Account>().execute("a", AccountCommand::Deposit(666)).await.expect("executed");
    deposit(&service, "a").await;
    let part = async || service.status().await.part(Ledger::<1>::NAME).expect("registered").clone();
    let begun = Instant::now();
    while !matches!(part().await.state, PartState::Stopped { .. }) {
        assert!(begun.elapsed() < PATIENCE, "{service:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = store.stops(Ledger::<1>::NAME).await.expect("read").remove(0);
    assert_eq!(Some(stopped.position), poison.position);
    let act = Act::new("ada", "a test").expect("not blank");
    store.skip(Ledger::<1>::NAME, &stopped.shard, stopped.position, stopped.event_id, &act).await.expect("skipped");
    service.settled(PATIENCE).await.expect("it continues");
    let part = part().await;
    assert_eq!((part.state, part.restarts), (PartState::Running, 1));
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R13, R22: no watch of the read model can tell which documents the event would have touched. (It would fail where each watch ended at
/// it, and each that continued an earlier one.)
pub async fn r22_a_watch_passes_an_event_that_an_operator_has_skipped<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).start().await.expect("it starts");
    deposit(&service, "a").await;
    service.settled(PATIENCE).await.expect("it settles");
    let mut watch = service.read_model::<Ledger<1>>().watch("all", Since::Now).expect("it is known");
    let told = watch.next().await.expect("its state").token.expect("it is complete");
    let position = unreadable(store, "b").await;
    let act = Act::new("ada", "a test").expect("not blank");
    for reader in [Histories::NAME, Ledger::<1>::NAME, Bonus::NAME] {
        let stop = eventually("it stops", async || store.stops(reader).await.expect("read").pop()).await;
        store.skip(reader, &stop.shard, position, stop.event_id, &act).await.expect("skipped");
    }
    deposit(&service, "a").await;
    service.settled(PATIENCE).await.expect("it goes on");
    let mut again = service.read_model::<Ledger<1>>().watch("all", told).expect("it is known");
    for watch in [&mut watch, &mut again] {
        let change = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on");
        assert!(change.position > position, "{change:?}");
    }
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9: as several processes, except that they share one store.
pub async fn r9_services_on_one_store_share_the_work_and_one_takes_over<S: ServiceStore + Clone>(store: &S) {
    let start = || accounts(store).lease(Duration::from_millis(300)).start();
    let (one, other) = (start().await.expect("it starts"), start().await.expect("it starts"));
    let observer = accounts(store).parts(Parts::None).start().await.expect("it starts");
    for number in 0..20 {
        deposit(if number % 2 == 0 { &one } else { &other }, &format!("a{}", number % 5)).await;
    }
    observer.settled(PATIENCE).await.expect("they have shared it");
    // It is not shut down, and its store is still open.
    drop(one);
    for number in 0..20 {
        deposit(&other, &format!("a{}", number % 5)).await;
    }
    observer.settled(PATIENCE).await.expect("the other one has taken over");
    let page = observer.read_model::<Ledger>().get("all").await.expect("it serves").expect("it is there");
    let head = store.head().await.expect("a head").get();
    assert_eq!(page.positions, (1..=head).collect::<Vec<_>>());
    assert_eq!(head, 45, "40 deposits, and a bonus for each of five accounts");
    other.shutdown(PATIENCE).await.expect("it ends");
}
