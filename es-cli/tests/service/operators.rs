//! What operators are told about read models of each kind, and the commands that they are told to run.

use std::time::Duration;

use clap::Parser;
use es_cli::{CommandError, Outcome};
use es_core::{
    EventStore, MemoryStore, Position, Service, ServiceBuilder,
    backend::{Documents, GenerationState, Generations, Leases, Shard, Takeover},
    service::Parts,
    testing::account::{Account, AccountCommand, Histories, Ledger, Turnover},
};
use uuid::Uuid;

use super::{PATIENCE, Program, accounts, filled, run, run_with};

/// With a live read model and an inline one.
fn of_each_kind(store: &MemoryStore) -> ServiceBuilder {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    builder.live(Histories).inline(Ledger::<1>::default()).projection(Turnover)
}

async fn doctor(store: &MemoryStore) -> (Outcome, String) {
    let (outcome, text) = run(store, &["doctor"]).await;
    (outcome.unwrap(), text)
}

/// Seen to fail where the service had no such read model.
#[tokio::test]
async fn a_live_read_model_is_told_to_be_one_and_folded_as_of_a_moment() {
    let store = filled().await;
    for command in
        [&["verify", "histories"][..], &["rebuild", "histories"], &["what-if", "histories", "--without", "1"]]
    {
        let error = run_with(of_each_kind(&store), command).await.0.unwrap_err();
        let advice = error.advice().unwrap_or_default();
        assert!(
            matches!(error, CommandError::Usage { .. }) && error.to_string().contains("live read model"),
            "{error}"
        );
        assert!(advice.contains("`as-of histories <key>`"), "{advice}");
    }
    assert_eq!(run_with(of_each_kind(&store), &["as-of", "histories", "a"]).await.1, "[1,2]\n");
}

#[tokio::test]
async fn an_inline_read_model_is_verified_rebuilt_and_folded_as_of_a_moment() {
    let store = MemoryStore::new();
    let service = of_each_kind(&store).start().await.unwrap();
    service.settled(PATIENCE).await.unwrap();
    service.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();
    let (ended, text) = run_with(of_each_kind(&store), &["verify", "ledger"]).await;
    assert_eq!((ended.unwrap(), &*text), (Outcome::Well, "compared 1 document up to position 1: 0 differ\n"));
    let (ended, text) = run_with(of_each_kind(&store), &["as-of", "ledger", "all"]).await;
    assert!(ended.unwrap() == Outcome::Well && text.contains("[1]"), "{text}");
    assert_eq!(run_with(of_each_kind(&store), &["rebuild", "ledger"]).await.0.unwrap(), Outcome::Well);
    let (ended, text) = run_with(of_each_kind(&store), &["what-if", "ledger", "--without", "1"]).await;
    assert!(ended.unwrap() == Outcome::Well && text.contains("gone"), "{text}");
}

/// Seen to fail where it was silent, and then told of a lag that no worker holds.
#[tokio::test]
async fn doctor_tells_a_first_build_from_a_read_model_that_lags() {
    let store = MemoryStore::new();
    let service = accounts(&store).parts(Parts::None).start().await.unwrap();
    service.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();
    let (outcome, text) = doctor(&store).await;
    assert_eq!(outcome, Outcome::Warnings, "{text}");
    assert!(text.contains("histories has not been built yet"), "{text}");
    assert!(text.contains("what to do: start a process that runs it"), "{text}");

    let definition = "projection Histories of account in per-stream order";
    let made = store.ensure_generation("histories", 1, GenerationState::Building, definition, &[]).await.unwrap();
    let (_, text) = doctor(&store).await;
    assert!(text.contains("histories has not been built to the end yet, so it cannot be read"), "{text}");
    assert!(text.contains("ledger has not been built yet") && !text.contains("lags by"), "{text}");

    let log = Shard::whole("log");
    store.ensure_shards(&made.reader, std::slice::from_ref(&log)).await.unwrap();
    let lease = store.acquire(&made.reader, &log, Uuid::now_v7(), Takeover::Always, Duration::from_mins(1)).await;
    let lease = lease.unwrap().unwrap();
    let (_, text) = doctor(&store).await;
    assert!(text.contains("readers: histories is being built for the first time, is at position 0 of 1"), "{text}");

    let events = store.read_log(Position::ZERO, 1).await.unwrap();
    store.stopped(&lease, &events[0], "it cannot be").await.unwrap();
    let (outcome, text) = doctor(&store).await;
    assert_eq!(outcome, Outcome::No);
    assert!(text.contains("histories, as it is being built for the first time, has stopped at position 1"), "{text}");
    assert!(!text.contains("What serves") && !text.contains("histories is being built for"), "{text}");
}

/// Seen to fail where the printed commands had no `--reason`.
#[tokio::test]
async fn r22_a_command_that_is_printed_can_be_run_as_it_is() {
    let store = filled().await;
    let serving = store.generations("histories").await.unwrap().serving.unwrap().generation;
    let log = Shard::whole("log");
    let lease =
        store.acquire(&serving.reader, &log, Uuid::now_v7(), Takeover::Always, PATIENCE).await.unwrap().unwrap();
    let service = accounts(&store).parts(Parts::None).start().await.unwrap();
    service.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();
    let events = store.read_log(Position::new(3), 1).await.unwrap();
    store.stopped(&lease, &events[0], "it cannot be").await.unwrap();
    assert_eq!(
        run(&store, &["pause", "ledger", "--reason", "ticket 7", "--actor", "ada"]).await.0.unwrap(),
        Outcome::Well
    );

    let (_, text) = doctor(&store).await;
    let wrong = ["skip", "histories", "--position", "9", "--event", &Uuid::nil().to_string(), "--reason", "ticket 7"];
    let refused = run(&store, &[&wrong[..], &["--actor", "ada"]].concat()).await.0.unwrap_err().to_string();
    let printed = |text: &str, verb: &str| {
        // The program of this test has a name of its own.
        let named = |part: &&str| part.split_whitespace().nth(1) == Some(verb);
        let commands: Vec<_> = text.split('`').filter(named).collect();
        let [command] = commands[..] else { panic!("{verb} is printed once: {text}") };
        // As a shell splits it.
        let parts = command.split('"').enumerate().flat_map(|(number, part)| {
            if number % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
        });
        parts.skip(1).collect::<Vec<_>>()
    };
    for command in [printed(&text, "skip"), printed(&text, "resume"), printed(&refused, "skip")] {
        let parsed = Program::try_parse_from([&["accounts".to_owned()][..], &command].concat());
        assert!(parsed.is_ok(), "{command:?}");
    }
    let resume = printed(&text, "resume");
    let arguments: Vec<_> = resume.iter().map(String::as_str).chain(["--actor", "ada"]).collect();
    assert_eq!(run(&store, &arguments).await.0.unwrap(), Outcome::Well);
    let skip = printed(&refused, "skip");
    let arguments: Vec<_> = skip.iter().map(String::as_str).chain(["--actor", "ada", "--yes"]).collect();
    assert_eq!(run(&store, &arguments).await.0.unwrap(), Outcome::Well);
}
