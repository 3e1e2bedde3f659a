//! Read models that are folded when they are read.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{
    Append, EngineError, EventData, EventSet, Expected, FoldResult, KeyEvents, Keys, Live, LiveError, LiveProjection,
    MemoryStore, NewEvent, Position, Projection, Recorded, Repository, Service, ServiceStore, StreamId, Version,
    backend::{AggregateStore, Location},
    read::refold::{Moment, RefoldError},
    service::Parts,
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories},
        live_differences,
    },
};
use tokio::task::JoinSet;

use super::replaced::Replaced;
use crate::booking::{Booking, BookingCommand, BookingEvent};

/// All that a guest does: the guest's account, and bookings of any id.
#[derive(Debug, Clone, PartialEq, EventSet)]
enum GuestEvent {
    Account(AccountEvent),
    Booking(BookingEvent),
}

/// The positions of the events of each guest, in the order in which they were folded.
struct Guests;

impl Projection for Guests {
    const NAME: &'static str = "guests";
    type Event = GuestEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<GuestEvent>) -> Keys {
        match &event.data {
            GuestEvent::Account(_) => Keys::one(event.stream.id()),
            GuestEvent::Booking(BookingEvent::Made { guest, .. } | BookingEvent::Cancelled { guest, .. }) => {
                Keys::one(guest)
            }
        }
    }

    fn fold(&self, positions: &mut Option<Vec<u64>>, event: &Recorded<GuestEvent>) -> FoldResult {
        let positions = positions.get_or_insert_default();
        if positions.last().is_some_and(|last| *last >= event.position.get()) {
            return Err(format!("{} follows {positions:?}", event.position).into());
        }
        positions.push(event.position.get());
        Ok(())
    }
}

impl LiveProjection for Guests {
    fn events_of(&self, guest: &str) -> KeyEvents {
        // The first booking of a guest is in both places.
        let first = KeyEvents::stream::<BookingEvent>(guest);
        KeyEvents::stream::<AccountEvent>(guest).or(KeyEvents::tagged(format!("guest:{guest}"))).or(first)
    }
}

async fn service<S: ServiceStore + Clone>(store: &S) -> Service {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>().aggregate::<Booking>();
    builder.live(Histories).live(Guests).parts(Parts::None).start().await.expect("it starts")
}

/// R13: each writer reads what it has written, beside others on the same document. (Seen to fail where a cached document was
/// returned without a look at the log, and where the event after the last known one was skipped.)
pub async fn r13_a_live_read_sees_all_that_was_written_before_it<S: ServiceStore + Clone>(store: &S) {
    let service = service(store).await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        // All write to one stream: on a busy machine one of them may lose many times in a row.
        let (accounts, live) = (service.repository::<Account>().attempts(1_000), service.live::<Histories>());
        // Another process shares no cache.
        let elsewhere = Repository::<Account>::new(store.clone()).attempts(1_000);
        let own = Live::new(Histories, store.clone());
        writers.spawn(async move {
            for turn in 0..10 {
                let writer = if turn % 2 == 0 { &accounts } else { &elsewhere };
                let receipt = writer.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
                for live in [&live, &own] {
                    let history = live.get("a").await.expect("folded").expect("it is there");
                    assert!(history.len() as u64 >= receipt.version.get(), "{} of {}", history.len(), receipt.version);
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no panic");
    }
    let live = service.live::<Histories>();
    assert_eq!(live.get("a").await.expect("folded"), Some((1..=80).collect()));
    assert_eq!(live.get("b").await.expect("folded"), None);
    assert_eq!(live.get("no stream\n").await.expect("folded"), None);
}

/// R9: the events of two kinds of aggregates in one document, in the order of the log, each once, also while they are written.
/// (Seen to fail where an event in two places was folded twice, and where the end of one place was not remembered.)
pub async fn r9_a_live_document_of_several_streams_is_at_each_read_the_fold_of_the_log<S: ServiceStore + Clone>(
    store: &S,
) {
    let service = service(store).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut reads = JoinSet::new();
    for number in 0..4 {
        let live = if number == 0 { Live::new(Guests, store.clone()).cache_bytes(0) } else { service.live::<Guests>() };
        let is_over = is_over.clone();
        reads.spawn(async move {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.push(live.get("ada").await.expect("folded").unwrap_or_default());
                // A store in memory answers at once, and the reads would keep the writers from running.
                tokio::task::yield_now().await;
            }
            seen
        });
    }
    let mut writers = JoinSet::new();
    for writer in 0..4_u32 {
        let (accounts, bookings) = (service.repository::<Account>(), service.repository::<Booking>());
        writers.spawn(async move {
            for night in 0..25 {
                for guest in ["ada", "bob"] {
                    if writer % 2 == 0 {
                        accounts.execute(guest, AccountCommand::Deposit(1)).await.expect("executed");
                        continue;
                    }
                    let id =
                        if (writer, night) == (1, 0) { guest.to_owned() } else { format!("{guest}-{writer}-{night}") };
                    let command = BookingCommand::Make { room: writer, night, guest: guest.to_owned() };
                    bookings.execute(id, command).await.expect("executed");
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no panic");
    }
    is_over.store(true, Ordering::Relaxed);
    let live = service.live::<Guests>();
    assert_eq!(live_differences(&live, store).await.expect("folded"), Vec::<String>::new());
    let all = live.get("ada").await.expect("folded").expect("it is there");
    assert_eq!(all.len(), 100);
    for seen in reads.join_all().await.into_iter().flatten() {
        assert_eq!(seen, all[..seen.len()], "a read has missed an event before others");
    }
}

/// R9: between the reads of two streams an event is written to each of them. (Seen to fail where each was read to its end: the
/// document had the later event alone.)
pub async fn r9_a_live_read_of_several_streams_is_of_one_moment<S: ServiceStore + Clone>(store: &S) {
    let server: Arc<dyn AggregateStore> = Arc::new(store.clone());
    let server = Arc::new(Replaced::new([server.clone(), server]));
    let live = Live::new(Guests, server.clone());
    let account = StreamId::new("account", "ada").expect("a valid name");
    let booking = BookingEvent::Made { room: 1, night: 1, guest: "ada".to_owned() };
    let booking = NewEvent::of(&booking).expect("an event");
    let stream = StreamId::new("booking", "1").expect("a valid name");
    server.after_the_next_read(vec![
        Append::new(account, Expected::Any, amounts(1, 1)),
        Append::new(stream, Expected::Any, vec![booking]),
    ]);
    assert_eq!(live.get("ada").await.expect("folded"), None);
    assert_eq!(live.get("ada").await.expect("folded"), Some(vec![1, 2]));
}

fn amounts(amount: u64, count: usize) -> Vec<NewEvent> {
    (0..count).map(|_| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event")).collect()
}

/// The sum of all deposits of an account, found by its stream.
struct Balance;

impl Projection for Balance {
    const NAME: &'static str = "balance";
    type Event = AccountEvent;
    type Document = (u64, u64);

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, sum: &mut Option<(u64, u64)>, event: &Recorded<AccountEvent>) -> FoldResult {
        let AccountEvent::Deposited { amount } = event.data else { return Err("no deposit".into()) };
        let (sum, count) = sum.get_or_insert_default();
        (*sum, *count) = (*sum + amount, *count + 1);
        Ok(())
    }
}

impl LiveProjection for Balance {}

/// R3: a server that lacks the end of the log takes over between two reads, or between two pages of one. (Seen to fail where each
/// page was read after a version and not after an event.)
pub async fn r3_a_live_document_is_not_folded_from_two_histories<S: ServiceStore + Clone>(store: &S) {
    const EVENTS: usize = 2_500;
    let memory: Arc<dyn AggregateStore> = Arc::new(MemoryStore::new());
    let servers: [Arc<dyn AggregateStore>; 2] = [memory, Arc::new(store.clone())];
    for (server, amount) in servers.iter().zip([1, 2]) {
        let stream = StreamId::new("account", "a").expect("a valid name");
        let append = Append::new(stream, Expected::NoStream, amounts(amount, EVENTS));
        server.append(append).await.expect("appended");
    }
    for before in 1..4 {
        let server = Arc::new(Replaced::new(servers.clone()));
        let live = Live::new(Balance, server.clone());
        server.replace_after(before);
        let expected = if before == 3 { 2_500 } else { 5_000 };
        assert_eq!(live.get("a").await.expect("folded"), Some((expected, 2_500)), "{before} reads");
        assert_eq!(live.get("a").await.expect("folded"), Some((5_000, 2_500)), "{before} reads");
        server.replace_after(1);
        assert_eq!(live.get_as_of("a", Moment::Now).await.expect("folded"), Some((5_000, 2_500)), "{before} reads");
    }
}

/// R14: and reads of other keys go on, as does the key up to the event. (Seen to fail where what cannot be decoded was skipped.)
pub async fn r14_a_live_read_names_the_event_that_fails<S: ServiceStore + Clone>(store: &S) {
    let service = service(store).await;
    let (accounts, live) = (service.repository::<Account>(), Live::new(Balance, store.clone()));
    for id in ["a", "b", "c"] {
        accounts.execute(id, AccountCommand::Deposit(7)).await.expect("executed");
    }
    assert_eq!(live.get("a").await.expect("folded"), Some((7, 1)));
    accounts.execute("a", AccountCommand::Withdraw(1)).await.expect("executed");
    let unknown = EventData { name: "account.closed".into(), schema_version: 1, payload: "{}".into() };
    let mut event = amounts(1, 1).remove(0);
    event.data = unknown;
    let stream = StreamId::new("account", "b").expect("a valid name");
    store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");

    let named = |position, event: &str| Location { position: Position::new(position), event: event.to_owned() };
    for _ in 0..2 {
        match live.get("a").await {
            Err(LiveError::Fold(EngineError::Unfoldable { key, event, .. })) => {
                assert_eq!((key.as_str(), event), ("a", named(4, "account-a@2")));
            }
            other => panic!("{other:?}"),
        }
        match live.get("b").await {
            Err(LiveError::Fold(EngineError::Decode(error))) => assert_eq!(error.position, Position::new(5)),
            other => panic!("{other:?}"),
        }
        assert_eq!(live.get("c").await.expect("folded"), Some((7, 1)));
    }
    let before = Moment::Version(Version::new(1));
    assert_eq!(live.get_as_of("a", before).await.expect("folded"), Some((7, 1)));
}

/// By position, time and, where its events are those of one stream, version.
pub async fn a_live_document_is_folded_up_to_a_moment<S: ServiceStore + Clone>(store: &S) {
    let service = service(store).await;
    for id in ["a", "b", "a", "a"] {
        service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await.expect("executed");
    }
    let events = store.read_log(Position::ZERO, 10).await.expect("read");
    let (histories, guests) = (service.live::<Histories>(), service.live::<Guests>());
    let (position, version) =
        (|position| Moment::Position(Position::new(position)), |version| Moment::Version(Version::new(version)));
    assert_eq!(histories.get_as_of("a", position(3)).await.expect("folded"), Some(vec![1, 2]));
    assert_eq!(histories.get_as_of("a", position(0)).await.expect("folded"), None);
    assert_eq!(histories.get_as_of("a", version(2)).await.expect("folded"), Some(vec![1, 2]));
    assert_eq!(histories.get_as_of("a", Moment::Now).await.expect("folded"), Some(vec![1, 2, 3]));
    assert_eq!(guests.get_as_of("a", position(3)).await.expect("folded"), Some(vec![1, 3]));
    let before = Moment::Time(events[2].recorded_at - chrono::TimeDelta::microseconds(1));
    let earlier = events.iter().filter(|event| event.recorded_at < events[2].recorded_at);
    let expected: Vec<_> = earlier.filter(|event| event.stream.id() == "a").map(|event| event.position.get()).collect();
    assert_eq!(guests.get_as_of("a", before).await.expect("folded").unwrap_or_default(), expected);
    let named = service.as_of_named("guests", "a", position(3)).await.expect("folded");
    assert_eq!((named.document.as_deref(), named.events, named.position), (Some(&b"[1,3]"[..]), 2, Position::new(3)));
    let late = service.as_of_named("histories", "a", version(4)).await;
    assert!(matches!(late, Err(RefoldError::NoSuchVersion { version: 4, found: 3, .. })), "{late:?}");
    let not_stored = service.verify_named("guests", 1.0, &mut |_| {}).await;
    assert!(matches!(not_stored, Err(RefoldError::Live { name: "guests" })), "{not_stored:?}");
    let unknown = service.as_of_named("guest", "a", Moment::Now).await;
    let known = ["histories".to_owned(), "guests".to_owned()];
    assert!(matches!(&unknown, Err(RefoldError::Unknown { known: found, .. }) if *found == known), "{unknown:?}");
    // A read of the past leaves the present as it is.
    assert_eq!(histories.get("a").await.expect("folded"), Some(vec![1, 2, 3]));

    let late = histories.get_as_of("a", version(4)).await;
    assert!(
        matches!(late, Err(LiveError::NoSuchVersion { wanted, found, .. }) if (wanted.get(), found.get()) == (4, 3))
    );
    let gathered = guests.get_as_of("a", version(1)).await;
    assert!(matches!(gathered, Err(LiveError::NoVersions { projection: "guests" })), "{gathered:?}");
}
