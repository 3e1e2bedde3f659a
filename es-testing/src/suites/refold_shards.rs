//! Read models in several shards, of which some are behind, folded again from the log.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    FailurePolicy, Projection, Service, ServiceStore,
    backend::{Changes, Shard, Takeover},
    testing::account::{Account, Histories},
};
use uuid::Uuid;

use super::{
    engines_failures::{Amounts, Fault, Faults, act, eventually},
    engines_project::PATIENCE,
    refold::{deposit, differences, scan},
};

/// One shard is behind the others, and there are several pages of documents. Seen to fail where the fold of one page goes as far as
/// the furthest shard: it was too far for the documents on the next page.
pub async fn r9_a_verification_of_shards_that_are_apart_finds_nothing<S: ServiceStore + Clone>(store: &S) {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection_with(Histories, |projector| projector.shards(2));
    let service = builder.start().await.expect("it starts");
    let round = async || {
        for number in 0..250 {
            deposit(&service, &format!("a{number:03}"), 1).await;
        }
    };
    round().await;
    service.settled(PATIENCE).await.expect("it settles");
    let serving = store.generations("histories").await.expect("asked").serving.expect("it serves").generation;
    let (behind, ttl) = (&Shard::split("log", 2)[0], Duration::from_mins(1));
    let lease = store.acquire(&serving.reader, behind, Uuid::now_v7(), Takeover::Always, ttl).await;
    let lease = lease.expect("asked").expect("it is there");
    round().await;
    eventually("the other shard has everything", async || {
        let serving = store.generations("histories").await.expect("asked").serving.expect("it serves");
        (serving.furthest.get() == 500).then_some(())
    })
    .await;
    assert_eq!(differences(&service, "histories", 1.0).await, (250, Vec::new()));
    store.release(&lease).await.expect("released");
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(differences(&service, "histories", 1.0).await, (250, Vec::new()));
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// Of three shards one has everything, and another one is before an event that it will park. Seen to fail where such an event ends
/// the fold on the side, and where it ends the mending of the shard that is further.
pub async fn r19_what_a_shard_behind_has_not_parked_yet_fails_no_verification<S: ServiceStore + Clone>(store: &S) {
    let faults = Faults::of([(666, Fault::Refuse), (667, Fault::Panic)]);
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection_with(Amounts { faults, ..Amounts::default() }, |projector| {
        projector.shards(3).on_failure(FailurePolicy::park())
    });
    let service = builder.start().await.expect("it starts");
    let serving =
        eventually("it serves", async || store.generations(Amounts::NAME).await.expect("asked").serving).await;
    let (serving, shards) = (serving.generation, Shard::split("log", 3));
    let keys = |shard: &Shard| {
        let keys = (0..100).map(|number| format!("a{number}")).filter(|key| shard.slice().holds(key));
        keys.take(2).collect::<Vec<_>>()
    };
    let hold = async |shard: &Shard| {
        let ttl = Duration::from_mins(1);
        let lease = store.acquire(&serving.reader, shard, Uuid::now_v7(), Takeover::Always, ttl).await;
        lease.expect("asked").expect("it is there")
    };
    let folded = async |key: &str| {
        eventually("it is folded", async || scan(store).await.into_iter().find(|(found, _)| found == key)).await
    };
    let first = hold(&shards[0]).await;
    let (behind, ahead) = (keys(&shards[1]), keys(&shards[2]));
    for key in &behind {
        deposit(&service, key, 1).await;
        folded(key).await;
    }
    let second = hold(&shards[1]).await;
    deposit(&service, &behind[0], 666).await;
    deposit(&service, &behind[1], 667).await;
    deposit(&service, &ahead[0], 2).await;
    folded(&ahead[0]).await;
    assert_eq!(differences(&service, Amounts::NAME, 1.0).await.1, []);

    // What is wrong in the shards before and after it is mended.
    let right = scan(store).await;
    let third = hold(&shards[2]).await;
    for (lease, key) in [(&second, &behind[0]), (&third, &ahead[0])] {
        let (upserts, checkpoint) = (vec![(key.clone(), Bytes::from_static(b"[0]"))], lease.checkpoint.clone());
        store.commit(lease, Changes { upserts, checkpoint, ..Changes::default() }).await.expect("committed");
    }
    service.heal_named(Amounts::NAME, 1.0, &act(), &mut |_| {}).await.expect("mended");
    for key in [&ahead[0], &behind[0]] {
        let of = |documents: &[(String, Bytes)]| documents.iter().find(|(found, _)| found == key).cloned();
        assert_eq!(of(&scan(store).await), of(&right), "{key}");
    }
    // The mending has taken the other two.
    store.release(&first).await.expect("released");
    drop((second, third));
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(differences(&service, Amounts::NAME, 1.0).await.1, []);
    service.shutdown(PATIENCE).await.expect("it ends");
}
