//! Faults that are planted into the mechanisms themselves, to see that the suite finds them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::ground::Ground;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Plant {
    /// Commits compare neither the fencing token nor the position.
    NoFence,
    /// Documents are committed, and their checkpoint afterwards.
    CheckpointBeside,
    /// The relay publishes without transactions, and writes its progress afterwards.
    NoTransactions,
}

/// The comparison of a commit (`commit_changes()`).
const FENCE: &str = "AND c.fencing_token = a_fencing_token AND c.position = a_from";

/// Puts another function into the place of `commit_changes()`; its body, which follows, may call the real one.
const INSTEAD: &str = "
    ALTER FUNCTION commit_changes RENAME TO real_commit_changes;
    CREATE FUNCTION commit_changes(
        a_reader bigint, a_shard text, a_fencing_token bigint, a_from bigint,
        a_position bigint, a_event_id uuid, a_recorded_at timestamptz, a_cursor text, a_ttl interval,
        a_keys text[], a_documents bytea[], a_deletes text[], OUT acts bigint)
    LANGUAGE plpgsql AS";

/// Makes some commits of documents slow, so that their readers are killed and replaced before they are written.
const SLOW: &str = "$$
    BEGIN
        IF cardinality(a_keys) > 0 AND random() < 0.2 THEN PERFORM pg_sleep(6); END IF;
        acts := real_commit_changes(a_reader, a_shard, a_fencing_token, a_from, a_position, a_event_id, a_recorded_at, a_cursor, a_ttl,
                               a_keys, a_documents, a_deletes);
    END $$";

/// Where [`BESIDE`] keeps checkpoints.
const LATE_CHECKPOINTS: &str = "
    CREATE TABLE late_checkpoints (
        reader bigint, shard text, fencing_token bigint, position bigint, event_id uuid, recorded_at timestamptz, cursor text,
        PRIMARY KEY (reader, shard))";

/// A commit writes the checkpoint of the commit before, and leaves its own to the next one. That is what two transactions do whose second
/// one is late; a worker that is killed between them leaves documents without their checkpoint.
const BESIDE: &str = "$$
    DECLARE
        v_now checkpoints;
    BEGIN
        UPDATE checkpoints c SET position = l.position, event_id = l.event_id, recorded_at = l.recorded_at, cursor = l.cursor
          FROM late_checkpoints l
         WHERE c.reader = a_reader AND c.shard = a_shard AND c.fencing_token = a_fencing_token
           AND l.reader = c.reader AND l.shard = c.shard AND l.fencing_token = a_fencing_token AND l.position > c.position;
        SELECT c.* INTO v_now FROM checkpoints c WHERE c.reader = a_reader AND c.shard = a_shard;
        acts := real_commit_changes(a_reader, a_shard, a_fencing_token, a_from, v_now.position, v_now.event_id, v_now.recorded_at,
                              v_now.cursor, a_ttl, a_keys, a_documents, a_deletes);
        IF acts IS NULL THEN RETURN; END IF;
        INSERT INTO late_checkpoints VALUES (a_reader, a_shard, a_fencing_token, a_position, a_event_id, a_recorded_at, a_cursor)
            ON CONFLICT (reader, shard) DO UPDATE
               SET (fencing_token, position, event_id, recorded_at, cursor)
                   = (excluded.fencing_token, excluded.position, excluded.event_id, excluded.recorded_at, excluded.cursor);
    END $$";

impl Plant {
    /// Changes the store of a run. The relay is another one where the service is made.
    pub(crate) async fn into(self, ground: &Ground) {
        match self {
            Self::NoFence => ground.run(&format!("{}; {INSTEAD} {SLOW}", without("commit_changes", FENCE))).await,
            Self::CheckpointBeside => ground.run(&format!("{LATE_CHECKPOINTS}; {INSTEAD} {BESIDE}")).await,
            Self::NoTransactions => {}
        }
    }
}

/// Takes a piece out of a function.
fn without(function: &str, piece: &str) -> String {
    format!(
        "DO $plant$
         DECLARE
             v_sound   text := pg_get_functiondef('{function}'::regproc);
             v_planted text := replace(v_sound, $piece${piece}$piece$, '');
         BEGIN
             IF v_planted = v_sound THEN RAISE EXCEPTION '{function}() has changed: plant the fault elsewhere'; END IF;
             EXECUTE v_planted;
         END $plant$"
    )
}
