//! What the program reads.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use chrono::DateTime;
use es_core::{Append, EventData, Expected, NewEvent};
use serde_json::{Value, json};

use super::fixture::Place;

fn column(lines: &[Value], name: &str) -> Vec<Value> {
    lines.iter().map(|line| line[name].clone()).collect()
}

#[test]
fn streams_are_listed_by_prefix_and_category_page_by_page() {
    for place in Place::filled() {
        let all = place.es(&["streams", "--json"]).json();
        assert_eq!(column(&all, "stream"), ["order-1", "order-2", "payment-1", "payment-2", "payment-3", "payment-4"]);
        assert_eq!(
            (&all[0]["events"], &all[0]["position"], &all[0]["category"]),
            (&json!(5), &json!(5), &json!("order"))
        );
        assert!(DateTime::parse_from_rfc3339(all[0]["recordedAt"].as_str().unwrap()).is_ok());
        let first = place.es(&["streams", "--category", "payment", "--limit", "2", "--json"]);
        assert_eq!(column(&first.json(), "stream"), ["payment-1", "payment-2"]);
        assert!(first.err.contains("payment-2"), "{}", first.err);
        let rest = place.es(&["streams", "--prefix", "payment-", "--after", "payment-2", "--limit", "2", "--json"]);
        assert_eq!(column(&rest.json(), "stream"), ["payment-3", "payment-4"]);
        assert_eq!(rest.err, "");
        let counts = place.es(&["streams", "--count", "--json"]).json();
        assert_eq!(counts[0], json!({"category": "order", "streams": 2, "events": 6}));
        assert_eq!(counts[1], json!({"category": "payment", "streams": 4, "events": 4}));
        let table = place.es(&["streams", "--all"]);
        let rows: Vec<_> = table.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(rows[0][..3], ["STREAM", "EVENTS", "POSITION"]);
        assert_eq!((rows.len(), &rows[1][..3]), (7, &["order-1", "5", "5"][..]));
    }
}

#[test]
fn a_stream_is_shown_with_versions_positions_and_metadata_and_with_data_when_asked() {
    for place in Place::filled() {
        let shown = place.es(&["stream", "show", "order-1", "--json"]).json();
        assert_eq!(column(&shown, "version"), [1, 2, 3, 4, 5]);
        let line = &shown[4];
        assert_eq!((&line["position"], &line["stream"]), (&json!(5), &json!("order-1")));
        assert_eq!((&line["type"], &line["schemaVersion"]), (&json!("order.noted"), &json!(2)));
        assert_eq!((&line["metadata"], line.get("data")), (&json!({"actor": "ada"}), None));
        assert!(line["id"].is_string() && line["recordedAt"].is_string());
        let some = place.es(&["stream", "show", "order-1", "--from", "2", "--limit", "2", "--data", "--json"]);
        assert_eq!(column(&some.json(), "version"), [2, 3]);
        assert!(some.out.contains(r#""data":{"total":"9.90","number":2}"#), "as it was written: {}", some.out);
        let text = place.es(&["stream", "show", "order-1", "--data"]).out;
        assert_eq!(text.lines().count(), 10);
        assert!(text.contains("order-1 5  order.noted v2") && text.contains("\"ada\"") && text.contains("\"9.90\""));
        assert!(!place.es(&["stream", "show", "order-1"]).out.contains("9.90"), "data may be personal");
    }
}

#[test]
fn a_stream_is_shown_as_of_a_version_a_position_or_a_time() {
    for place in Place::filled() {
        let at = |by: &str, value: &str| {
            let run = place.es(&["stream", "at", "order-1", by, value, "--json"]);
            column(&run.json(), "version").len()
        };
        assert_eq!((at("--version", "2"), at("--position", "3"), at("--position", "99")), (2, 3, 5));
        let shown = place.es(&["stream", "show", "order-1", "--json"]).json();
        let before = DateTime::parse_from_rfc3339(shown[0]["recordedAt"].as_str().unwrap()).unwrap();
        let before = (before - chrono::TimeDelta::seconds(1)).to_rfc3339();
        assert_eq!((at("--time", &before), at("--time", "2999-01-01T00:00:00Z")), (0, 5));
        let text = place.es(&["stream", "at", "order-1", "--version", "2"]);
        assert_eq!((text.code, text.out.lines().last()), (0, Some("order-1 had version 2 then")));
        let late = place.es(&["stream", "at", "order-1", "--version", "6"]);
        assert_eq!((late.code, late.err.contains("it has 5 events")), (1, true), "{}", late.err);
    }
}

#[test]
fn the_difference_of_two_versions_is_the_events_between_them() {
    for place in Place::filled() {
        let between = place.es(&["stream", "diff", "order-1", "2", "4", "--json"]).json();
        assert_eq!(column(&between, "version"), [3, 4]);
        assert_eq!(place.es(&["stream", "diff", "order-1", "0", "5", "--json"]).json().len(), 5);
        assert_eq!(place.es(&["stream", "diff", "order-1", "3", "3"]).out, "");
        assert_eq!(place.es(&["stream", "diff", "order-1", "4", "2"]).code, 2);
        assert_eq!(place.es(&["stream", "diff", "order-1", "4", "6"]).code, 1);
    }
}

#[test]
fn what_is_not_there_is_said_and_the_exit_code_is_1() {
    for place in Place::filled() {
        for what in [&["show", "order-9"][..], &["at", "order-9", "--position", "3"], &["diff", "order-9", "0", "1"]] {
            let run = place.es(&[&["stream"], what].concat());
            assert_eq!((run.code, &*run.out), (1, ""), "{what:?}");
            assert!(run.err.contains("there is no stream order-9"), "{}", run.err);
        }
    }
}

#[test]
fn the_end_of_the_log_is_shown_and_followed() {
    for place in Place::filled() {
        let tail = |arguments: &[&str]| {
            let run = place.es(&[&["log", "tail", "--json"], arguments].concat());
            column(&run.json(), "position")
        };
        assert_eq!(tail(&[]).len(), 10);
        assert_eq!(tail(&["-n", "2"]), [9, 10]);
        assert_eq!(tail(&["--limit", "3"]), [8, 9, 10]);
        assert_eq!(tail(&["--from", "4", "--limit", "3"]), [4, 5, 6]);
        assert_eq!(tail(&["--from", "1", "--category", "payment"]), [7, 8, 9, 10]);
        assert_eq!(tail(&["--from", "11"]), [0; 0]);

        let mut following = place
            .command()
            .args(["log", "tail", "--follow", "-n", "1", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(next()["position"], 10);
        place.runtime.block_on(async {
            let store = place.store().await;
            let data = EventData { name: "order.noted".into(), schema_version: 1, payload: "{}".into() };
            let append = Append::new("order-3".parse().unwrap(), Expected::Any, vec![NewEvent::new(data)]);
            store.append(append).await.unwrap();
            store.close().await.unwrap();
        });
        assert_eq!(next()["stream"], "order-3");
        following.kill().unwrap();
        following.wait().unwrap();
    }
}

/// Seen to fail where it says "no worker" alone, as of a reader that no process runs.
#[test]
fn a_reader_that_waits_for_its_first_event_is_told_from_one_that_no_process_runs() {
    for place in Place::filled() {
        place.runtime.block_on(async {
            place.store().await.ensure_reader("waiting", "policy").await.unwrap();
        });
        let list = place.es(&["readers"]).out;
        let ends = |name: &str, end: &str| list.lines().any(|line| line.starts_with(name) && line.ends_with(end));
        assert!(ends("waiting ", " no worker: no shard yet") && ends("mail ", " no worker"), "{list}");
        let shards = place.es(&["readers", "--shards"]).out;
        assert!(shards.contains("mail") && !shards.contains("waiting"), "{shards}");
    }
}

#[test]
fn readers_are_listed_with_lag_and_holder() {
    for place in Place::filled() {
        let readers = place.es(&["readers", "--json"]).json();
        assert_eq!(column(&readers, "name"), ["all", "mail"]);
        let all = &readers[0];
        assert_eq!(
            (&all["kind"], &all["state"], &all["version"]),
            (&json!("projection"), &json!("serving"), &json!(3))
        );
        assert_eq!((&all["position"], &all["lagEvents"]), (&json!(4), &json!(6)));
        assert!(all["lagSeconds"].as_f64().unwrap() > 0.0);
        assert_eq!((&all["shards"][0]["shard"], &all["shards"][0]["lease"]), (&json!("log"), &Value::Null));
        let mail = &readers[1];
        assert_eq!(
            (&mail["kind"], &mail["lagEvents"], &mail["lagSeconds"]),
            (&json!("policy"), &json!(0), &json!(0.0))
        );
        assert_eq!((&mail["state"], &mail["version"]), (&Value::Null, &Value::Null), "a policy has no generations");
        assert!(place.es(&["readers"]).out.contains("no worker"));

        let (store, owner) = place.runtime.block_on(async {
            let store = place.store().await;
            let (reader, _) = store.ensure_reader("mail", "policy").await.unwrap();
            let log = es_core::backend::Shard::whole("log");
            let takeover = es_core::backend::Takeover::Always;
            let lease = store.acquire(&reader, &log, uuid::Uuid::now_v7(), takeover, std::time::Duration::from_mins(1));
            (store.clone(), lease.await.unwrap().unwrap())
        });
        let readers = place.es(&["readers", "--json"]).json();
        let lease = &readers[1]["shards"][0]["lease"];
        assert_eq!(lease["owner"], json!(owner.owner), "{readers:?}");
        assert!(lease["fencingToken"].is_number() && lease["since"].is_string());
        assert!((0.0..60.0).contains(&lease["heldForSeconds"].as_f64().unwrap()));
        let table = place.es(&["readers", "--shards"]).out;
        assert!(table.contains(&owner.owner.to_string()), "{table}");
        place.runtime.block_on(store.close()).unwrap();
    }
}

/// No lease of a reader is taken by looking, and nothing else is written: the file is the same afterwards.
#[test]
fn looking_changes_nothing() {
    let [place, _] = Place::filled();
    let path = place.directory.path().join("events.db");
    let before = std::fs::read(&path).unwrap();
    for command in [&["streams"][..], &["stream", "show", "order-1"], &["log", "tail"], &["readers"], &["doctor"]] {
        place.es(command);
    }
    assert!(std::fs::read(&path).unwrap() == before);
    let names: Vec<_> =
        std::fs::read_dir(place.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("-live-")), "{names:?}");
}
