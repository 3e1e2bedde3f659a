//! Payloads that are too large for a topic are in object storage, and readers see nothing of that.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    EventOrder, EventStore, Position, RecordedEvent,
    backend::{Categories, SourceError},
    service::Engine,
};
use es_kafka::{
    ClaimCheck, ClaimError, KafkaSourceConfig, Reconcile, ReconcileError, Relay, RelayConfig, RelayError, Step,
    Violation,
};
use object_store::{ObjectStore, local::LocalFileSystem};
use rdkafka::{
    Message,
    admin::{AdminOptions, NewTopic, TopicReplication},
    message::Headers,
};

use crate::{
    reader::Reader,
    setup::{House, PATIENCE, Running, admin},
    storage::{Answers, Storage, raw},
};

/// Payloads of more bytes go to object storage.
const THRESHOLD: usize = 2_000;

pub(crate) fn check(store: impl ObjectStore) -> ClaimCheck {
    ClaimCheck::new(store).over(THRESHOLD)
}

impl House {
    pub(crate) fn claiming(&self, check: &ClaimCheck) -> RelayConfig {
        RelayConfig { claim_check: Some(check.clone()), batch_events: 4, ..self.config() }
    }

    pub(crate) fn resolving(&self, check: &ClaimCheck) -> KafkaSourceConfig {
        KafkaSourceConfig { claim_check: Some(check.clone()), ..self.source_config() }
    }

    pub(crate) async fn log(&self) -> Vec<RecordedEvent> {
        self.store.read_log(Position::ZERO, 1_000).await.unwrap()
    }

    /// Small events and five large ones.
    pub(crate) async fn fill(&self) -> Position {
        for id in ["a", "b", "c"] {
            self.append("order", id, 2).await;
            self.append_sized("order", id, 1, 5_000).await;
            self.append("payment", id, 1).await;
        }
        self.append_sized("payment", "d", 2, 3_000).await;
        self.append("order", "d", 1).await.position
    }

    pub(crate) async fn publish_as(&self, config: RelayConfig) -> Position {
        let last = self.store.head().await.unwrap();
        let mut relay = Running::start(Relay::new(self.store.clone(), config));
        relay.reaches(last).await;
        relay.stop().await.unwrap();
        last
    }

    /// The name of the object of an event.
    pub(crate) fn object(&self, event: &RecordedEvent) -> String {
        format!("{}/{}.json", self.topics().events(event.stream.category()), event.id)
    }

    fn reconcile_with(&self, check: Option<ClaimCheck>) -> Reconcile {
        Reconcile::new(self.store.clone(), RelayConfig { claim_check: check, ..self.config() })
    }
}

pub(crate) fn large(log: &[RecordedEvent]) -> Vec<&RecordedEvent> {
    log.iter().filter(|event| event.data.payload.len() > THRESHOLD).collect()
}

/// What a reader of this order gets, in the order of the log.
async fn read(config: KafkaSourceConfig, order: EventOrder, last: Position) -> Vec<RecordedEvent> {
    let mut reader = Reader::open(config, Categories::All, order, BTreeMap::new()).await;
    reader.read_to(last).await;
    let mut events: Vec<_> = reader.events.drain(..).map(|(_, event)| event).collect();
    events.sort_by_key(|event| event.position);
    events
}

fn claim_error(error: &SourceError) -> &ClaimError {
    let (SourceError::Refused { source, .. } | SourceError::Unavailable(source)) = error else { panic!("{error:?}") };
    source.downcast_ref().unwrap_or_else(|| panic!("{error:?}"))
}

async fn carries(store: impl ObjectStore + Clone) {
    let house = House::new();
    let check = check(store);
    house.fill().await;
    let last = house.publish_as(house.claiming(&check)).await;
    let log = house.log().await;
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        assert_eq!(read(house.resolving(&check), order, last).await, log, "{order:?}");
    }
    let found = house.reconcile_with(Some(check)).run(None, |_| ()).await.unwrap();
    assert_eq!((found.violation, found.cursor.position), (None, last));
    assert_eq!((found.objects.equal, found.objects.unknown), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_large_payloads_go_through_memory_and_come_back_as_they_were() {
    carries(Storage::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_large_payloads_go_through_a_folder_and_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    carries(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap())).await;
}

/// The only thread of the runtime does not wait for the readers, which wait for the object storage.
#[tokio::test]
async fn large_payloads_are_read_on_a_runtime_of_one_thread() {
    let folder = tempfile::tempdir().unwrap();
    carries(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_says_where_its_payload_is_and_has_an_empty_value() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone()).known_as("mem://payloads/");
    house.fill().await;
    let last = house.publish_as(house.claiming(&check)).await;
    let (topic, log) = (house.topics().events("order"), house.log().await);
    let records = house.records(&topic, last).await;
    let mut found = 0;
    for record in &records {
        let header = |name: &str| {
            let value =
                record.headers().unwrap().iter().find(|header| header.key == name).and_then(|header| header.value);
            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
        };
        let id = header("ce_id").unwrap();
        let event = log.iter().find(|event| event.id.to_string() == id).unwrap();
        if event.data.payload.len() <= THRESHOLD {
            assert_eq!((record.payload(), header("ce_dataref")), (Some(&event.data.payload[..]), None));
            continue;
        }
        found += 1;
        assert_eq!(record.payload(), Some(&b""[..]), "empty, and not null: null deletes");
        assert_eq!(header("ce_dataref"), Some(format!("mem://payloads/{}", house.object(event))));
        assert_eq!(header("ce_datalength"), Some(event.data.payload.len().to_string()));
        assert_eq!(header("ce_datasha256").unwrap().len(), 64);
        assert_eq!(storage.get(&house.object(event)).await.as_deref(), Some(&event.data.payload[..]));
    }
    assert_eq!(found, 3);
    assert_eq!(read(house.resolving(&check), EventOrder::PerKey, last).await, log);
    // A reader that knows the storage by another name, or none, finds the objects of before. Seen to fail where only the prefix of
    // today is left out.
    for uri in ["s3://elsewhere/", "mem://payloads/of/", "mem://", ""] {
        let other = house.resolving(&check.clone().known_as(uri));
        assert_eq!(read(other, EventOrder::PerKey, last).await, log, "{uri:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_threshold_records_are_the_same_byte_for_byte() {
    let (house, storage) = (House::new(), Storage::default());
    for id in ["a", "b", "c"] {
        house.append("order", id, 3).await;
    }
    let last = house.publish_as(house.config()).await;
    let plain = house.records(&house.topics().events("order"), last).await;
    let again = House { store: house.store.clone(), ..House::new() };
    again.publish_as(again.claiming(&check(storage.clone()))).await;
    let checked = again.records(&again.topics().events("order"), last).await;
    assert_eq!(checked.iter().map(raw).collect::<Vec<_>>(), plain.iter().map(raw).collect::<Vec<_>>());
    assert_eq!(storage.puts(), [""; 0]);
}

/// Without it the event stops the relay: `r11_an_event_that_is_too_large_for_its_topic_stops_the_relay_and_is_named`.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_its_topic_is_published_through_object_storage() {
    let (house, storage) = (House::new(), Storage::default());
    let topic = house.topics().events("order");
    let small = NewTopic::new(&topic, 3, TopicReplication::Fixed(1));
    let small = small.set("max.message.bytes", "4000").set("retention.ms", "-1");
    admin().create_topics([&small], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    house.append_sized("order", "a", 3, 100).await;
    house.append_sized("order", "b", 2, 20_000).await;
    house.append_sized("order", "c", 3, 100).await;
    let check = check(storage);
    let last = house.publish_as(house.claiming(&check)).await;
    assert_eq!(read(house.resolving(&check), EventOrder::PerKey, last).await, house.log().await);
}

/// Seen to fail where the name of an object is a new one each time: the second relay leaves the first object behind.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_crash_between_the_object_and_the_commit_writes_the_same_object_again() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.fill().await;
    for crash in [Step::Sent, Step::BeforeProgress, Step::BeforeCommit, Step::Committed] {
        let relay = Relay::new(house.store.clone(), house.claiming(&check))
            .at_each_step(move |step| if step == crash { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        let crashed = Running::start(relay).ends().await;
        assert!(matches!(crashed, Err(RelayError::Crashed)), "{crashed:?}");
    }
    let last = house.publish_as(house.claiming(&check)).await;
    let log = house.log().await;
    let mut puts = storage.puts();
    let count = puts.len();
    puts.sort_unstable();
    puts.dedup();
    let mut wanted: Vec<_> = large(&log).into_iter().map(|event| house.object(event)).collect();
    wanted.sort_unstable();
    assert_eq!(puts, wanted, "one object for each event");
    assert!(count > puts.len(), "no crash was between object and commit");
    assert_eq!(read(house.resolving(&check), EventOrder::PerKey, last).await, log);
    let found = house.reconcile_with(Some(check)).run(None, |_| ()).await.unwrap();
    assert_eq!(found.violation, None);
}

/// For a damage of the second large event: what both readers say, and that they have handed on what comes before it, and nothing of it.
/// Seen to fail where the error comes at once: nothing was handed on.
async fn refuses(damage: impl AsyncFn(&Storage, &str, &RecordedEvent)) -> [SourceError; 2] {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.fill().await;
    house.publish_as(house.claiming(&check)).await;
    let log = house.log().await;
    let damaged = large(&log)[1];
    damage(&storage, &house.object(damaged), damaged).await;
    let mut refusals = Vec::new();
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        let mut reader = Reader::open(house.resolving(&check), Categories::All, order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        let told = claim_error(&refused).to_string();
        assert!(
            told.contains(&house.object(damaged)) && told.contains("-order-events/") && told.contains(" offset "),
            "{told}"
        );
        let handed_on = reader.positions();
        if order == EventOrder::PerKey {
            assert_eq!(handed_on, (1..damaged.position.get()).collect::<Vec<_>>());
        }
        let before = log.iter().filter(|event| event.stream == damaged.stream && event.position < damaged.position);
        assert!(before.clone().count() > 0);
        for event in before {
            assert!(handed_on.contains(&event.position.get()), "{order:?}: {} of {handed_on:?}", event.position);
        }
        assert!(!handed_on.contains(&damaged.position.get()), "{handed_on:?}");
        refusals.push(refused);
    }
    refusals.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_missing_object_stops_readers_and_is_named() {
    for refused in refuses(async |storage, object, _| storage.delete(object).await).await {
        assert!(matches!(claim_error(&refused), ClaimError::Missing { .. }), "{refused:?}");
        assert!(!refused.is_transient() && refused.to_string().contains("bring the object back"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_changed_object_stops_readers_and_is_named() {
    for refused in refuses(async |storage, object, _| storage.replace(object, "{}").await).await {
        let ClaimError::Changed { found, .. } = claim_error(&refused) else { panic!("{refused:?}") };
        assert!(found.starts_with("it has 2 bytes"), "{found}");
    }
    let same_length = async |storage: &Storage, object: &str, event: &RecordedEvent| {
        let mut other = event.data.payload.to_vec();
        other[20] = if other[20] == b'a' { b'b' } else { b'a' };
        storage.replace(object, other).await;
    };
    for refused in refuses(same_length).await {
        let ClaimError::Changed { found, .. } = claim_error(&refused) else { panic!("{refused:?}") };
        assert_eq!(found, "it has another SHA-256");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_reader_that_does_not_know_the_object_storage_says_what_to_declare() {
    let (house, storage) = (House::new(), Storage::default());
    house.fill().await;
    let last = house.publish_as(house.claiming(&check(storage))).await;
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        let mut reader = Reader::open(house.source_config(), Categories::All, order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(matches!(claim_error(&refused), ClaimError::Undeclared { .. }), "{refused:?}");
        assert!(refused.to_string().contains("KafkaSourceConfig::claim_check"), "{refused}");
    }
    // One record alone is not enough either.
    let records = house.records(&house.topics().events("order"), last).await;
    let refusals: Vec<_> = records.iter().filter_map(|record| es_kafka::decode(record).err()).collect();
    assert_eq!(refusals.len(), 3);
    assert!(matches!(claim_error(&refusals[0]), ClaimError::Undeclared { .. }), "{refusals:?}");
}

/// Seen to fail where the whole page waits for its objects: the events before the large one came after it was back.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_waits_for_object_storage_that_is_away_and_says_so() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    let before = house.append("order", "a", 3).await.position;
    house.append_sized("order", "a", 1, 5_000).await;
    let last = house.append("order", "a", 3).await.position;
    storage.answers(Answers::Not);
    let config = RelayConfig { batch_events: 100, ..house.claiming(&check) };
    let relay = Relay::new(house.store.clone(), config);
    let report = Engine::report(&relay).clone();
    let mut relay = Running::start(relay);
    relay.reaches(before).await;
    let deadline = Instant::now() + PATIENCE;
    let failure = loop {
        assert!(Instant::now() < deadline, "it says nothing");
        match report.last_failure() {
            Some(failure) => break failure.error,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(
        failure.contains("the object storage does not take the object") && failure.contains("it is away"),
        "{failure}"
    );
    assert_eq!(house.progress(before).await.position, before);
    storage.answers(Answers::Well);
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    assert_eq!(read(house.resolving(&check), EventOrder::PerKey, last).await, house.log().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_object_storage_that_refuses_stops_the_relay_at_the_event() {
    let (house, storage) = (House::new(), Storage::default());
    let before = house.append("order", "a", 3).await.position;
    let large = house.append_sized("order", "a", 1, 5_000).await.position;
    house.append("order", "a", 3).await;
    storage.answers(Answers::Denied);
    let config = RelayConfig { batch_events: 100, ..house.claiming(&check(storage.clone())) };
    let refused = Running::start(Relay::new(house.store.clone(), config)).ends().await.unwrap_err();
    assert!(matches!(&refused, RelayError::ObjectStorage { position, .. } if *position == large), "{refused:?}");
    assert!(refused.to_string().contains("grant the relay to put objects"), "{refused}");
    assert_eq!(house.progress(before).await.position, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_for_object_storage_that_is_away_and_says_so() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.fill().await;
    let last = house.publish_as(house.claiming(&check)).await;
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        storage.answers(Answers::Not);
        let mut reader = Reader::open(house.resolving(&check), Categories::All, order, BTreeMap::new()).await;
        let error = reader.refusal().await;
        assert!(error.is_transient(), "opening it again may help: {error:?}");
        assert!(matches!(claim_error(&error), ClaimError::Unavailable { .. }), "{error:?}");
        let mut before: Vec<_> = reader.events.drain(..).map(|(_, event)| event).collect();
        storage.answers(Answers::Well);
        let mut again = Reader::open(house.resolving(&check), Categories::All, order, reader.into_checkpoints()).await;
        again.read_to(last).await;
        before.extend(again.events.drain(..).map(|(_, event)| event));
        before.sort_by_key(|event| event.position);
        assert_eq!(before, house.log().await, "{order:?}");
    }
}

/// Seen to fail where only what is in the records counts: all came in one batch.
#[tokio::test(flavor = "multi_thread")]
async fn r17_payloads_from_object_storage_count_to_the_bytes_of_a_batch() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage);
    house.append_sized("order", "a", 20, 30_000).await;
    let last = house.publish_as(house.claiming(&check)).await;
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        let config = KafkaSourceConfig { batch_bytes: 100_000, buffer_bytes: 300_000, ..house.resolving(&check) };
        let mut reader = Reader::open(config, Categories::All, order, BTreeMap::new()).await;
        reader.read_to(last).await;
        let with_events = reader.largest_batch;
        assert!(with_events <= 5, "{order:?}: {with_events} events of 30 kB in a batch of 100 kB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_reconcile_compares_objects_and_says_where_it_does_not() {
    let (house, storage) = (House::new(), Storage::default());
    let check = check(storage.clone());
    house.fill().await;
    let last = house.publish_as(house.claiming(&check)).await;
    let log = house.log().await;
    let declared = house.reconcile_with(Some(check));

    let undeclared = house.reconcile_with(None).run(None, |_| ()).await.unwrap();
    assert_eq!((undeclared.violation, undeclared.cursor.position), (None, last));
    assert_eq!((undeclared.objects.equal, undeclared.objects.unknown), (0, 5));

    let event = large(&log)[2];
    let (object, payload) = (house.object(event), event.data.payload.clone());
    storage.delete(&object).await;
    let missing = declared.run(None, |_| ()).await.unwrap();
    let Some(Violation::Object { position, object: named, found, .. }) = &missing.violation else {
        panic!("{missing:?}")
    };
    assert_eq!((*position, named.as_str(), found.as_str()), (event.position, &*object, "it is not there"));
    assert!(missing.cursor.position < event.position && missing.objects.equal == 2, "{missing:?}");
    storage.replace(&object, "{}").await;
    let changed = declared.run(Some(missing.cursor), |_| ()).await.unwrap();
    assert!(matches!(&changed.violation, Some(Violation::Object { position, .. }) if *position == event.position));
    storage.answers(Answers::Not);
    let away = declared.run(None, |_| ()).await.unwrap_err();
    assert!(matches!(&away, ReconcileError::ObjectStorage(_)) && away.is_transient(), "{away:?}");
    storage.answers(Answers::Well);
    storage.replace(&object, payload).await;
    let mended = declared.run(Some(changed.cursor), |_| ()).await.unwrap();
    assert_eq!((mended.violation, mended.cursor.position), (None, last));
}
