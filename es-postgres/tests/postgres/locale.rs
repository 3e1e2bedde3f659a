//! A database whose texts are in another order than that of their bytes.

use bytes::Bytes;
use es_core::{
    KeyRange, Position,
    backend::{Changes, Checkpoint, Documents, GenerationState, Generations, Leases, Shard, Takeover},
};
use es_postgres::PostgresStore;
use uuid::Uuid;

use super::server::{SOON, Schema, url};

/// By its locale `a` comes before `K`, by bytes after it. Seen to fail where the least key was that by the locale: keys that were there
/// counted as new.
#[tokio::test]
async fn r9_documents_are_written_again_whatever_the_locale_of_the_database() {
    let name = format!("t_{}", Uuid::now_v7().simple());
    let mut session = Schema::new().session().await;
    session.run(&format!("CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")).await;
    let url = url();
    let (server, database) = url.rsplit_once('/').unwrap();
    let parameters = database.split_once('?').map_or("", |(_, parameters)| parameters);
    let store = PostgresStore::options(&format!("{server}/{name}?{parameters}")).connect().await.unwrap();
    let generation = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let (reader, shard) = (&generation.reader, Shard::from("log"));
    store.ensure_shards(reader, std::slice::from_ref(&shard)).await.unwrap();
    let lease = store.acquire(reader, &shard, Uuid::now_v7(), Takeover::WhenFree, SOON).await.unwrap();
    let mut lease = lease.unwrap();
    let upper = || (0..500).map(|nth| (format!("K{nth:04}"), Bytes::from_static(b"1")));
    let further = ("a".to_owned(), Bytes::from_static(b"2"));
    for (position, upserts) in [(1, upper().collect::<Vec<_>>()), (2, upper().chain([further]).collect())] {
        let checkpoint = Checkpoint { position: Position::new(position), ..Checkpoint::default() };
        let changes = Changes { checkpoint: checkpoint.clone(), upserts, ..Changes::default() };
        store.commit(&lease, changes).await.unwrap();
        lease.checkpoint = checkpoint;
    }
    assert_eq!(store.scan("model", KeyRange::default(), 1_000).await.unwrap().unwrap().found.len(), 501);
    store.close().await.unwrap();
    session.run(&format!("DROP DATABASE {name}")).await;
}
