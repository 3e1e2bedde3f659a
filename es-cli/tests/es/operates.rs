//! What operators do with the program, and that it is recorded.

use std::{fs, io::Write, process::Stdio, time::Duration};

use es_core::{
    Position, ServiceStore,
    backend::{Changes, Checkpoint, GenerationState, Lease, Shard, Takeover},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{Place, Run, run};

const WHY: [&str; 4] = ["--reason", "ticket 7", "--actor", "ada"];

fn act(place: &Place, arguments: &[&str]) -> Run {
    place.es(&[arguments, &WHY].concat())
}

/// The lease of the worker that handles the events of the reader `all`.
async fn lease(store: &dyn ServiceStore) -> Lease {
    let generation = store.generations("all").await.unwrap().serving.unwrap().generation;
    let (log, ttl) = (Shard::whole("log"), Duration::from_mins(1));
    store.acquire(&generation.reader, &log, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap()
}

/// The reader `all` parks the event at position 5, and the one at position 6 waits behind it.
fn park(place: &Place) {
    place.runtime.block_on(async {
        let store = place.store().await;
        let lease = lease(&*store).await;
        let events = store.read_log(Position::new(4), 2).await.unwrap();
        let letter = |index: usize, cause: Option<&str>| es_core::backend::NewLetter {
            key: "k".to_owned(),
            event: events[index].clone(),
            cause: cause.map(str::to_owned),
            attempts: u32::from(cause.is_some()),
        };
        let checkpoint = Checkpoint { position: Position::new(6), ..Checkpoint::default() };
        let letters = vec![letter(0, Some("the order was never placed")), letter(1, None)];
        store.commit(&lease, Changes { checkpoint, letters, ..Changes::default() }).await.unwrap();
        store.release(&lease).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn r22_a_reader_is_paused_and_resumed_and_that_is_recorded() {
    for place in Place::filled() {
        assert_eq!(act(&place, &["resume", "mail"]).code, 1, "it is not paused");
        assert_eq!(act(&place, &["pause", "unknown"]).code, 1);
        assert_eq!(act(&place, &["pause", "mail"]).code, 0);
        let readers = place.es(&["readers", "--json"]).json();
        assert_eq!((&readers[1]["paused"]["actor"], &readers[0]["paused"]), (&json!("ada"), &Value::Null));
        assert!(place.es(&["readers"]).out.contains("paused"));
        assert_eq!(act(&place, &["resume", "mail"]).code, 0);
        let acts = place.es(&["actions", "--json"]).json();
        let seen: Vec<_> =
            acts.iter().map(|act| [&act["what"], &act["reader"], &act["actor"], &act["reason"]]).collect();
        assert_eq!(json!(seen), json!([["resume", "mail", "ada", "ticket 7"], ["pause", "mail", "ada", "ticket 7"]]));
        let number = acts[0]["number"].to_string();
        assert_eq!(place.es(&["actions", "--before", &number, "--json"]).json()[0]["what"], "pause");
        assert_eq!(place.es(&["actions", "--limit", "1", "--json"]).json().len(), 1);
        assert!(place.es(&["actions"]).out.contains("ticket 7"));
    }
}

#[test]
fn an_act_needs_a_reason_and_an_actor() {
    let [place, _] = Place::filled();
    assert_eq!(place.es(&["pause", "mail"]).code, 2);
    assert_eq!(place.es(&["pause", "mail", "--reason", " ", "--actor", "ada"]).code, 2);
    let mut without_actor = place.command();
    without_actor.env_remove("USER").env_remove("ES_ACTOR").args(["pause", "mail", "--reason", "x"]);
    assert!(run(&mut without_actor).err.contains("--actor"));
    assert_eq!(run(place.command().env("USER", "bob").args(["pause", "mail", "--reason", "x"])).code, 0);
    assert_eq!(place.es(&["actions", "--json"]).json()[0]["actor"], "bob");
}

#[test]
fn dead_letters_are_listed_shown_edited_retried_and_discarded() {
    for place in Place::filled() {
        park(&place);
        let list = place.es(&["dead-letters", "list", "all", "--json"]).json();
        assert_eq!((list.len(), &list[0]["key"], &list[0]["position"]), (2, &json!("k"), &json!(5)));
        assert_eq!((&list[0]["cause"], &list[1]["cause"]), (&json!("the order was never placed"), &Value::Null));
        assert_eq!((&list[0]["attempts"], list[0].get("data")), (&json!(1), None));
        assert_eq!(place.es(&["dead-letters", "list", "mail", "--json"]).json(), [0; 0]);
        assert_eq!(place.es(&["dead-letters", "list", "all", "--limit", "1", "--json"]).json().len(), 1);
        let shown = place.es(&["dead-letters", "show", "all", "k", "--position", "5", "--data"]).out;
        assert!(shown.contains("the order was never placed") && shown.contains(r#""total":"9.90""#), "{shown}");
        assert_eq!(place.es(&["dead-letters", "show", "all", "other"]).code, 1);
        assert!(place.es(&["doctor"]).out.contains("2 dead letters"));
        assert!(place.es(&["readers"]).out.contains("serving, 1 key parked  "));
        assert!(place.es(&["readers", "--shards"]).out.contains("serving, 1 key parked  "));

        let file = place.directory.path().join("payload.json");
        let file = file.to_str().unwrap();
        let edit = |extra: &[&str]| {
            act(&place, &[&["dead-letters", "edit", "all", "k", "--position", "5", "--file", file][..], extra].concat())
        };
        fs::write(file, "{no JSON").unwrap();
        assert_eq!(edit(&["--yes"]).code, 2);
        fs::write(file, "{\"total\":\"1.00\"}\n").unwrap();
        assert_eq!(
            place.es(&["dead-letters", "edit", "all", "k", "--position", "5", "--file", file, "--dry-run"]).code,
            0
        );
        let unasked = edit(&[]);
        assert_eq!((unasked.code, unasked.err.contains("--yes")), (2, true), "{}", unasked.err);
        assert_eq!(place.es(&["dead-letters", "list", "all", "--json"]).json()[0]["edited"], false);
        assert_eq!(edit(&["--yes"]).code, 0);
        let shown = place.es(&["dead-letters", "show", "all", "k", "--data", "--json"]).json();
        assert_eq!((&shown[0]["editedData"]["total"], &shown[0]["data"]["total"]), (&json!("1.00"), &json!("9.90")));

        let retry = ["dead-letters", "retry", "all", "k"];
        assert_eq!(place.es(&[&retry[..], &["--dry-run"]].concat()).code, 0, "it asks for no reason");
        assert_eq!(place.es(&retry).code, 2);
        assert_eq!(act(&place, &["dead-letters", "retry", "all", "k"]).code, 0);
        assert_eq!(act(&place, &["dead-letters", "retry", "all", "other"]).code, 1);

        let discard = ["dead-letters", "discard", "all", "k"];
        assert_eq!(place.es(&[&discard[..], &["--dry-run"]].concat()).code, 0);
        assert_eq!(act(&place, &discard).code, 2, "there is no terminal to ask");
        assert_eq!(place.es(&["dead-letters", "list", "all", "--json"]).json().len(), 2);
        assert_eq!(act(&place, &[&discard[..], &["--position", "6", "--yes"]].concat()).code, 0);
        assert_eq!(act(&place, &[&discard[..], &["--yes"]].concat()).code, 0);
        assert_eq!(place.es(&["dead-letters", "list", "all", "--json"]).json(), [0; 0]);
        let acts = place.es(&["actions", "--json"]).json();
        let acts: Vec<_> = acts.iter().map(|act| act["what"].as_str().unwrap()).collect();
        assert_eq!(acts, ["discard", "discard", "retry", "edit"], "a dry run is no act");
    }
}

/// Seen to fail where the list of a reader that does not exist was empty, with exit code 0.
#[test]
fn r22_a_reader_that_does_not_exist_is_told_with_those_that_do() {
    let file = Place::on_a_file();
    file.runtime.block_on(async { file.store().await.close().await.unwrap() });
    for place in [file].into_iter().chain(Place::filled()) {
        let known = if place.es(&["readers", "--json"]).json().is_empty() { "has no readers" } else { "all, mail" };
        let letters = |what, extra: &[&'static str]| [&["dead-letters", what, "nope"][..], extra].concat();
        for arguments in [
            letters("list", &[]),
            letters("list", &["--json"]),
            letters("show", &["k"]),
            [&letters("retry", &["k"])[..], &WHY].concat(),
            [&letters("discard", &["k", "--yes"])[..], &WHY].concat(),
            [&letters("edit", &["k", "--position", "5", "--file", "/dev/null", "--yes"])[..], &WHY].concat(),
            [&["pause", "nope"][..], &WHY].concat(),
            [&["resume", "nope"][..], &WHY].concat(),
            [&["skip", "nope", "--position", "5", "--event", &Uuid::nil().to_string(), "--yes"][..], &WHY].concat(),
            [&["cancel-rebuild", "nope", "--yes"][..], &WHY].concat(),
        ] {
            let run = place.es(&arguments);
            assert_eq!((run.code, &*run.out, run.err.contains(known)), (1, "", true), "{arguments:?}: {}", run.err);
        }
    }
}

/// From a pipe there is no terminal to ask, so `--yes` is needed.
#[test]
fn a_payload_may_come_from_a_pipe() {
    let [place, _] = Place::filled();
    park(&place);
    let arguments = ["dead-letters", "edit", "all", "k", "--position", "5", "--file", "-", "--yes"];
    let mut es = place.command();
    es.args(arguments).args(WHY).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = es.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[1]").unwrap();
    assert!(child.wait().unwrap().success());
    let shown = place.es(&["dead-letters", "show", "all", "k", "--data", "--json"]).json();
    assert_eq!(shown[0]["editedData"], json!([1]));
}

#[test]
fn r22_an_event_at_which_a_reader_has_stopped_is_found_and_skipped() {
    for place in Place::filled() {
        place.runtime.block_on(async {
            let store = place.store().await;
            let lease = lease(&*store).await;
            let events = store.read_log(Position::new(4), 1).await.unwrap();
            store.stopped(&lease, &events[0], "the order was never placed").await.unwrap();
            store.release(&lease).await.unwrap();
            store.close().await.unwrap();
        });
        let stopped = place.es(&["readers", "--json"]).json()[0]["stoppedAt"][0].clone();
        assert_eq!((&stopped["position"], &stopped["cause"]), (&json!(5), &json!("the order was never placed")));
        assert!(place.es(&["readers"]).out.contains("stopped at 5"));
        let id = stopped["eventId"].as_str().unwrap();
        let doctor = place.es(&["doctor"]);
        assert!(doctor.code == 1 && doctor.out.contains(&format!("--event {id}")), "{}", doctor.out);
        let skipped = act(&place, &["skip", "all", "--position", "5", "--event", id, "--yes"]);
        assert_eq!(skipped.code, 0, "{}", skipped.err);
        let reader = place.es(&["readers", "--json"]).json()[0].clone();
        assert_eq!((&reader["position"], &reader["stoppedAt"]), (&json!(5), &json!([])));
        assert_eq!(place.es(&["actions", "--json"]).json()[0]["what"], "skip");
    }
}

/// A rebuild leaves the read model that serves as it is, and an operator must see which of them stands still.
#[test]
fn a_build_that_has_stopped_is_not_taken_for_the_read_model_that_serves() {
    for place in Place::filled() {
        place.runtime.block_on(async {
            let store = place.store().await;
            let serving = store.generations("all").await.unwrap().serving.unwrap();
            let (definition, state) = (&serving.definition, GenerationState::Building);
            let building = store.ensure_generation("all", 2, state, definition, &[]).await.unwrap().reader;
            let (log, ttl) = (Shard::whole("log"), Duration::from_mins(1));
            store.ensure_shards(&building, std::slice::from_ref(&log)).await.unwrap();
            let lease = store.acquire(&building, &log, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
            let events = store.read_log(Position::new(4), 1).await.unwrap();
            store.stopped(&lease, &events[0], "the order was never placed").await.unwrap();
            store.release(&lease).await.unwrap();
            store.close().await.unwrap();
        });
        let doctor = place.es(&["doctor"]).out;
        assert!(doctor.contains("all, as it is being built, has stopped at position 5"), "{doctor}");
        assert!(doctor.contains("`rebuild` goes on from there") && !doctor.contains("all has stopped"), "{doctor}");
    }
}

/// The reader `halves` has two shards, and stops at the event at position 5 in `shard`.
fn stop_in(place: &Place, shard: &str) {
    stop_at(place, shard, 5);
}

fn stop_at(place: &Place, shard: &str, position: u64) {
    place.runtime.block_on(async {
        let store = place.store().await;
        let reader = store.ensure_reader("halves", "policy Halves of order").await.unwrap().0;
        store.ensure_shards(&reader, &Shard::split("log", 2)).await.unwrap();
        let (shard, ttl) = (Shard::from(shard), Duration::from_mins(1));
        let lease = store.acquire(&reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
        let events = store.read_log(Position::new(position - 1), 1).await.unwrap();
        store.stopped(&lease, &events[0], "the order was never placed").await.unwrap();
        store.release(&lease).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn r22_the_shard_in_which_a_reader_has_stopped_is_found_or_named() {
    for place in Place::filled() {
        let id = place.es(&["log", "tail", "--from", "5", "--limit", "1", "--json"]).json()[0]["id"].clone();
        let skip = |position: &str, extra: &[&str]| {
            let event = ["skip", "halves", "--position", position, "--event", id.as_str().unwrap()];
            act(&place, &[&event[..], extra].concat())
        };
        stop_in(&place, "log:2/0");
        stop_in(&place, "log:2/1");
        assert_eq!(skip("5", &["--shard", "log:2/0", "--yes"]).code, 0);
        for wrong in [skip("5", &["--shard", "log", "--yes"]), skip("4", &["--yes"])] {
            assert_eq!((wrong.code, wrong.err.contains("--shard log:2/1 --position 5")), (1, true), "{}", wrong.err);
        }
        let unasked = skip("5", &[]);
        assert_eq!((unasked.code, unasked.err.contains("no terminal")), (2, true), "{}", unasked.err);
        let skipped = skip("5", &["--yes"]);
        assert_eq!((skipped.code, skipped.out.contains("in shard log:2/1")), (0, true), "{}", skipped.err);
        assert!(!skipped.out.contains("yet to come"), "{}", skipped.out);
        assert_eq!(place.es(&["actions", "--json"]).json()[0]["target"], "log:2/1");
    }
}

/// An event that cannot be read stops each shard of a reader in per-key order. It would fail where the operator had to name each of
/// them.
#[test]
fn r22_an_event_is_skipped_at_once_in_all_shards_that_have_stopped_at_it_with_a_record_for_each() {
    for place in Place::filled() {
        let id = place.es(&["log", "tail", "--from", "5", "--limit", "1", "--json"]).json()[0]["id"].clone();
        let skip = ["skip", "halves", "--position", "5", "--event", id.as_str().unwrap(), "--yes"];
        stop_in(&place, "log:2/1");
        let one = act(&place, &skip);
        assert_eq!((one.code, one.out.contains("shard log:2/0 is yet to come to it")), (0, true), "{}", one.out);
        stop_in(&place, "log:2/0");
        assert_eq!(act(&place, &skip).code, 0);

        for shard in ["log:2/0", "log:2/1"] {
            stop_at(&place, shard, 6);
        }
        let id = place.es(&["log", "tail", "--from", "6", "--limit", "1", "--json"]).json()[0]["id"].clone();
        let doctor = place.es(&["doctor"]).out;
        assert!(doctor.contains("halves has stopped at position 6 in 2 shards: "), "{doctor}");
        assert!(doctor.contains("`es skip halves --position 6 --event "), "{doctor}");
        let both = act(&place, &["skip", "halves", "--position", "6", "--event", id.as_str().unwrap(), "--yes"]);
        assert_eq!((both.code, both.out.contains("in the shards log:2/0, log:2/1")), (0, true), "{}", both.err);
        let acts = place.es(&["actions", "--limit", "2", "--json"]).json();
        let told: Vec<_> = acts.iter().map(|act| [&act["what"], &act["target"], &act["position"]]).collect();
        assert_eq!(json!(told), json!([["skip", "log:2/1", 6], ["skip", "log:2/0", 6]]));
    }
}

/// Only an event at which the reader has stopped can be skipped.
#[test]
fn an_event_at_which_no_reader_has_stopped_is_not_skipped() {
    for place in Place::filled() {
        let id = place.es(&["log", "tail", "--from", "5", "--limit", "1", "--json"]).json()[0]["id"].clone();
        let skip = ["skip", "all", "--position", "5", "--event", id.as_str().unwrap()];
        let skipped = act(&place, &[&skip[..], &["--yes"]].concat());
        assert_eq!((skipped.code, skipped.err.contains("has not stopped")), (1, true), "{}", skipped.err);
        assert_eq!(place.es(&["readers", "--json"]).json()[0]["position"], 4);
    }
}
