//! Categories whose events go to another topic than the usual one, or to none.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    sync::Mutex,
    time::Duration,
};

use es_core::{
    EventOrder, EventStore, Position, RecordedEvent,
    backend::{Categories, SourceError},
};
use es_kafka::{
    KafkaSourceConfig, Reconcile, Relay, RelayConfig, RelayError, RelayStatus, Route, Routes, Step, TopicSettings,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminOptions, AlterConfig, ResourceSpecifier},
    consumer::Consumer,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    reader::Reader,
    setup::{House, PATIENCE, Running, admin, brokers, consumer},
};

const ORDERS: [EventOrder; 2] = [EventOrder::PerKey, EventOrder::PerStream];

fn routes() -> Routes {
    let settings = TopicSettings { retention: Some(Duration::from_hours(1_000)), ..TopicSettings::default() };
    let sales = Route::to("sales").partitions(5).settings(settings);
    Routes::new([("order", sales), ("session", Route::unpublished())]).unwrap()
}

impl House {
    fn routed(&self, routes: Routes) -> RelayConfig {
        RelayConfig { routes, batch_events: 5, ..self.config() }
    }

    /// Events of three categories; the last one is of a category that is not published.
    async fn mixed(&self) -> Position {
        for id in ["a", "b", "c", "d"] {
            self.append("order", id, 2).await;
            self.append("session", id, 7).await;
            self.append("payment", id, 1).await;
        }
        self.append("session", "late", 3).await.position
    }

    async fn run(&self, config: RelayConfig, last: Position) {
        let mut relay = Running::start(Relay::new(self.store.clone(), config));
        relay.reaches(last).await;
        relay.stop().await.unwrap();
    }

    /// The events of some categories, as the log has them.
    async fn of(&self, categories: &[&str]) -> Vec<RecordedEvent> {
        let mut events = self.store.read_log(Position::ZERO, 1_000).await.unwrap();
        events.retain(|event| categories.contains(&event.stream.category()));
        events
    }
}

async fn read(
    config: KafkaSourceConfig,
    categories: Categories,
    order: EventOrder,
    last: Position,
) -> Vec<RecordedEvent> {
    let mut reader = Reader::open(config, categories, order, BTreeMap::new()).await;
    reader.read_to(last).await;
    let mut events: Vec<_> = reader.events.drain(..).map(|(_, event)| event).collect();
    events.sort_by_key(|event| event.position);
    events
}

/// How many partitions the topics of a house have.
async fn partitions(prefix: &str) -> BTreeMap<String, usize> {
    let prefix = prefix.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = consumer().fetch_metadata(None, PATIENCE).unwrap();
        let topics = metadata.topics().iter();
        let of = |name: &str| name.strip_prefix(&prefix).map(str::to_owned);
        topics.filter_map(|topic| Some((of(topic.name())?, topic.partitions().len()))).collect()
    });
    asked.await.unwrap()
}

/// Writes a record into each of some partitions, as another application does.
async fn plant(topic: &str, partitions: Range<i32>) {
    let topic = topic.to_owned();
    let planted = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        for partition in partitions {
            producer.send(BaseRecord::to(&topic).partition(partition).key("order-a").payload("{}")).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    });
    planted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_events_go_where_they_are_declared_to_go_and_readers_find_them() {
    let house = House::new();
    let last = house.mixed().await;
    house.run(house.routed(routes()), last).await;
    let wanted = [("payment-events", 3), ("relay-progress", 1), ("sales", 5)];
    assert_eq!(partitions(&house.prefix).await, wanted.map(|(name, count)| (name.to_owned(), count)).into());

    for order in ORDERS {
        for names in [&["order"][..], &["payment"], &["order", "payment"]] {
            let categories = Categories::Only(names.to_vec());
            assert_eq!(read(house.source_config(), categories, order, last).await, house.of(names).await, "{order:?}");
        }
    }
    // Neither of them is told of the routes.
    let reconcile = Reconcile::new(house.store.clone(), house.config());
    let found = reconcile.run(None, |_| ()).await.unwrap();
    assert_eq!((found.violation, found.cursor.position), (None, last));
    let status = RelayStatus::of(&house.store, &house.config()).await.unwrap();
    let sales = status.topics.iter().find(|topic| topic.topic == format!("{}sales", house.prefix)).unwrap();
    assert_eq!((sales.partitions, sales.first_partitions), (5, Some(5)));
    assert_eq!((sales.retention_ms, status.lag_events), (Some(3_600_000_000), 0));
    // What is declared is what is compared with.
    let declared = RelayStatus::of(&house.store, &house.routed(routes())).await.unwrap();
    assert_eq!(declared.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_route_is_what_reconcile_compares_with() {
    let house = House::new();
    let last = house.mixed().await;
    house.run(house.routed(routes()), last).await;
    let topic = format!("{}sales", house.prefix);
    house.delete_topic(&topic).await;
    let reconcile = Reconcile::new(house.store.clone(), house.config());
    let found = reconcile.run(None, |_| ()).await.unwrap().violation.unwrap();
    assert!(found.to_string().contains(&topic), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_reader_of_what_is_not_published_is_refused_and_does_not_wait() {
    let house = House::new();
    let last = house.mixed().await;
    // One that is there before the relay hears of it too.
    let early =
        Reader::open(house.source_config(), Categories::Only(vec!["session"]), EventOrder::PerKey, BTreeMap::new());
    let mut early = early.await;
    let early = tokio::spawn(async move { early.refusal().await });
    house.run(house.routed(routes()), last).await;
    let mut refusals = vec![early.await.unwrap()];
    for order in ORDERS {
        for categories in
            [Categories::Only(vec!["session"]), Categories::Only(vec!["order", "session"]), Categories::All]
        {
            let mut reader = Reader::open(house.source_config(), categories, order, BTreeMap::new()).await;
            refusals.push(reader.refusal().await);
            assert_eq!(reader.positions(), [0; 0]);
        }
    }
    for refused in refusals {
        assert!(matches!(&refused, SourceError::Unfit { reason, .. } if reason.contains("\"session\"")), "{refused:?}");
    }
}

async fn compact(topic: &str) {
    let compact = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("cleanup.policy", "compact");
    admin().alter_configs([&compact], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

/// Seen to fail where only the usual topics are looked at: readers waited.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_compacted_topic_of_a_route_is_refused_by_readers() {
    let house = House::new();
    let last = house.mixed().await;
    house.run(house.routed(routes()), last).await;
    let sales = format!("{}sales", house.prefix);
    compact(&sales).await;
    for order in ORDERS {
        let orders = Categories::Only(vec!["order"]);
        let mut reader = Reader::open(house.source_config(), orders, order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(matches!(&refused, SourceError::Unfit { place, .. } if *place == sales), "{refused:?}");
    }
}

/// The progress tells of the route before there is its topic. Seen to fail where the topics are looked at only when a route is learnt: it
/// was read.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_compacted_topic_that_comes_while_it_is_waited_for_is_refused_by_readers() {
    let house = House::new();
    let first = house.append("payment", "a", 1).await.position;
    house.run(house.routed(routes()), first).await;
    let mut readers = Vec::new();
    for order in ORDERS {
        let both = Categories::Only(vec!["order", "payment"]);
        let mut reader = Reader::open(house.source_config(), both, order, BTreeMap::new()).await;
        reader.read_to(first).await;
        readers.push(reader);
    }
    house.append("order", "a", 1).await;
    // The topic is compacted after the relay has looked at it, and before a progress tells of it.
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let goes = Mutex::new(goes);
    let relay = Relay::new(house.store.clone(), house.routed(routes())).at_each_step(move |step| {
        if step == Step::BeforeCommit {
            let _ = told.send(());
            let _ = goes.lock().unwrap().recv();
        }
        ControlFlow::Continue(())
    });
    let _relay = Running::start(relay);
    tells.recv().await.unwrap();
    let sales = format!("{}sales", house.prefix);
    compact(&sales).await;
    drop(go);
    for mut reader in readers {
        let refused = reader.refusal().await;
        assert!(matches!(&refused, SourceError::Unfit { place, .. } if *place == sales), "{refused:?}");
    }
}

/// Seen to fail where a group reads all that its pattern names: the records of the usual topic were foreign.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_all_categories_pass_over_the_usual_topic_of_one_that_goes_elsewhere() {
    let house = House::new();
    let usual = house.topics().events("order");
    house.create_topic(&usual, 3).await;
    plant(&usual, 0..3).await;
    house.append("order", "a", 3).await;
    house.append("payment", "b", 3).await;
    let last = house.append("order", "c", 3).await.position;
    house.run(house.routed(Routes::new([("order", Route::to("sales"))]).unwrap()), last).await;
    for order in ORDERS {
        let events = read(house.source_config(), Categories::All, order, last).await;
        assert_eq!(events, house.of(&["order", "payment"]).await, "{order:?}");
    }
}

/// Seen to fail where the relay goes on with what is declared: later events of the category were in another topic than the first ones.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_route_that_changes_under_published_events_is_refused_until_the_topics_are_filled_again() {
    let house = House::new();
    let mut last = house.mixed().await;
    house.run(house.routed(routes()), last).await;
    let routed = |of: &[(&'static str, Route)]| house.routed(Routes::new(of.to_vec()).unwrap());
    let (sales, nowhere) = (Route::to("sales").partitions(5), Route::unpublished());
    for (config, moved) in [
        (house.config(), "order"),
        (routed(&[("order", Route::to("orders")), ("session", nowhere.clone())]), "order"),
        (routed(&[("order", nowhere.clone()), ("session", nowhere.clone())]), "order"),
        (routed(&[("order", sales.clone())]), "session"),
        (routed(&[("order", sales.clone()), ("session", nowhere.clone()), ("payment", nowhere.clone())]), "payment"),
    ] {
        let refused = Running::start(Relay::new(house.store.clone(), config)).ends().await.unwrap_err();
        assert!(matches!(&refused, RelayError::Rerouted { category, .. } if category == moved), "{refused:?}");
        let told = refused.to_string();
        assert!(told.contains("declare the former route again") && told.contains(&house.topics().progress()), "{told}");
    }

    // A category of which nothing was published may go anywhere, and readers hear of it.
    let mut reader = Reader::open(
        house.source_config(),
        Categories::Only(vec!["order", "shipment"]),
        EventOrder::PerKey,
        BTreeMap::new(),
    )
    .await;
    reader.read_to(last).await;
    let mut events: Vec<_> = reader.events.drain(..).map(|(_, event)| event).collect();
    let settings = TopicSettings { retention: Some(Duration::from_hours(1_000)), ..TopicSettings::default() };
    let more = [("order", sales.settings(settings)), ("session", nowhere), ("shipment", Route::to("parcels"))];
    house.append("shipment", "a", 3).await;
    last = house.append("order", "a", 1).await.position;
    house.run(routed(&more), last).await;
    let again = reader.refusal().await;
    assert!(again.is_transient(), "it is opened again: {again:?}");
    let checkpoints = reader.into_checkpoints();
    let categories = Categories::Only(vec!["order", "shipment"]);
    let mut reader = Reader::open(house.source_config(), categories.clone(), EventOrder::PerKey, checkpoints).await;
    reader.read_to(last).await;
    events.extend(reader.events.drain(..).map(|(_, event)| event));
    assert_eq!(events, house.of(&["order", "shipment"]).await);
    assert!(partitions(&house.prefix).await.contains_key("parcels"));

    // As the error says: everything is published again, and readers continue.
    let checkpoints = reader.into_checkpoints();
    for topic in ["sales", "parcels", "payment-events", "relay-progress"] {
        house.delete_topic(&format!("{}{topic}", house.prefix)).await;
    }
    let late = house.append("order", "b", 2).await.position;
    let mut relay = Running::start(Relay::new(house.store.clone(), house.config()));
    relay.reaches(late).await;
    let mut reader = Reader::open(house.source_config(), categories, EventOrder::PerKey, checkpoints).await;
    reader.read_to(late).await;
    assert_eq!(reader.positions(), [late.get() - 1, late.get()]);
    let all = read(house.source_config(), Categories::All, EventOrder::PerStream, late).await;
    assert_eq!(all, house.store.read_log(Position::ZERO, 1_000).await.unwrap());
    relay.stop().await.unwrap();
}

/// Seen to fail where only a relay without progress looks: it published.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_topic_that_holds_records_of_another_writer_gets_no_first_event() {
    let house = House::new();
    let before = house.append("order", "a", 3).await.position;
    house.run(house.config(), before).await;
    let (parcels, usual) = (format!("{}parcels", house.prefix), house.topics().events("shipment"));
    for (topic, partitions) in [(&parcels, 2..3), (&usual, 0..1)] {
        house.create_topic(topic, 3).await;
        plant(topic, partitions).await;
    }
    // One transaction would have both.
    house.append("order", "a", 1).await;
    let last = house.append("shipment", "a", 3).await.position;
    let parcels_config = house.routed(Routes::new([("shipment", Route::to("parcels"))]).unwrap());
    for (config, occupied, nth) in
        [(&parcels_config, &parcels, 2), (&house.config(), &usual, 0), (&house.config(), &usual, 0)]
    {
        let refused = Running::start(Relay::new(house.store.clone(), config.clone())).ends().await.unwrap_err();
        assert!(
            matches!(&refused, RelayError::Occupied { topic, partition } if topic == occupied && *partition == nth),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("declare another route"), "{refused}");
    }
    assert_eq!(house.published(before).await.len() as u64, before.get());

    // As the error says.
    house.delete_topic(&usual).await;
    house.run(house.config(), last).await;
    for order in ORDERS {
        let events = read(house.source_config(), Categories::All, order, last).await;
        assert_eq!(events, house.of(&["order", "shipment"]).await, "{order:?}");
    }
}
