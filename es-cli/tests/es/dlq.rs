//! `es dlq`, on a dead-letter topic.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::json;
use uuid::Uuid;

use super::fixture::{Place, Run, run};

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("these tests need a broker: set KAFKA_BROKERS, or run `cargo xtask test`")
}

/// A topic with dead letters of these handlers, at the original offsets 0, 1, …
fn topic(place: &Place, handlers: &[&str]) -> String {
    let topic = format!("cli{}", Uuid::now_v7().simple());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let dead = format!("{topic}.dlq");
    let names = [topic.as_str(), dead.as_str()].map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    let created = place.runtime.block_on(admin.create_topics(&names, &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    for (offset, handler) in handlers.iter().enumerate() {
        let offset = offset.to_string();
        let headers = [
            ("traceparent", "x"),
            ("handler", handler),
            ("original-topic", &topic),
            ("original-partition", "0"),
            ("original-offset", &offset),
            ("attempts", "3"),
            ("error-class", "refused"),
            ("error-message", "no"),
            ("failed-at", "2026-01-31T12:00:00Z"),
        ];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut record = BaseRecord::to(&dead).key("a").payload("{\"secret\":\"geheim\"}").headers(headers);
        while let Err((error, again)) = producer.send(record) {
            assert!(Instant::now() < deadline, "{error}");
            record = again;
        }
        producer.flush(Duration::from_mins(1)).unwrap();
    }
    topic
}

fn dlq(place: &Place, topic: &str, arguments: &[&str]) -> Run {
    let mut es = place.command();
    run(es.env("ES_KAFKA_BROKERS", brokers()).env("ES_KAFKA_TOPIC", topic).arg("dlq").args(arguments))
}

#[test]
fn dead_letters_are_listed_and_shown_and_a_monitor_can_ask() {
    let [place, _] = Place::filled();
    let topic = topic(&place, &["mail", "stock"]);
    let list = dlq(&place, &topic, &["list", "--json"]);
    let lines = list.lines();
    assert_eq!((list.code, lines.len()), (0, 2), "{}", list.err);
    let line = &lines[0];
    assert_eq!((&line["handler"], &line["class"], &line["attempts"]), (&json!("mail"), &json!("refused"), &json!(3)));
    assert_eq!((&line["originalTopic"], &line["originalOffset"]), (&json!(topic), &json!(0)));
    assert!(!list.out.contains("geheim"));
    let text = dlq(&place, &topic, &["list", "--handler", "stock"]);
    assert!(text.out.contains(&format!("1 record waits in {topic}.dlq, the oldest for ")), "{}", text.out);
    for (arguments, code) in [
        (&["list", "--most", "2"][..], 0),
        (&["list", "--most", "1"], 1),
        (&["list", "--max-age", "1h"], 1),
        (&["list", "--max-age", "99999d"], 0),
        (&["list", "--max-age", "soon"], 2),
        (&["list", "--class", "unreadable", "--most", "0"], 0),
    ] {
        let run = dlq(&place, &topic, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}", run.err);
    }
    let over = dlq(&place, &topic, &["list", "--most", "1"]);
    assert!(over.err.contains(&format!("`es dlq show --topic {topic} --at N`")), "{}", over.err);
    let mut doctor = place.command();
    let doctor = run(doctor.env("ES_KAFKA_BROKERS", brokers()).env("ES_KAFKA_TOPIC", &topic).arg("doctor"));
    assert!(doctor.out.contains("dead letters: 2 records wait in "), "{}", doctor.out);
    assert!(!place.es(&["doctor"]).out.contains("dead letters:"), "no topic is named");
    let show = dlq(&place, &topic, &["show", "--at", "1", "--data"]);
    assert!(show.out.contains("traceparent: x") && show.out.contains("geheim"), "{}", show.out);
    assert_eq!(dlq(&place, &topic, &["show", "--at", "7"]).code, 1);
    assert_eq!(
        dlq(&place, &format!("{topic}-none"), &["list", "--json"]).out,
        "",
        "a topic that is not there has none"
    );
}

#[test]
fn r22_what_is_replayed_or_discarded_is_recorded_and_listed_no_more() {
    for place in Place::filled() {
        let topic = topic(&place, &["mail", "stock", "stock"]);
        let waiting = || dlq(&place, &topic, &["list", "--json"]).lines().len();
        let why = ["--reason", "ticket 7", "--actor", "ada"];
        let act = |arguments: &[&str]| dlq(&place, &topic, &[arguments, &why].concat());
        let dry = dlq(&place, &topic, &["replay", "--to", "topic", "--all", "--dry-run"]);
        assert_eq!((dry.code, waiting(), dry.out.matches(&*topic).count()), (0, 3, 3), "{}", dry.err);
        assert_eq!(act(&["discard", "--yes"]).code, 2, "no record is named");
        assert_eq!(act(&["discard", "--all"]).code, 2, "there is no terminal to ask");
        assert_eq!(act(&["discard", "--at", "9", "--yes"]).code, 1);
        let to_handler = act(&["replay", "--to", "handler", "--all", "--yes"]);
        assert_eq!((to_handler.code, to_handler.err.contains("retry_after")), (2, true), "{}", to_handler.err);
        assert_eq!(waiting(), 3);

        let replayed = act(&["replay", "--to", "topic", "--handler", "stock", "--yes"]);
        assert_eq!((replayed.code, replayed.out.contains("2 records were replayed"), waiting()), (0, true, 1));
        let discarded = act(&["discard", "--at", "0", "--yes"]);
        assert_eq!((discarded.code, waiting()), (0, 0), "{}", discarded.err);
        let acts = place.es(&["actions", "--json"]).lines();
        let told: Vec<_> = acts.iter().take(2).map(|act| [&act["what"], &act["reader"], &act["actor"]]).collect();
        assert_eq!(
            told,
            [[&json!("discard"), &json!("mail"), &json!("ada")], [&json!("replay"), &json!("stock"), &json!("ada")]]
        );
    }
}
