//! Consumers of a topic whose payloads are in object storage, and storage that is slow.

use std::collections::BTreeMap;

use es_core::{
    EventOrder,
    backend::{Categories, Checkpoint, Shard, SourceError, UNREADABLE},
};
use es_kafka::{ClaimCheck, KafkaTopic};

use crate::{
    claim_check::{check, large},
    reader::Reader,
    setup::{House, brokers},
    storage::{Answers, Storage},
};

impl House {
    /// A reader of the topic of a category, as a consumer of another service.
    async fn consumer_of(&self, category: &'static str, check: Option<ClaimCheck>) -> Reader {
        self.consumer_from(category, check, BTreeMap::new()).await
    }

    async fn consumer_from(
        &self,
        category: &'static str,
        check: Option<ClaimCheck>,
        checkpoints: BTreeMap<Shard, Checkpoint>,
    ) -> Reader {
        let source = KafkaTopic::new(brokers(), self.topics().events(category)).source(|source| {
            source.group_prefix.clone_from(&self.prefix);
            source.claim_check = check;
        });
        Reader::of(source, Categories::Only(vec![category]), EventOrder::PerStream, checkpoints).await
    }
}

/// The topic of a relay, as a consumer of another service reads it.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_consumer_of_the_topic_gets_payloads_from_object_storage_or_learns_why_not() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.fill().await;
    let last = house.publish_as(house.claiming(&check)).await;
    let (topic, log) = (house.topics().events("order"), house.log().await);
    let records = house.records(&topic, last).await.len();
    let read = async |check: Option<ClaimCheck>| {
        let mut reader = house.consumer_of("order", check).await;
        reader.read_events(records).await?;
        Ok::<_, SourceError>(reader.events.drain(..).map(|(_, event)| event.data).collect::<Vec<_>>())
    };
    let sorted = |mut payloads: Vec<_>| {
        payloads.sort_unstable();
        payloads
    };
    let payloads = read(Some(check.clone())).await.unwrap().into_iter().map(|data| data.payload).collect();
    let wanted = log.iter().filter(|event| event.stream.category() == "order").map(|event| event.data.payload.clone());
    assert_eq!(sorted(payloads), sorted(wanted.collect()));

    let unreadable = async |check: Option<ClaimCheck>| {
        let found = read(check).await.unwrap();
        let texts = found.iter().filter(|data| &*data.name == UNREADABLE);
        texts.map(|data| String::from_utf8(data.payload.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let undeclared = unreadable(None).await;
    assert!(undeclared.len() == 3 && undeclared[0].contains("and none is declared"), "{undeclared:?}");
    storage.delete(&house.object(large(&log)[0])).await;
    let missing = unreadable(Some(check.clone())).await;
    assert!(missing.len() == 1 && missing[0].contains("the object is not there"), "{missing:?}");
    storage.answers(Answers::Not);
    let away = read(Some(check)).await.unwrap_err();
    assert!(away.is_transient(), "{away:?}");
}

/// Seen to fail where the error comes at once: nothing was handed on.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_consumer_is_given_what_comes_before_a_payload_that_cannot_be_had_now() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.append("order", "a", 3).await;
    house.append_sized("order", "a", 1, 5_000).await;
    house.append("order", "a", 2).await;
    house.publish_as(house.claiming(&check)).await;
    storage.answers(Answers::Not);
    let mut reader = house.consumer_of("order", Some(check.clone())).await;
    let away = reader.refusal().await;
    assert!(away.is_transient(), "{away:?}");
    assert_eq!(reader.events.len(), 3);
    storage.answers(Answers::Well);
    let checkpoints = reader.into_checkpoints();
    let mut again = house.consumer_from("order", Some(check), checkpoints).await;
    again.read_events(3).await.unwrap();
    assert_eq!(again.events[0].1.data.payload.len(), house.log().await[3].data.payload.len());
}

/// Seen to fail for a consumer where a whole batch waits for its payloads: all came in one.
#[tokio::test(flavor = "multi_thread")]
async fn r17_what_was_read_is_handed_on_while_payloads_come_slowly() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.append_sized("order", "a", 9, 5_000).await;
    let last = house.publish_as(house.claiming(&check)).await;
    storage.answers(Answers::Slowly);
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        let mut reader = Reader::open(house.resolving(&check), Categories::All, order, BTreeMap::new()).await;
        reader.read_to(last).await;
        assert!(reader.largest_batch < 9, "{order:?}: {}", reader.largest_batch);
    }
    let mut reader = house.consumer_of("order", Some(check)).await;
    reader.read_events(9).await.unwrap();
    assert!(reader.largest_batch < 9, "{}", reader.largest_batch);
}
