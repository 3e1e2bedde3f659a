//! The commands that need the types of an application, on a service of a test.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod dlq;
mod operators;
mod relays;
mod texts;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use es_cli::{CommandError, Outcome, Output, ServiceCommand};
use es_core::{
    Append, EventData, EventStore, Expected, FailurePolicy, MemoryStore, NewEvent, Service, ServiceBuilder,
    backend::{Changes, Documents, GenerationState, Generations, Leases, Shard, Takeover},
    service::Parts,
    testing::account::{Account, AccountCommand, Histories, Ledger},
};
use es_sqlite::SqliteStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: ServiceCommand,
}

/// What is printed.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn accounts(store: &MemoryStore) -> ServiceBuilder {
    Service::builder("accounts", store.clone())
        .aggregate::<Account>()
        .on_failure(FailurePolicy::park())
        .projection(Histories)
        .projection(Ledger::<1>::default())
}

/// The log of three deposits, which both read models have.
async fn filled() -> MemoryStore {
    let store = MemoryStore::new();
    let service = accounts(&store).start().await.unwrap();
    for id in ["a", "b", "a"] {
        service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await.unwrap();
    }
    service.settled(PATIENCE).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();
    store
}

async fn run(store: &MemoryStore, arguments: &[&str]) -> (Result<Outcome, CommandError>, String) {
    run_with(accounts(store), arguments).await
}

async fn run_with(service: ServiceBuilder, arguments: &[&str]) -> (Result<Outcome, CommandError>, String) {
    let command = Program::try_parse_from([&["accounts"], arguments].concat()).unwrap().command;
    let paper = Paper::default();
    let ended = command.run(service, CancellationToken::new(), &mut Output::to(paper.clone())).await;
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    (ended, text)
}

async fn lines(store: &MemoryStore, arguments: &[&str]) -> (Outcome, Vec<Value>) {
    let (ended, text) = run(store, arguments).await;
    (ended.unwrap(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Writes into the read model what no event says.
async fn forge(store: &MemoryStore) {
    let serving = store.generations("histories").await.unwrap().serving.unwrap().generation;
    let log = Shard::whole("log");
    let lease =
        store.acquire(&serving.reader, &log, Uuid::now_v7(), Takeover::Always, PATIENCE).await.unwrap().unwrap();
    let upserts = vec![("a".to_owned(), "[1,7]".into()), ("c".to_owned(), "[1]".into())];
    let checkpoint = lease.checkpoint.clone();
    let changes = Changes { upserts, deletes: vec!["b".to_owned()], checkpoint, ..Changes::default() };
    store.commit(&lease, changes).await.unwrap();
    store.release(&lease).await.unwrap();
}

#[tokio::test]
async fn verify_names_each_document_that_differs_and_a_rebuild_corrects_it() {
    let store = filled().await;
    let (outcome, summary) = lines(&store, &["verify", "histories", "--json"]).await;
    assert_eq!((outcome, &summary[0]["compared"], &summary[0]["differing"]), (Outcome::Well, &json!(2), &json!(0)));
    assert_eq!((&summary[0]["position"], &summary[0]["projection"]), (&json!(3), &json!("histories")));

    forge(&store).await;
    let (outcome, found) = lines(&store, &["verify", "histories", "--json"]).await;
    assert_eq!((outcome, found.len(), &found[3]["differing"]), (Outcome::No, 4, &json!(3)));
    assert_eq!(found[0], json!({"key": "a", "kind": "differs", "fields": ["/1"]}), "no data unless asked");
    assert_eq!((&found[1]["kind"], &found[2]["kind"]), (&json!("missing"), &json!("extra")));
    let (_, found) = lines(&store, &["verify", "histories", "--data", "--json"]).await;
    assert_eq!((&found[0]["stored"], &found[0]["folded"]), (&json!([1, 7]), &json!([1, 2])));
    let (_, text) = run(&store, &["verify", "histories"]).await;
    assert!(text.contains("differs   \"a\" in /1") && text.contains("3 differ"), "{text}");
    let (outcome, few) = lines(&store, &["verify", "histories", "--sample", "0.0001%", "--json"]).await;
    assert_eq!((outcome, &few[0]["compared"]), (Outcome::Well, &json!(0)));

    let (outcome, planned) = lines(&store, &["rebuild", "histories", "--dry-run", "--json"]).await;
    assert_eq!(
        (outcome, &planned[0]["events"], &planned[0]["projection"]),
        (Outcome::Well, &json!(3), &json!("histories"))
    );
    assert_eq!(lines(&store, &["verify", "histories", "--json"]).await.0, Outcome::No, "a dry run does nothing");
    let (outcome, rebuilt) =
        lines(&store, &["rebuild", "histories", "--from", "log", "--reason", "ticket 7", "--actor", "ada", "--json"])
            .await;
    assert_eq!((outcome, &rebuilt[0]["projection"]), (Outcome::Well, &json!("histories")));
    assert_eq!(lines(&store, &["verify", "histories", "--json"]).await.0, Outcome::Well);
    let (_, acts) = lines(&store, &["actions", "--json"]).await;
    let told: Vec<_> = acts.iter().map(|act| (&act["what"], &act["actor"], &act["reason"])).collect();
    let by_ada = |what| (what, &acts[0]["actor"], &acts[0]["reason"]);
    assert_eq!((told, &acts[0]["actor"]), (vec![by_ada(&json!("promote")), by_ada(&json!("rebuild"))], &json!("ada")));
}

/// So the program of an application ends as `es` does: with 3 if there is no store, with 4 if the file is something else.
#[tokio::test]
async fn a_store_that_is_not_opened_tells_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.db");
    let open = async || SqliteStore::options(&file).migrate(false).open().await.map_err(CommandError::from);
    let missing = open().await.unwrap_err();
    assert!(matches!(&missing, CommandError::Unreachable { advice, .. } if advice.contains("es migrate")));
    std::fs::write(&file, "no database, but as long as the header of one: ".repeat(4)).unwrap();
    let other = open().await.unwrap_err();
    assert!(matches!(&other, CommandError::Unfit { .. }), "{other:?}");
}

/// A mistyped path must make no file for them.
#[test]
fn only_run_may_create_the_store() {
    for (arguments, may) in [
        (&["run"][..], true),
        (&["readers"], false),
        (&["verify", "histories"], false),
        (&["rebuild", "histories"], false),
        (&["pause", "histories", "--reason", "ticket 7"], false),
    ] {
        let Program { command } = Program::parse_from([&["accounts"], arguments].concat());
        assert_eq!(command.may_migrate(), may, "{arguments:?}");
    }
}

/// Seen to fail where it said only that the read model is rebuilt.
#[tokio::test]
async fn a_rebuild_tells_how_many_keys_are_parked_in_it() {
    let store = filled().await;
    let (_, rebuilt) = lines(&store, &["rebuild", "histories", "--json"]).await;
    assert_eq!(rebuilt[0]["parkedKeys"], 0);
    let throttled = ["rebuild", "histories", "--keep-append-p99", "5ms", "--json"];
    assert_eq!(lines(&store, &throttled).await.1[0]["parkedKeys"], 0);
    let data =
        EventData { name: "account.deposited".into(), schema_version: 1, payload: r#"{"amount":"much"}"#.into() };
    let append = Append::new("account-b".parse().unwrap(), Expected::Any, vec![NewEvent::new(data)]);
    store.append(append).await.unwrap();
    let (outcome, rebuilt) = lines(&store, &["rebuild", "histories", "--json"]).await;
    assert_eq!((outcome, &rebuilt[0]["parkedKeys"]), (Outcome::Well, &json!(1)), "it serves");
    let (_, text) = run(&store, &["rebuild", "histories"]).await;
    assert!(text.contains("1 key parked in it: `dead-letters list histories`"), "{text}");
    assert_eq!(lines(&store, &["dead-letters", "list", "histories", "--json"]).await.1.len(), 1);
}

/// R22
#[tokio::test]
async fn r22_a_rebuild_is_cancelled_from_another_process_if_that_is_meant() {
    let store = filled().await;
    let cancel = ["cancel-rebuild", "histories", "--reason", "too slow", "--actor", "ada"];
    let yes = [&cancel[..], &["--yes"]].concat();
    assert!(matches!(run(&store, &yes).await.0, Err(CommandError::Missing(_))), "there is none");
    let definition = "projection Histories of account in per-stream order";
    store.ensure_generation("histories", 1, GenerationState::Building, definition, &[]).await.unwrap();
    assert!(matches!(run(&store, &cancel).await.0, Err(CommandError::Usage { .. })), "it is not said that it is meant");
    assert!(store.generations("histories").await.unwrap().building.is_some());
    assert_eq!(run(&store, &yes).await.0.unwrap(), Outcome::Well);
    assert!(store.generations("histories").await.unwrap().building.is_none());
    let (_, acts) = lines(&store, &["actions", "--json"]).await;
    assert_eq!((acts.len(), &acts[0]["what"], &acts[0]["reason"]), (1, &json!("cancel-rebuild"), &json!("too slow")));
}

/// R22
#[tokio::test]
async fn r22_documents_that_differ_are_mended_if_that_is_meant() {
    let store = filled().await;
    forge(&store).await;
    let heal = ["verify", "histories", "--heal", "--reason", "ticket 7", "--actor", "ada", "--json"];
    assert!(matches!(run(&store, &heal).await.0, Err(CommandError::Usage { .. })), "it is not said that it is meant");
    let (outcome, told) = lines(&store, &[&heal[..], &["--yes"]].concat()).await;
    let summary = told.last().expect("a summary");
    assert_eq!((outcome, &summary["differing"], &summary["mended"]), (Outcome::Well, &json!(3), &json!(3)));
    assert_eq!(lines(&store, &["verify", "histories", "--json"]).await.0, Outcome::Well);
    let (_, acts) = lines(&store, &["actions", "--json"]).await;
    assert!(acts.iter().all(|act| act["what"] == "heal" && act["reason"] == "ticket 7"), "{acts:?}");
    assert_eq!(acts.len(), 3);
    assert!(Program::try_parse_from(["accounts", "verify", "histories", "--heal"]).is_err(), "why is not said");
}

#[tokio::test]
async fn a_document_is_printed_as_of_a_moment() {
    let store = filled().await;
    let (outcome, now) = lines(&store, &["as-of", "histories", "a", "--json"]).await;
    assert_eq!(outcome, Outcome::Well);
    let whole = json!({"projection": "histories", "key": "a", "position": 3, "events": 2, "document": [1, 2]});
    assert_eq!(now[0], whole);
    assert_eq!(run(&store, &["as-of", "histories", "a", "--version", "1"]).await.1, "[1]\n");
    assert_eq!(run(&store, &["as-of", "histories", "a", "--position", "2"]).await.1, "[1]\n");
    assert_eq!(run(&store, &["as-of", "histories", "a", "--time", "2999-01-01T00:00:00Z"]).await.1, "[1,2]\n");
    for missing in [&["as-of", "histories", "a", "--version", "3"][..], &["as-of", "histories", "b", "--position", "1"]]
    {
        let (ended, text) = run(&store, missing).await;
        assert!(matches!(ended, Err(CommandError::Missing(_))) && text.is_empty(), "{missing:?}");
    }
    let (ended, _) = run(&store, &["as-of", "ledger", "all", "--version", "1"]).await;
    assert!(matches!(ended, Err(CommandError::Usage { .. })), "{ended:?}");
}

#[tokio::test]
async fn documents_that_would_be_others_are_named() {
    let store = filled().await;
    let (outcome, found) = lines(&store, &["what-if", "histories", "--without", "3", "--json", "--data"]).await;
    assert_eq!(outcome, Outcome::Well);
    let differs = json!({"key": "a", "kind": "differs", "fields": ["/1"], "actual": [1, 2], "hypothetical": [1]});
    assert_eq!(found, [differs]);
    let added = r#"account-z account.deposited 1 {"amount":1}"#;
    let (_, text) = run(&store, &["what-if", "histories", "--add", added]).await;
    assert_eq!(text, "new      \"z\"\n1 document would be another one\n");
    let (ended, _) = run(&store, &["what-if", "histories", "--without", "9"]).await;
    assert!(matches!(ended, Err(CommandError::Missing(_))), "{ended:?}");
    let (ended, _) = run(&store, &["what-if", "histories", "--replace", r#"1={"amount":"much"}"#]).await;
    assert!(matches!(ended, Err(CommandError::Unfit { .. })), "{ended:?}");
}

/// Seen to fail where it ended with the error, and told of no document.
#[tokio::test]
async fn an_event_that_could_not_be_folded_after_a_change_is_found() {
    let store = filled().await;
    let (outcome, found) = lines(&store, &["what-if", "histories", "--without", "1", "--json"]).await;
    assert_eq!((outcome, found.len(), &found[0]["kind"]), (Outcome::No, 2, &json!("gone")));
    assert_eq!(
        (&found[1]["kind"], &found[1]["key"], &found[1]["position"]),
        (&json!("hindered"), &json!("a"), &json!(3))
    );
    assert!(found[1]["cause"].as_str().unwrap().contains("account-a@2 at position 3 cannot be folded"), "{found:?}");
    let (_, text) = run(&store, &["what-if", "histories", "--without", "1"]).await;
    assert!(text.contains("hindered \"a\" from position 3 on: ") && text.contains("1 document could not be"), "{text}");
}

#[tokio::test]
async fn names_that_are_not_registered_are_wrong_arguments() {
    let store = filled().await;
    for command in ["verify", "rebuild", "run"] {
        let (ended, _) = run(&store, &[command, "revenue"]).await;
        let error = ended.unwrap_err();
        let advice = error.advice().unwrap_or_default();
        assert!(matches!(&error, CommandError::Usage { .. }) && advice.contains("histories, ledger"), "{error:?}");
    }
    assert!(Program::try_parse_from(["accounts", "verify", "histories", "--sample", "2"]).is_err());
}

/// And the commands of a store are there too.
#[tokio::test]
async fn the_chosen_parts_run_until_the_process_is_told_to_stop() {
    let store = filled().await;
    let idle = accounts(&store).parts(Parts::None).start().await.unwrap();
    idle.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (store, shutdown) = (store.clone(), shutdown.clone());
        async move {
            let command = Program::parse_from(["accounts", "run", "histories"]).command;
            assert_eq!(command.parts(), Parts::named(["histories"]));
            command.run(accounts(&store), shutdown, &mut Output::to(io::sink())).await
        }
    });
    let reached = || async { store.reached("histories").await.unwrap().get() };
    tokio::time::timeout(PATIENCE, async {
        while reached().await < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(store.reached("ledger").await.unwrap().get(), 3, "nothing else runs");
    shutdown.cancel();
    assert_eq!(running.await.unwrap().unwrap(), Outcome::Well);
    let (outcome, readers) = lines(&store, &["readers", "--json"]).await;
    assert_eq!((outcome, readers.len()), (Outcome::Well, 2));
}
