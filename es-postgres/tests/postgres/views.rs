//! What people see with `psql`.

use es_core::{
    EventStore, Expected, Position,
    backend::{Changes, Checkpoint, GenerationState, Generations, Leases, Shard, Takeover},
};
use uuid::Uuid;

use super::server::{Schema, append};

/// What was written before it was refused, or by another hand. (With a plain cast the first of them ended the scan.)
#[tokio::test(flavor = "multi_thread")]
async fn r15_a_row_that_jsonb_refuses_ends_no_scan() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", Expected::NoStream, 1)).await.unwrap();
    let mut session = schema.session().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let refused = ["1e200000", "1e-20000", &deep, r#""\u0000""#, r#""\ud800""#, "no json", "", "\\xff"];
    for (text, position) in refused.iter().zip(2..) {
        let bytes =
            if *text == "\\xff" { r"'\xff'::bytea".to_owned() } else { format!("convert_to($t${text}$t$, 'UTF8')") };
        session
            .run(&format!(
                "INSERT INTO events (position, version, event_id, schema_version, stream, type, payload, metadata)
                 VALUES ({position}, {position}, gen_random_uuid(), 1, 'test-a', 'test.happened', {bytes}, {bytes})"
            ))
            .await;
    }
    let seen = "SELECT concat_ws(' ', count(*), count(data), count(metadata)) FROM event_log";
    assert_eq!(session.text(seen).await, "9 1 0");

    let generation = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let shard = Shard::from("log");
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    let ttl = std::time::Duration::from_mins(1);
    let lease =
        store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
    let upserts = vec![("bad".to_owned(), deep.clone().into()), ("good".to_owned(), r#"{"a":1}"#.into())];
    let checkpoint = Checkpoint { position: Position::new(1), ..Checkpoint::default() };
    store.commit(&lease, Changes { upserts, checkpoint, ..Changes::default() }).await.unwrap();
    let seen = "SELECT concat_ws(' ', count(*), count(document)) FROM read_models";
    assert_eq!(session.text(seen).await, "2 1");
}
