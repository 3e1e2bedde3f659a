//! Commands on aggregates, on every store.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::event_store;
use es_core::{
    Append, AppendError, CommandContext, Conflict, EventData, ExecuteError, Expected, IdempotencyKey, LoadError,
    NewEvent, Position, Receipt, Repository, StreamId, Version,
    backend::{
        AggregateStore, Ending, Folded, LoadedStream, PAGE_BYTES, Snapshot, SnapshotStore, Undecodable, Witness,
    },
    testing::account::{Account, AccountCommand, Overdrawn},
};

fn key(key: &str, content: &str) -> CommandContext {
    CommandContext::default().idempotent(IdempotencyKey::new(key).expect("a valid key"), content.as_bytes())
}

/// R7: half of the callers drop their command early, many of them after the store has got it. The other commands must not
/// fail because of that.
///
/// Seen to fail on Postgres, whose writer skips an append without a caller: if the repository did not finish a dropped
/// command, other commands failed with "other commands were faster".
pub async fn r7_dropped_commands_do_not_fail_others<S: AggregateStore + Clone>(store: &S) {
    let accounts = Repository::<Account>::new(store.clone());
    let mut patient = JoinSet::new();
    let mut hasty = JoinSet::new();
    for caller in 0..100_u64 {
        let deposit = {
            let accounts = accounts.clone();
            move || {
                let accounts = accounts.clone();
                async move { accounts.execute("hot", AccountCommand::Deposit(1)).await }
            }
        };
        let again = deposit.clone();
        patient.spawn(async move {
            for _ in 0..20 {
                deposit().await.expect("no other command was faster");
            }
        });
        hasty.spawn(async move {
            for round in 0_u64.. {
                let patience = Duration::from_micros((caller * 977 + round * 1_571) % 5_000);
                let _ = tokio::time::timeout(patience, again()).await;
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = patient.join_next().await {
        done.expect("every command that was waited for took effect");
    }
    hasty.shutdown().await;
    let account = accounts.load("hot").await.expect("it is there");
    assert_eq!(account.state.balance, account.version.get(), "each is there wholly or not at all");
    assert!(account.state.balance >= 2_000);
}

/// R2
pub async fn r2_every_concurrent_command_takes_effect_once<S: AggregateStore + Clone>(store: &S) {
    // Half of the clients share a cache. The others have caches of their own, as in another process.
    let repositories = [Repository::<Account>::new(store.clone()), Repository::<Account>::new(store.clone()).cache(0)];
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let accounts = repositories[client % 2].clone().attempts(1_000);
        clients.spawn(async move {
            for _ in 0..10 {
                accounts.execute("hot", AccountCommand::Deposit(1)).await.expect("it wins at last");
            }
        });
    }
    clients.join_all().await;
    let account = repositories[0].load("hot").await.expect("loaded");
    assert_eq!((account.state.balance, account.version), (80, Version::new(80)));
}

/// R6
pub async fn r6_a_repeated_command_returns_its_first_receipt<S: AggregateStore + Clone>(store: &S) {
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(10)).await.expect("executed");
    let first = accounts.execute_with("a", AccountCommand::Withdraw(10), key("k", "w10")).await.expect("executed");
    accounts.execute("a", AccountCommand::Deposit(3)).await.expect("executed");
    for repository in [&accounts, &Repository::new(store.clone())] {
        // By now the command would be refused. It succeeds because it succeeded before.
        let again =
            repository.execute_with("a", AccountCommand::Withdraw(10), key("k", "w10")).await.expect("repeated");
        assert!(again.repeated && !first.repeated);
        assert_eq!((again.version, again.position), (first.version, first.position));
        let reused = repository.execute_with("a", AccountCommand::Withdraw(1), key("k", "w1")).await;
        assert!(matches!(reused, Err(ExecuteError::Append(AppendError::KeyReused))), "{reused:?}");
    }
    assert_eq!(accounts.load("a").await.expect("loaded").version, Version::new(3));
}

/// R6
pub async fn r6_concurrent_repetitions_take_effect_once<S: AggregateStore + Clone>(store: &S) {
    let mut clients = JoinSet::new();
    for _ in 0..12 {
        let accounts = Repository::<Account>::new(store.clone());
        clients.spawn(async move { accounts.execute_with("a", AccountCommand::Deposit(5), key("k", "d5")).await });
    }
    let receipts: Vec<_> = clients.join_all().await.into_iter().map(|receipt| receipt.expect("executed")).collect();
    assert_eq!(receipts.iter().filter(|receipt| !receipt.repeated).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.position == receipts[0].position));
    assert_eq!(Repository::<Account>::new(store.clone()).load("a").await.expect("loaded").state.balance, 5);
}

async fn deposits<S: AggregateStore + Clone>(store: &S, count: u64) -> Account {
    let accounts = Repository::<Account>::new(store.clone()).snapshot_every(10);
    for amount in 1..=count {
        accounts.execute("a", AccountCommand::Deposit(amount)).await.expect("executed");
    }
    accounts.load("a").await.expect("loaded").state
}

fn stream() -> StreamId {
    StreamId::new("account", "a").expect("a valid name")
}

async fn stored_snapshot(store: &impl SnapshotStore) -> Snapshot {
    store.load_snapshot(&stream()).await.expect("loaded").expect("one was taken")
}

/// R8
pub async fn r8_snapshots_change_nothing_but_time<S: AggregateStore + Clone>(store: &S) {
    let truth = deposits(store, 37).await;
    let good = stored_snapshot(store).await;
    assert_eq!(good.version, Version::new(30));
    // A snapshot with another state and a valid checksum shows that snapshots are used at all.
    let wrong = Account { balance: 1_000_000, changes: 30 };
    let believed =
        Snapshot::of(stream(), good.version, good.last, &wrong, Folded::AsWritten).expect("it can be written");
    store.save_snapshot(believed).await.expect("saved");
    let loaded = Repository::<Account>::new(store.clone()).load("a").await.expect("loaded");
    assert_eq!(loaded.state.balance, truth.balance - (1..=30).sum::<u64>() + 1_000_000);

    let damaged = [
        Snapshot { checksum: good.checksum ^ 1, ..good.clone() },
        Snapshot { state: Bytes::from(good.state.to_vec().replace_first(b'4', b'9')), ..good.clone() },
        Snapshot { state: Bytes::new(), ..good.clone() },
        Snapshot { version: Version::new(29), ..good.clone() },
        Snapshot { state_version: 99, ..good.clone() },
        Snapshot { stream: StreamId::new("account", "b").expect("a valid name"), ..good.clone() },
    ];
    for snapshot in damaged {
        store.save_snapshot(Snapshot { stream: stream(), ..snapshot.clone() }).await.expect("saved");
        let loaded = Repository::<Account>::new(store.clone()).load("a").await.expect("loaded");
        assert_eq!((loaded.state, loaded.version), (truth.clone(), Version::new(37)), "{snapshot:?}");
    }
    let without = Repository::<Account>::new(store.clone()).snapshot_every(0);
    assert_eq!(without.load("a").await.expect("loaded").state, truth);
    // The next snapshot replaces the damaged one.
    deposits(store, 5).await;
    assert_eq!(stored_snapshot(store).await.version, Version::new(40));
}

trait ReplaceFirst {
    fn replace_first(self, from: u8, to: u8) -> Self;
}

impl ReplaceFirst for Vec<u8> {
    fn replace_first(mut self, from: u8, to: u8) -> Self {
        let found = self.iter_mut().find(|byte| **byte == from).expect("the balance is 465");
        *found = to;
        self
    }
}

/// R8
pub async fn r8_a_snapshot_of_another_history_is_ignored<S: AggregateStore + Clone>(store: &S) {
    let truth = deposits(store, 12).await;
    let wrong = Account { balance: 7, changes: 7 };
    for (version, event_id) in [(10, uuid::Uuid::now_v7()), (500, uuid::Uuid::now_v7())] {
        let foreign = Snapshot::of(stream(), Version::new(version), Ending::sent(event_id), &wrong, Folded::AsWritten)
            .expect("it can be written");
        store.save_snapshot(foreign).await.expect("saved");
        assert_eq!(Repository::<Account>::new(store.clone()).load("a").await.expect("loaded").state, truth);
    }
}

/// R8: short streams and long ones, alone and beside others, whole and in part, with a snapshot and without.
pub async fn r8_a_stream_is_loaded_as_it_is_read<S: AggregateStore + Clone>(store: &S) {
    const EVERY: usize = 1_000;
    let stream = |length: u64| StreamId::new("account", &length.to_string()).expect("a valid name");
    let lengths = [0, 1, 2, 127, 128, 129, 300];
    let mut truth = HashMap::new();
    for length in lengths {
        let events = (1..=length).map(|number| {
            let mut event = event_store::event(&format!(r#"{{"number":{number}}}"#));
            event.data.schema_version = if number % 3 == 0 { 2 } else { 1 };
            if number % 5 == 0 {
                event.data.name = "account.other".into();
            }
            event
        });
        let events: Vec<_> = events.collect();
        if !events.is_empty() {
            store.append(Append::new(stream(length), Expected::NoStream, events)).await.expect("appended");
        }
        truth.insert(length, store.read_stream(&stream(length), Version::ZERO, EVERY).await.expect("read"));
    }
    for (length, version) in [(129, 128), (300, 100), (2, 2)] {
        let event = &truth[&length][version - 1];
        let last = Ending::read(Witness::of(event));
        let snapshot = Snapshot::of(stream(length), event.version, last, &Account::default(), Folded::AsWritten);
        store.save_snapshot(snapshot.expect("it can be written")).await.expect("saved");
    }
    let assert_same = |length: u64, limit: usize, loaded: LoadedStream| {
        let first = loaded.snapshot.map_or(0, |snapshot| usize::try_from(snapshot.version.get()).expect("it is small"));
        let wanted = &truth[&length][first..];
        let found: Vec<_> = wanted.iter().map(|event| event.data.clone()).take(loaded.events.len()).collect();
        assert_eq!(loaded.events, found, "{length} events, at most {limit}");
        let last = found.len().checked_sub(1).map(|last| Witness::of(&wanted[last]));
        assert_eq!(loaded.last.filter(|_| last.is_some()), last, "{length}, {limit}");
        assert!(loaded.more || found.len() == wanted.len(), "{length}, {limit}");
    };
    for limit in [1, 100, 128, EVERY] {
        for snapshots in [false, true] {
            let mut together = JoinSet::new();
            for length in lengths {
                let alone = store.load_stream(&stream(length), snapshots, limit).await.expect("loaded");
                assert_same(length, limit, alone);
                for _ in 0..3 {
                    let (store, stream) = (store.clone(), stream(length));
                    together.spawn(async move { (length, store.load_stream(&stream, snapshots, limit).await) });
                }
            }
            for (length, loaded) in together.join_all().await {
                let loaded = loaded.expect("loaded");
                let is_there = loaded.snapshot.is_some() || !loaded.events.is_empty();
                assert!(is_there || length == 0, "{length} events are beside others to be read by pages");
                assert_same(length, limit, loaded);
            }
        }
    }
    let whole = store.load_stream(&stream(300), false, EVERY).await.expect("loaded");
    assert_eq!((whole.events.len(), whole.snapshot.is_some()), (300, false), "it is loaded in one go");
    let tail = store.load_stream(&stream(300), true, EVERY).await.expect("loaded");
    assert_eq!((tail.events.len(), tail.snapshot.is_some()), (200, true), "and so is the tail after a snapshot");
    let none = store.load_stream(&stream(300), true, 0).await.expect("loaded");
    assert!(none.events.is_empty() && none.more, "nothing was asked for");
}

/// R17: a load returns at most [`PAGE_BYTES`] and one event more, also to callers who share a statement; the rest is read in pages.
/// Seen to fail on Postgres where a load was bounded by the number of events only.
pub async fn r17_a_load_has_bounded_bytes<S: AggregateStore + Clone>(store: &S) {
    let padding = "x".repeat(900_000);
    let payload = Bytes::from(format!("{{\"amount\":1,\"padding\":\"{padding}\"}}"));
    let stream = |id: &str| StreamId::new("account", id).expect("a valid id");
    for (id, events) in [("large", 12), ("small", 3)] {
        for _ in 0..events {
            let data = EventData { name: "account.deposited".into(), schema_version: 1, payload: payload.clone() };
            let event = NewEvent { data, ..event_store::event("{}") };
            store.append(Append::new(stream(id), Expected::Any, vec![event])).await.expect("appended");
        }
    }
    let assert_bounded = |loaded: &LoadedStream, events: usize| {
        let bytes: usize = loaded.events.iter().map(|event| event.payload.len()).sum();
        assert!(bytes < PAGE_BYTES + payload.len(), "{bytes} bytes");
        assert!(loaded.more || loaded.events.len() == events, "{} events", loaded.events.len());
    };
    for snapshots in [false, true] {
        let mut together = JoinSet::new();
        for (id, events) in [("large", 12), ("small", 3)].repeat(8) {
            let (store, stream) = (store.clone(), stream(id));
            together.spawn(async move { (store.load_stream(&stream, snapshots, 1_000).await, events) });
        }
        for (loaded, events) in together.join_all().await {
            assert_bounded(&loaded.expect("loaded"), events);
        }
        assert_bounded(&store.load_stream(&stream("large"), snapshots, 1_000).await.expect("loaded"), 12);
    }
    for every in [100, 0] {
        let accounts = Repository::<Account>::new(store.clone()).snapshot_every(every);
        assert_eq!(accounts.load("large").await.expect("loaded").state.balance, 12);
        assert_eq!(accounts.load("small").await.expect("loaded").state.balance, 3);
    }
}

type Case = (&'static str, u32, &'static str, fn(&Undecodable) -> bool);

/// R14
pub async fn r14_an_undecodable_event_is_named<S: AggregateStore + Clone>(store: &S) {
    let cases: [Case; 3] = [
        (
            "account.exploded",
            1,
            "{}",
            |reason| matches!(reason, Undecodable::UnknownName(name) if name == "account.exploded"),
        ),
        ("account.deposited", 9, r#"{"amount":1}"#, |reason| {
            matches!(reason, Undecodable::UnknownVersion { found: 9, current: 1 })
        }),
        ("account.deposited", 1, r#"{"amount":"much"}"#, |reason| matches!(reason, Undecodable::Shape(_))),
    ];
    for (number, (name, version, payload, expected)) in (1..).zip(cases) {
        let id = format!("a{number}");
        let mut event = event_store::event(payload);
        (event.data.name, event.data.schema_version) = (name.into(), version);
        let stream = StreamId::new("account", &id).expect("a valid name");
        store.append(Append::new(stream.clone(), Expected::NoStream, vec![event])).await.expect("appended");
        match Repository::<Account>::new(store.clone()).load(&id).await {
            Err(LoadError::Decode(error)) => {
                assert!(expected(&error.reason), "{error:?}");
                assert_eq!(
                    (&error.stream, error.version, error.position),
                    (&stream, Version::new(1), Position::new(number))
                );
                assert_eq!((error.name.as_str(), error.schema_version), (name, version));
            }
            other => panic!("expected a decoding error, got {other:?}"),
        }
    }
}

/// A cache may be out of date; a refusal is never based on an out-of-date state.
pub async fn a_refusal_is_never_given_on_a_stale_state<S: AggregateStore + Clone>(store: &S) {
    let (here, elsewhere) = (Repository::<Account>::new(store.clone()), Repository::<Account>::new(store.clone()));
    here.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    elsewhere.execute("a", AccountCommand::Deposit(9)).await.expect("executed");
    here.execute("a", AccountCommand::Withdraw(10)).await.expect("there is enough");
    let refused = elsewhere.execute("a", AccountCommand::Withdraw(1)).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(Overdrawn { balance: 0 }))), "{refused:?}");
}

/// `If-Match`
pub async fn a_client_that_saw_another_version_is_refused<S: AggregateStore + Clone>(store: &S) {
    let accounts = Repository::<Account>::new(store.clone());
    let seen = |version| CommandContext { if_version: Some(Version::new(version)), ..CommandContext::default() };
    accounts.execute_with("a", AccountCommand::Deposit(1), seen(0)).await.expect("executed");
    let stale = accounts.execute_with("a", AccountCommand::Deposit(1), seen(0)).await;
    assert!(
        matches!(stale, Err(ExecuteError::Stale(Conflict { actual, .. })) if actual == Version::new(1)),
        "{stale:?}"
    );
    // A caller that expects no stream is refused as well, and a repeated request still gets its first outcome.
    let elsewhere = Repository::<Account>::new(store.clone());
    let stale = elsewhere.execute_with("a", AccountCommand::Deposit(1), seen(0)).await;
    assert!(matches!(stale, Err(ExecuteError::Stale(_))), "{stale:?}");
    let first = CommandContext { if_version: Some(Version::ZERO), ..key("k", "d7") };
    let created = accounts.execute_with("b", AccountCommand::Deposit(7), first.clone()).await.expect("executed");
    let again = Repository::<Account>::new(store.clone()).execute_with("b", AccountCommand::Deposit(7), first).await;
    assert_eq!(again.expect("executed"), Receipt { repeated: true, ..created });
    // Another process has appended: the cache is at version 1, the client knows a later version.
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    accounts.execute_with("a", AccountCommand::Deposit(1), seen(2)).await.expect("executed");
}

/// A decision without events is valid.
pub async fn a_command_without_events_writes_nothing<S: AggregateStore + Clone>(store: &S) {
    let accounts = Repository::<Account>::new(store.clone());
    let receipt = accounts.execute("a", AccountCommand::Deposit(0)).await.expect("executed");
    assert_eq!((receipt.version, receipt.position), (Version::ZERO, None));
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
}

/// As of any version.
pub async fn states_of_the_past_can_be_loaded<S: AggregateStore + Clone>(store: &S) {
    deposits(store, 12).await;
    let accounts = Repository::<Account>::new(store.clone());
    for version in 0..=12 {
        let loaded = accounts.load_at("a", Version::new(version)).await.expect("loaded").expect("it has come so far");
        assert_eq!((loaded.state.balance, loaded.version.get()), (version * (version + 1) / 2, version));
    }
    assert!(accounts.load_at("a", Version::new(13)).await.expect("loaded").is_none());
}
