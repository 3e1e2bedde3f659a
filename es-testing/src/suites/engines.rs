//! The claims of all engines: each module `engines_*` holds some of them.

/// Tests the engines on a store: `engine_suite!(async { … })` with an expression that makes an
/// empty store which implements [`AggregateStore`](es_core::backend::AggregateStore), `ReadModelStore` and `Clone`.
#[macro_export]
macro_rules! engine_suite {
    ($make:expr) => {
        $crate::__suite! { engines_execute, $make,
            r2_every_concurrent_command_takes_effect_once
            r6_a_repeated_command_returns_its_first_receipt
            r6_concurrent_repetitions_take_effect_once
            r7_dropped_commands_do_not_fail_others
            r8_snapshots_change_nothing_but_time
            r8_a_snapshot_of_another_history_is_ignored
            r8_a_stream_is_loaded_as_it_is_read
            r17_a_load_has_bounded_bytes
            r14_an_undecodable_event_is_named
            a_refusal_is_never_given_on_a_stale_state
            a_client_that_saw_another_version_is_refused
            a_command_without_events_writes_nothing
            states_of_the_past_can_be_loaded
        }
        $crate::__suite! { engines_restored, $make,
            r3_a_command_is_not_decided_on_a_state_of_another_history
            r3_a_state_is_not_folded_from_two_histories
            r8_a_snapshot_of_a_lost_history_is_ignored
        }
        $crate::__suite! { engines_codec, $make,
            r8_a_snapshot_is_the_state_or_none
            r8_a_snapshot_of_upcast_events_is_bound_to_the_program
            r9_batches_of_any_size_end_at_the_same_document
            r14_an_event_that_would_not_be_read_back_is_refused
            r14_a_document_that_would_not_be_read_back_stops_the_projector
            r14_an_error_names_the_place_and_not_the_value
        }
        $crate::__suite! { engines_decide, $make,
            r2_events_of_a_repository_carry_their_own_tags
            r15_an_event_with_an_invalid_tag_is_refused_and_named
            r1_a_decision_on_several_streams_is_whole
            r2_decisions_see_what_repositories_write
            r2_decisions_on_two_models_keep_both
            r2_many_decisions_on_one_boundary_at_once_all_get_through
            r2_a_conflict_that_no_model_sees_is_reported
            r6_a_repeated_decision_returns_its_first_receipt
            r6_of_100_equal_decisions_at_once_one_is_written_and_all_get_its_receipt
            r6_equal_decisions_that_append_to_different_streams_write_once
        }
        $crate::__suite! { engines_other_history, $make,
            a_checkpoint_of_another_history_is_refused
            r3_a_retry_in_a_restored_log_does_not_hide_another_past
        }
        $crate::__suite! { engines_project, $make,
            r9_killed_workers_leave_the_fold_of_the_log
            r9_a_document_that_is_named_twice_sees_the_event_once
            r9_a_document_that_the_projection_removes_is_gone
            r9_a_change_of_source_folds_nothing_twice
            r11_an_event_that_cannot_be_folded_stops_the_projector_before_it
            r12_a_rebuild_under_load_ends_equal_to_the_fold_of_the_log
            r12_a_rebuild_ends_wherever_the_log_does
            r12_a_throttled_rebuild_goes_on_and_ends_equal_to_the_fold_of_the_log
            r12_of_two_workers_that_rebuild_both_end
            r12_a_killed_rebuild_continues_after_its_last_write
            r12_an_interrupted_rebuild_continues
            r13_a_read_waits_for_its_write
            r13_a_read_may_wait_without_end
            r16_shutdown_hands_the_shards_over_at_once
        }
        $crate::__suite! { engines_standby, $make,
            r11_workers_stand_by_at_an_event_that_only_newer_code_knows
            r11_a_policy_stands_by_at_an_event_that_only_newer_code_knows
            r11_workers_stop_at_an_event_that_no_program_knows_in_time
        }
        $crate::__suite! { engines_evolve, $make,
            r12_a_new_version_is_rebuilt_beside_the_old_one
            r12_a_new_read_model_does_not_serve_before_it_has_caught_up
            r12_reads_continue_where_the_new_code_reads_the_old_documents
            r12_an_older_version_serves_again_on_purpose
            r12_the_later_of_two_rebuilds_wins
            r12_all_pages_of_a_scan_are_of_one_generation
            r13_reached_never_falls_while_generations_are_promoted
            r22_a_rebuild_can_be_paused_and_cancelled
            a_name_belongs_to_one_projection_or_policy
        }
        $crate::__suite! { engines_failures, $make,
            r19_a_failing_event_holds_up_its_key_and_nothing_else
            r19_an_event_is_tried_again_before_it_is_parked
            r19_an_unreadable_event_parks_its_stream
            r19_an_unreadable_event_in_log_order_stops_until_it_is_skipped
            r19_a_failing_reaction_holds_up_its_stream_and_nothing_else
            r22_a_paused_reader_waits_until_it_is_resumed
        }
        $crate::__suite! { engines_fields, $make,
            r9_fields_are_those_of_the_documents
            r12_all_pages_of_found_documents_are_of_one_generation
            r12_a_search_waits_for_a_generation_with_the_field
            r11_an_event_that_gives_a_taken_value_stops_the_projector
            r11_a_value_of_an_earlier_batch_is_taken
            r19_a_key_whose_value_is_taken_is_parked
        }
        $crate::__suite! { engines_letters, $make,
            r19_a_key_whose_letters_are_discarded_continues
            r19_a_retry_deletes_what_its_letters_delete
            r19_a_retry_that_fails_again_keeps_the_rest_in_order
            r19_a_retry_that_meets_a_document_that_does_not_fit_is_not_over
            r19_dead_letters_are_bounded
            r19_the_next_worker_knows_the_parked_keys
            r9_a_crash_while_letters_are_handled_again_repeats_and_loses_none
        }
        $crate::__suite! { engines_leases, $make,
            a_slow_batch_keeps_its_lease
            a_slow_event_keeps_its_lease
            a_slow_reaction_keeps_its_lease
        }
        $crate::__suite! { engines_shards, $make,
            r9_a_policy_in_shards_reacts_to_each_stream_in_order
            r9_another_number_of_shards_folds_nothing_twice
            r9_another_number_of_shards_is_refused_where_the_former_ones_differ
            r9_shards_are_folded_once_while_workers_come_and_go
            r12_a_generation_is_built_by_several_workers
            r13_a_read_waits_for_all_shards
            r18_the_shards_of_a_killed_worker_are_taken_over_in_3_s
            r18_workers_share_the_shards_evenly
            r19_an_event_that_is_tried_again_holds_up_its_shard_alone
            r19_keys_are_parked_in_their_shards
        }
        $crate::__suite! { engines_react, $make,
            r11_a_reaction_that_fails_for_good_stops_the_policy_before_it
            policies_react_once_although_they_are_killed
        }
        $crate::__suite! { engines_consume, $make,
            r9_a_message_that_its_producer_repeats_is_handled_once
            r9_a_consumer_that_is_killed_repeats_nothing_in_effect
            r9_a_message_that_could_not_be_read_is_handled_once_when_it_can
        }
        $crate::__suite! { engines_stop, $make,
            r9_a_policy_that_stops_repeats_no_reaction
            r11_what_stands_before_a_failing_event_is_committed
            r11_what_stands_before_an_unreadable_event_is_committed
            r11_a_panic_stops_the_projector_before_the_event
            r16_a_shutdown_within_a_batch_commits_what_was_folded
            r16_a_source_that_cannot_start_a_shard_leaves_it_free
            r17_documents_are_folded_in_parts_and_too_many_for_one_event_are_an_error
        }
        $crate::__suite! { engines_watch, $make,
            r12_a_watch_ends_when_another_generation_is_promoted
            r13_a_watch_of_a_key_tells_its_state_and_each_change
            r13_a_watch_of_a_range_ends_with_the_fold_of_the_log
            r13_a_watch_continues_where_another_one_was
            r13_a_read_waits_for_several_read_models
        }
    };
}
