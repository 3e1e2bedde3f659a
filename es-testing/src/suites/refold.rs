//! Read models that are folded again from the log.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    EventData, Position, Service, ServiceStore, StreamId, Version,
    backend::{Changes, ReadModelStore, Takeover},
    read::refold::{Difference, Moment, RefoldError, WhatIf},
    service::Parts,
    testing::account::{Account, AccountCommand, Histories, Ledger, Turnover},
};
use uuid::Uuid;

use super::engines_project::PATIENCE;

async fn service<S: ServiceStore + Clone>(store: &S, parts: Parts) -> Service {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection(Histories).projection(Ledger::<1>::default()).projection(Turnover);
    builder.parts(parts).start().await.expect("it starts")
}

async fn deposit(service: &Service, id: &str, amount: u64) {
    service.repository::<Account>().execute(id, AccountCommand::Deposit(amount)).await.expect("executed");
}

/// Writes into a read model what no event says.
pub(super) async fn forge<S: ReadModelStore>(
    store: &S,
    model: &str,
    upserts: &[(&str, &'static str)],
    deletes: &[&str],
) {
    let serving = store.generations(model).await.expect("asked").serving.expect("it serves");
    let log = es_core::backend::Shard::whole("log");
    let ttl = Duration::from_mins(1);
    let lease = store.acquire(&serving.generation.reader, &log, Uuid::now_v7(), Takeover::Always, ttl).await;
    let lease = lease.expect("asked").expect("it is there");
    let changes = Changes {
        upserts: upserts.iter().map(|(key, document)| ((*key).to_owned(), Bytes::from(*document))).collect(),
        deletes: deletes.iter().map(|key| (*key).to_owned()).collect(),
        checkpoint: lease.checkpoint.clone(),
        ..Changes::default()
    };
    store.commit(&lease, changes).await.expect("committed");
    store.release(&lease).await.expect("released");
}

async fn differences(service: &Service, model: &str, share: f64) -> (u64, Vec<Difference>) {
    let mut found = Vec::new();
    let verified =
        service.verify_named(model, share, &mut |difference| found.push(difference)).await.expect("verified");
    assert_eq!(verified.differing, found.len() as u64);
    (verified.compared, found)
}

/// Each kind of drift is found, on each page (a page has 100 documents), and nothing else.
pub async fn r9_a_verification_finds_each_document_that_is_not_the_fold_of_the_log<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::All).await;
    for number in 0..500 {
        deposit(&service, &format!("a{:03}", number % 250), 1).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    for model in ["histories", "ledger", "turnover"] {
        assert_eq!(differences(&service, model, 1.0).await.1, [], "{model}");
    }
    assert_eq!(differences(&service, "histories", 1.0).await.0, 250);

    let forged = [("a001", "[1]"), ("a0015", "[1]"), ("a200", "no JSON"), ("zzz", "[1]")];
    forge(store, "histories", &forged, &["a000", "a150", "a249"]).await;
    let (_, found) = differences(&service, "histories", 1.0).await;
    let keys: Vec<_> = found.iter().map(|difference| difference.key.as_str()).collect();
    assert_eq!(keys, ["a000", "a001", "a0015", "a150", "a200", "a249", "zzz"]);
    let documents: Vec<_> = found.iter().map(|found| (found.stored.as_deref(), found.folded.as_deref())).collect();
    let right = Some(&b"[1,2]"[..]);
    assert_eq!(documents[0], (None, right));
    assert_eq!(documents[1], (Some(&b"[1]"[..]), right));
    assert_eq!(documents[2], (Some(&b"[1]"[..]), None));
    assert_eq!((documents[3], documents[4].1), ((None, right), right));
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// A sample has always the same keys, and about as many as were asked for.
pub async fn a_sample_is_a_part_of_all_documents<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::All).await;
    for number in 0..250 {
        deposit(&service, &format!("a{number:03}"), 1).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    let (compared, found) = differences(&service, "histories", 0.2).await;
    assert_eq!(found, []);
    assert!((20..90).contains(&compared), "{compared} of 250");
    assert_eq!(differences(&service, "histories", 0.2).await.0, compared);
    assert_eq!(differences(&service, "histories", 0.0).await.0, 0);
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// Documents change while they are compared. Seen to fail where they were compared with one position only.
pub async fn r9_a_verification_beside_writers_finds_nothing<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::All).await;
    for number in 0..150 {
        deposit(&service, &format!("a{number:03}"), 1).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    let writer = tokio::spawn({
        let service = service.clone();
        async move {
            for number in 0..u64::MAX {
                deposit(&service, &format!("a{:03}", number % 200), 1).await;
            }
        }
    });
    for _ in 0..10 {
        for model in ["histories", "ledger", "turnover"] {
            assert_eq!(differences(&service, model, 1.0).await.1, [], "{model}");
        }
    }
    writer.abort();
    let _ = writer.await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// Of a document that one stream feeds by its version too.
pub async fn a_document_is_folded_up_to_a_moment<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::None).await;
    for (id, amount) in [("a", 1), ("b", 2), ("a", 4), ("a", 8)] {
        deposit(&service, id, amount).await;
    }
    let events = store.read_log(Position::ZERO, 10).await.expect("read");
    let service = &service;
    let folded = |model: &'static str, key: &'static str, moment| async move {
        let found = service.as_of_named(model, key, moment).await.expect("folded");
        let text = found.document.map(|document| String::from_utf8(document.to_vec()).expect("JSON"));
        (text.unwrap_or_default(), found.events, found.position.get())
    };
    let at = |position| Moment::Position(Position::new(position));
    assert_eq!(folded("turnover", "a", Moment::Now).await, ("13".into(), 3, 4));
    assert_eq!(folded("turnover", "a", at(3)).await, ("5".into(), 2, 3));
    assert_eq!(folded("turnover", "all", at(2)).await, ("3".into(), 2, 2));
    assert_eq!(folded("turnover", "a", at(0)).await, (String::new(), 0, 0));
    assert_eq!(folded("turnover", "unknown", Moment::Now).await, (String::new(), 0, 0));
    let time = Moment::Time(events[3].recorded_at - chrono::TimeDelta::microseconds(1));
    let before = events.iter().take_while(|event| event.recorded_at < events[3].recorded_at).count() as u64;
    assert_eq!(folded("turnover", "all", time).await.1, before);

    let version = |version| Moment::Version(Version::new(version));
    assert_eq!(folded("histories", "a", version(2)).await, ("[1,2]".into(), 2, 3));
    assert_eq!(folded("histories", "a", at(3)).await, ("[1,2]".into(), 2, 3));
    assert_eq!(folded("histories", "a", Moment::Now).await, ("[1,2,3]".into(), 3, 4));
    let late = service.as_of_named("histories", "a", version(4)).await;
    assert!(matches!(late, Err(RefoldError::NoSuchVersion { version: 4, found: 3, .. })), "{late:?}");
    let gathered = service.as_of_named("turnover", "a", version(1)).await;
    assert!(matches!(gathered, Err(RefoldError::NoVersions { name: "turnover" })), "{gathered:?}");
    let unknown = service.as_of_named("revenue", "a", Moment::Now).await;
    assert!(matches!(unknown, Err(RefoldError::Unknown { known, .. }) if known.len() == 3));
    let building = service.verify_named("ledger", 1.0, &mut |_| {}).await;
    assert!(matches!(building, Err(RefoldError::NotServing)), "{building:?}");
}

/// Events are left out, replaced and added; only the documents that differ are told, and the store stays as it is.
pub async fn a_history_that_is_changed_on_the_side_shows_what_would_be_other<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::None).await;
    for (id, amount) in [("a", 1), ("b", 2), ("a", 4), ("c", 8)] {
        deposit(&service, id, amount).await;
    }
    let service = &service;
    let at = Position::new;
    let deposited = |amount: u64| format!(r#"{{"amount":{amount}}}"#);
    let changed = |changes: WhatIf| async move {
        let found = service.what_if_named("turnover", &changes).await.expect("folded");
        let text = |document: Option<Bytes>| document.map(|text| String::from_utf8(text.to_vec()).expect("JSON"));
        let found = found.into_iter().map(|found| (found.key, text(found.actual), text(found.hypothetical)));
        found.collect::<Vec<_>>()
    };
    let differs = |key: &str, actual: &str, hypothetical: &str| {
        let document = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        (key.to_owned(), document(actual), document(hypothetical))
    };
    assert_eq!(changed(WhatIf::default()).await, []);
    let without = WhatIf::default().without(at(2)).without(at(3));
    assert_eq!(changed(without).await, [differs("a", "5", "1"), differs("all", "15", "9"), differs("b", "2", "")]);
    let replaced = WhatIf::default().replacing(at(4), deposited(9)).replacing(at(1), deposited(1));
    assert_eq!(changed(replaced).await, [differs("all", "15", "16"), differs("c", "8", "9")]);

    let log = store.read_log(Position::ZERO, 10).await.expect("read");
    let added = EventData { payload: deposited(100).into(), ..log[0].data.clone() };
    let (a, d) = (log[0].stream.clone(), StreamId::new(log[0].stream.category(), "d").expect("valid"));
    let adding = WhatIf::default().adding(d.clone(), added.clone()).adding_after(at(1), a.clone(), added.clone());
    let expected = [differs("a", "5", "105"), differs("all", "15", "215"), differs("d", "", "100")];
    assert_eq!(changed(adding).await, expected);
    // An event that is added gets the next version of its stream.
    let last = WhatIf::default().adding(a, added.clone()).adding(d, added);
    let histories = service.what_if_named("histories", &last).await.expect("folded");
    let documents: Vec<_> = histories.iter().map(|found| found.hypothetical.as_deref()).collect();
    assert_eq!(documents, [Some(&b"[1,2,3]"[..]), Some(b"[1]")]);

    let broken = service.what_if_named("histories", &WhatIf::default().without(at(1))).await;
    assert!(matches!(broken, Err(RefoldError::Fold(_))), "{broken:?}");
    for missing in [0, 5] {
        let missing = service.what_if_named("turnover", &WhatIf::default().without(at(missing))).await;
        assert!(matches!(missing, Err(RefoldError::NoSuchPosition { .. })), "{missing:?}");
    }
    assert_eq!(store.read_log(Position::ZERO, 10).await.expect("read"), log);
}
