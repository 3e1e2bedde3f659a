//! Read models under races that only a real database can lose.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use es_core::{
    Generation, KeyRange, Position,
    backend::{
        Changes, Checkpoint, CommitError, Documents, GenerationState, Generations, Lease, Leases, PromoteError,
        Promotion, Shard, Takeover,
    },
};
use es_postgres::PostgresStore;
use tokio::sync::Barrier;
use uuid::Uuid;

use super::server::{Schema, soon};

const MODEL: &str = "model";
const TTL: Duration = Duration::from_mins(1);

async fn generation(store: &PostgresStore, state: GenerationState) -> Generation {
    store.ensure_generation(MODEL, 1, state, "projection", &[]).await.unwrap()
}

async fn lease(store: &PostgresStore, generation: &Generation) -> Lease {
    let shard = Shard::from("log");
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, TTL).await.unwrap().unwrap()
}

fn changes(position: u64, documents: impl IntoIterator<Item = (String, String)>) -> Changes {
    Changes {
        upserts: documents.into_iter().map(|(key, document)| (key, Bytes::from(document))).collect(),
        checkpoint: Checkpoint { position: Position::new(position), witness: None, cursor: None },
        ..Changes::default()
    }
}

/// The zombie passes every check it could make beforehand and stands at the row when it is fenced.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_zombie_that_waits_at_the_checkpoint_is_fenced() {
    let schema = Schema::new();
    let store = schema.store().await;
    let serving = generation(&store, GenerationState::Serving).await;
    let old = lease(&store, &serving).await;
    let (mut rival, mut watcher) = (schema.session().await, schema.session().await);
    rival.run("BEGIN; UPDATE checkpoints SET fencing_token = fencing_token + 1").await;
    let zombie = tokio::spawn({
        let store = store.clone();
        async move { store.commit(&old, changes(5, [("k".into(), "\"zombie\"".into())])).await }
    });
    watcher.until_blocked(&schema, 1).await;
    rival.run("COMMIT").await;
    assert!(matches!(soon(zombie).await.unwrap(), Err(CommitError::Fenced(_))));
    assert_eq!(store.get(MODEL, "k").await.unwrap().unwrap().found, None);
    assert_eq!(store.reached(MODEL).await.unwrap(), Position::ZERO);
}

/// A document that the database refuses takes the checkpoint with it.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_commit_that_fails_in_the_middle_leaves_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    let serving = generation(&store, GenerationState::Serving).await;
    let lease = lease(&store, &serving).await;
    let bad = changes(5, [("good".into(), "1".into()), ("nul\0".into(), "2".into())]);
    assert!(matches!(store.commit(&lease, bad).await, Err(CommitError::Store(_))));
    assert_eq!(store.reached(MODEL).await.unwrap(), Position::ZERO);
    assert_eq!(store.get(MODEL, "good").await.unwrap().unwrap().found, None);
    store.commit(&lease, changes(5, [("good".into(), "1".into())])).await.unwrap();
}

/// Every reader sees documents of one generation only, whatever is promoted meanwhile.
///
/// It can lose: with the serving generation looked up in a statement of its own before the scan, a
/// reader found an empty read model in two of three runs of fifteen rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r12_readers_see_all_of_the_old_or_all_of_the_new_generation() {
    const KEYS: usize = 50;
    const ROUNDS: u64 = 40;
    let schema = Schema::new();
    let store = schema.store().await;
    let documents = |round: u64| (0..KEYS).map(move |key| (format!("k{key:02}"), round.to_string()));
    let serving = generation(&store, GenerationState::Serving).await;
    let held = lease(&store, &serving).await;
    store.commit(&held, changes(1, documents(0))).await.unwrap();
    let start = Arc::new(Barrier::new(3));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, start) = (store.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let mut last = 0;
                while last < ROUNDS {
                    let found = store.scan(MODEL, KeyRange::default(), 1_000).await.unwrap().unwrap().found;
                    assert_eq!(found.len(), KEYS);
                    assert!(found.iter().all(|(_, document)| *document == found[0].1), "{found:?}");
                    let round = std::str::from_utf8(&found[0].1).unwrap().parse().unwrap();
                    assert!(round >= last, "no reader goes back");
                    last = round;
                }
            })
        })
        .collect();
    start.wait().await;
    for round in 1..=ROUNDS {
        let building = generation(&store, GenerationState::Building).await;
        let held = lease(&store, &building).await;
        store.commit(&held, changes(1, documents(round))).await.unwrap();
        store.promote(&building, Promotion::Automatic).await.unwrap();
    }
    for reader in readers {
        soon(reader).await.unwrap();
    }
    let mut session = schema.session().await;
    // The old ones are deleted.
    session.until(&format!("SELECT (count(*) = {KEYS})::int::bigint FROM documents"), 1).await;
}

/// The serving generation's commit is under way when the promotion looks: it waits and sees it.
#[tokio::test(flavor = "multi_thread")]
async fn r12_promotion_waits_for_commits_in_flight() {
    let schema = Schema::new();
    let store = schema.store().await;
    let serving = generation(&store, GenerationState::Serving).await;
    let building = generation(&store, GenerationState::Building).await;
    for (generation, position) in [(&serving, 3), (&building, 4)] {
        let held = lease(&store, generation).await;
        store.commit(&held, changes(position, [])).await.unwrap();
    }
    let (mut worker, mut watcher) = (schema.session().await, schema.session().await);
    worker.run(&format!("BEGIN; UPDATE checkpoints SET position = 9 WHERE reader = {}", serving.reader.id)).await;
    let promotion = tokio::spawn({
        let (store, building) = (store.clone(), building.clone());
        async move { store.promote(&building, Promotion::Automatic).await }
    });
    watcher.until_blocked(&schema, 1).await;
    worker.run("COMMIT").await;
    let outcome = soon(promotion).await.unwrap();
    let behind = PromoteError::Behind { building: Position::new(4), serving: Position::new(9) };
    assert_eq!(outcome.unwrap_err().to_string(), behind.to_string());
    assert_eq!(store.generations(MODEL).await.unwrap().serving.map(|serving| serving.generation), Some(serving));
}

/// A process that dies between the switch and the deletion leaves documents that no query sees.
#[tokio::test(flavor = "multi_thread")]
async fn r12_what_a_crashed_promotion_left_is_swept_by_the_next() {
    let schema = Schema::new();
    let store = schema.store().await;
    let first = generation(&store, GenerationState::Serving).await;
    let held = lease(&store, &first).await;
    store.commit(&held, changes(1, [("k".into(), "1".into())])).await.unwrap();
    let mut session = schema.session().await;
    session.run("DELETE FROM checkpoints; DELETE FROM generations; UPDATE readers SET is_retired = true").await;
    assert!(matches!(store.commit(&held, changes(2, [])).await, Err(CommitError::Fenced(_))));
    store.ensure_shards(&first.reader, std::slice::from_ref(&held.shard)).await.unwrap();
    let again = store.acquire(&first.reader, &held.shard, held.owner, Takeover::Always, TTL).await.unwrap();
    assert!(again.is_none(), "a retired generation cannot be worked on");
    let second = generation(&store, GenerationState::Building).await;
    store.promote(&second, Promotion::Automatic).await.unwrap();
    let swept = "SELECT ((SELECT count(*) FROM documents) = 0 AND (SELECT count(*) FROM readers) = 1)::int::bigint";
    session.until(swept, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_stops_at_the_end_of_its_prefix() {
    let schema = Schema::new();
    let store = schema.store().await;
    let serving = generation(&store, GenerationState::Serving).await;
    let held = lease(&store, &serving).await;
    let keys = ["", "a", "a\u{10FFFF}", "a\u{10FFFF}x", "ab", "b", "é", "\u{10FFFF}", "\u{10FFFF}z"];
    let documents = keys.map(|key| (key.to_owned(), "1".to_owned()));
    store.commit(&held, changes(1, documents)).await.unwrap();
    let scan = async |range: KeyRange| {
        let found = store.scan(MODEL, range, 100).await.unwrap().unwrap().found;
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(scan(KeyRange::prefix("a")).await, ["a", "ab", "a\u{10FFFF}", "a\u{10FFFF}x"]);
    assert_eq!(scan(KeyRange::prefix("a\u{10FFFF}")).await, ["a\u{10FFFF}", "a\u{10FFFF}x"]);
    assert_eq!(scan(KeyRange::prefix("\u{10FFFF}")).await, ["\u{10FFFF}", "\u{10FFFF}z"]);
    assert_eq!(scan(KeyRange::default()).await.len(), keys.len());
    assert_eq!(scan(KeyRange::default().after("")).await.len(), keys.len() - 1);
    assert_eq!(scan(KeyRange::default().after("ab").before("é")).await, ["a\u{10FFFF}", "a\u{10FFFF}x", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_shows_what_readers_see() {
    let schema = Schema::new();
    let store = schema.store().await;
    let serving = generation(&store, GenerationState::Serving).await;
    let held = lease(&store, &serving).await;
    store.commit(&held, changes(1, [("k".into(), "{\"n\":7}".into())])).await.unwrap();
    let shown = "SELECT count(*) FROM read_models WHERE projection = 'model' AND key = 'k' AND document->>'n' = '7'";
    assert_eq!(schema.session().await.number(shown).await, 1);
}

/// A large generation that was replaced is deleted in parts, and all of it. (Seen to fail where one statement deletes it.)
#[tokio::test(flavor = "multi_thread")]
async fn r13_a_replaced_generation_is_deleted_in_parts() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut owner, mut generations) = (schema.session().await, Vec::new());
    for (state, documents) in [(GenerationState::Serving, 20_000), (GenerationState::Building, 1)] {
        let generation = generation(&store, state).await;
        let lease = lease(&store, &generation).await;
        store.commit(&lease, changes(1, [])).await.unwrap();
        let fill = format!(
            "INSERT INTO documents SELECT {}, n::text, '1' FROM generate_series(1, {documents}) n",
            generation.reader.id
        );
        owner.run(&fill).await;
        generations.push(generation);
    }
    let count = "CREATE TABLE deleted (documents bigint);
         CREATE FUNCTION count_deleted() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO deleted SELECT count(*) FROM gone; RETURN NULL; END $$;
         CREATE TRIGGER count_deleted AFTER DELETE ON documents REFERENCING OLD TABLE AS gone
             FOR EACH STATEMENT EXECUTE FUNCTION count_deleted()";
    owner.run(count).await;
    store.promote(&generations[1], Promotion::Automatic).await.unwrap();
    owner.until("SELECT (count(*) = 1)::int::bigint FROM readers", 1).await;
    assert_eq!(owner.number("SELECT count(*) FROM documents").await, 1, "the new one's");
    assert_eq!(owner.number("SELECT max(documents) FROM deleted").await, 10_000);
    assert_eq!(owner.number("SELECT sum(documents)::bigint FROM deleted").await, 20_000);
}
