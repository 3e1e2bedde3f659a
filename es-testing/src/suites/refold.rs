//! Read models that are folded again from the log.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    Act, EngineError, EventData, FailurePolicy, KeyRange, LetterPage, Position, Projection, Service, ServiceStore,
    StreamId, Version,
    backend::{Changes, Extent, ReadModelStore, Shard, Takeover},
    read::refold::{Difference, Moment, RefoldError, WhatIf},
    service::Parts,
    testing::account::{Account, AccountCommand, Histories, Ledger, Turnover},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    engines_failures::{Amounts, Fault, Faults, OfStream, act, eventually, unreadable},
    engines_project::PATIENCE,
};

async fn service<S: ServiceStore + Clone>(store: &S, parts: Parts) -> Service {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection(Histories).projection(Ledger::<1>::default()).projection(Turnover);
    builder.parts(parts).start().await.expect("it starts")
}

pub(super) async fn deposit(service: &Service, id: &str, amount: u64) {
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

pub(super) async fn differences(service: &Service, model: &str, share: f64) -> (u64, Vec<Difference>) {
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
                // Else the log may grow faster than it is folded.
                tokio::time::sleep(Duration::from_millis(1)).await;
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

/// R19, R22: parked keys wait, and what was edited or discarded is folded so, until the read model is built again. Seen to fail where
/// the letters, the edit, the discard, and the generation to which these belong are not looked at.
pub async fn r19_r22_what_is_folded_again_is_treated_as_the_projector_treats_it<S: ServiceStore + Clone>(store: &S) {
    let faults = Faults::of([(2, Fault::Refuse), (12, Fault::Panic), (22, Fault::Refuse)]);
    let projection = Amounts { faults, ..Amounts::default() };
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection_with(projection, |projector| projector.on_failure(FailurePolicy::park()));
    let service = builder.start().await.expect("it starts");
    service.settled(PATIENCE).await.expect("it serves");
    for (id, amount) in [("a", 1), ("b", 11), ("a", 2), ("c", 21), ("b", 12), ("c", 22), ("a", 3), ("b", 13), ("c", 23)]
    {
        deposit(&service, id, amount).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    let service = &service;
    let verified = || async move {
        let mut found = Vec::new();
        let mut report = |difference: Difference| found.push(difference.key);
        let verified = service.verify_named(Amounts::NAME, 1.0, &mut report).await.expect("verified");
        (verified.compared, found, verified.waiting.into_iter().collect::<Vec<_>>())
    };
    let as_of = |key: &'static str, moment| async move {
        let found = service.as_of_named(Amounts::NAME, key, moment).await.expect("folded");
        let text = found.document.map(|document| String::from_utf8(document.to_vec()).expect("JSON"));
        (text.unwrap_or_default(), found.waits_at.map(Position::get))
    };
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(verified().await, (4, keys(&[]), keys(&["a", "b", "c"])));
    assert_eq!(as_of("a", Moment::Now).await, ("[1]".into(), Some(3)));
    assert_eq!(as_of("a", Moment::Position(Position::new(2))).await, ("[1]".into(), None));

    let payload = Bytes::from_static(br#"{"amount":20}"#);
    store.edit_letter(Amounts::NAME, "a", Position::new(3), payload, &act()).await.expect("edited");
    assert_eq!(as_of("a", Moment::Now).await, ("[1]".into(), Some(3)), "it was not retried yet");
    store.discard_letters(Amounts::NAME, "b", Some(Position::new(5)), &act()).await.expect("discarded");
    for key in ["a", "b"] {
        store.request_retry(Amounts::NAME, key, &act()).await.expect("parked");
    }
    eventually("one key is parked", async || {
        (store.parked_keys(Amounts::NAME).await.expect("read").len() == 1).then_some(())
    })
    .await;
    assert_eq!(verified().await, (4, keys(&[]), keys(&["c"])));
    let amended = service.verify_named(Amounts::NAME, 1.0, &mut |_| {}).await.expect("verified").amended;
    let amended = amended.iter().map(|amended| (amended.position.get(), &amended.extent, amended.payload.is_some()));
    let told = [(3, &Extent::Key("a".into()), true), (5, &Extent::Key("b".into()), false)];
    assert_eq!(amended.collect::<Vec<_>>(), told);
    assert_eq!(as_of("a", Moment::Now).await, ("[1,20,3]".into(), None));
    assert_eq!(as_of("b", Moment::Now).await, ("[11,13]".into(), None));
    assert_eq!(as_of("all", Moment::Now).await, ("[1,11,2,21,12,22,3,13,23]".into(), None));

    let replaced = WhatIf::default().replacing(Position::new(6), &br#"{"amount":220}"#[..]);
    let others = service.what_if_named(Amounts::NAME, &replaced).await.expect("folded").documents;
    let others: Vec<_> = others.iter().map(|other| (&*other.key, other.hypothetical.as_deref())).collect();
    let all = &b"[1,11,2,21,12,220,3,13,23]"[..];
    assert_eq!(others, [("all", Some(all)), ("c", Some(&b"[21,220,23]"[..]))], "it would not be parked");

    forge(store, Amounts::NAME, &[("c", "[21,22]"), ("a", "[1,2,3]")], &[]).await;
    assert_eq!(
        verified().await,
        (4, keys(&["a", "c"]), keys(&["c"])),
        "a parked key is compared as of its first letter"
    );
    service.rebuild::<Amounts>(service.log(), CancellationToken::new()).await.expect("rebuilt");
    assert_eq!(verified().await, (4, keys(&[]), keys(&["a", "b", "c"])), "the former generation was edited");
    store.discard_letters(Amounts::NAME, "c", None, &act()).await.expect("discarded");
    eventually("it goes on", async || (store.parked_keys(Amounts::NAME).await.expect("read").len() == 2).then_some(()))
        .await;
    assert_eq!(verified().await, (4, keys(&[]), keys(&["a", "b"])));
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9, R22: what differs is mended while the projector goes on, and each document is recorded. What is
/// parked stays, and so does what was edited.
pub async fn r22_documents_that_differ_are_mended_and_each_is_recorded<S: ServiceStore + Clone>(store: &S) {
    mended_in(store, 1).await;
}

/// R9, R22: as before, where each shard has a lease and a checkpoint of its own.
pub async fn r22_documents_of_several_shards_are_mended<S: ServiceStore + Clone>(store: &S) {
    mended_in(store, 3).await;
}

async fn mended_in<S: ServiceStore + Clone>(store: &S, shards: u32) {
    let act = Act::new("ada", "ticket 8").expect("valid");
    let faults = Faults::of([(666, Fault::Refuse)]);
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder = builder.projection_with(Amounts { faults, ..Amounts::default() }, move |projector| {
        projector.shards(shards).on_failure(FailurePolicy::park())
    });
    let service = builder.start().await.expect("it starts");
    deposit(&service, "e", 666).await;
    for number in 0..20 {
        deposit(&service, &format!("a{}", number % 10), number + 1).await;
    }
    deposit(&service, "e", 1).await;
    deposit(&service, "p", 666).await;
    service.settled(PATIENCE).await.expect("it settles");
    let payload = Bytes::from_static(br#"{"amount":5}"#);
    let letters = store.dead_letters(Amounts::NAME, &LetterPage::first(10).of_key("e")).await.expect("read");
    for letter in letters.iter().filter(|letter| letter.cause.is_some()) {
        let position = letter.event.position;
        store.edit_letter(Amounts::NAME, "e", position, payload.clone(), &act).await.expect("edited");
    }
    store.request_retry(Amounts::NAME, "e", &act).await.expect("parked");
    eventually("one key is parked", async || {
        (store.parked_keys(Amounts::NAME).await.expect("read").len() == 1).then_some(())
    })
    .await;
    let right = scan(store).await;

    // What differs is in several shards.
    let serving = store.generations(Amounts::NAME).await.expect("asked").serving.expect("it serves").generation;
    for shard in Shard::split("log", shards) {
        let own = |key: &&str| shard.slice().holds(key);
        let wrong = ["a0", "a3", "e", "x"].into_iter().filter(own);
        let upserts = wrong.map(|key| (key.to_owned(), Bytes::from_static(b"[0]"))).collect();
        let deletes = ["a1"].into_iter().filter(own).map(str::to_owned).collect();
        let lease =
            store.acquire(&serving.reader, &shard, Uuid::now_v7(), Takeover::Always, Duration::from_mins(1)).await;
        let lease = lease.expect("asked").expect("it is there");
        let changes = Changes { upserts, deletes, checkpoint: lease.checkpoint.clone(), ..Changes::default() };
        store.commit(&lease, changes).await.expect("committed");
        store.release(&lease).await.expect("released");
    }
    let mut found = Vec::new();
    let mut report = |difference: Difference| found.push(difference.key);
    let healed = service.heal_named(Amounts::NAME, 1.0, &act, &mut report).await.expect("they are mended");
    assert_eq!(
        (found, healed.differing, healed.mended),
        (["a0", "a1", "a3", "e", "x"].map(str::to_owned).to_vec(), 5, 5)
    );
    assert_eq!(scan(store).await, right);
    let acts = store.acts(None, 5).await.expect("read");
    let mut mended: Vec<_> = acts.iter().map(|act| (&*act.what, act.target.as_deref().unwrap_or_default())).collect();
    mended.sort_unstable();
    assert_eq!(mended, ["a0", "a1", "a3", "e", "x"].map(|key| ("heal", key)));
    assert_eq!((&*acts[0].actor, &*acts[0].reader), ("ada", Amounts::NAME));
    // Those that were fenced go on.
    for key in ["a0", "a1", "e", "x"] {
        deposit(&service, key, 7).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(service.heal_named(Amounts::NAME, 1.0, &act, &mut |_| {}).await.expect("verified").differing, 0);
    assert_eq!(store.acts(None, 1).await.expect("read")[0].id, acts[0].id, "nothing was mended");
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R22: of several read models one is mended.
pub async fn r22_only_the_read_model_that_is_named_is_mended<S: ServiceStore + Clone>(store: &S) {
    let service = service(store, Parts::All).await;
    deposit(&service, "a", 1).await;
    service.settled(PATIENCE).await.expect("it settles");
    for model in ["turnover", "histories"] {
        forge(store, model, &[], &["a"]).await;
    }
    let act = Act::new("ada", "ticket 8").expect("valid");
    let healed = service.heal_named("turnover", 1.0, &act, &mut |_| {}).await.expect("mended");
    assert_eq!((&*healed.generation.reader.name, healed.differing, healed.mended), ("turnover", 1, 1));
    for (model, differing) in [("turnover", 0), ("histories", 1), ("ledger", 0)] {
        assert_eq!(differences(&service, model, 1.0).await.1.len(), differing, "{model}");
    }
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9, R22: documents are mended again and again while clients write, and the projector neither loses nor repeats an event. (The
/// moment between the fold and the leases is short, so a mend that forgets the events in it may still pass.)
pub async fn r22_mending_beside_writers_loses_and_repeats_nothing<S: ServiceStore + Clone>(store: &S) {
    let act = Act::new("ada", "ticket 8").expect("valid");
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.projection(Amounts::default()).start().await.expect("it starts");
    for number in 0..50 {
        deposit(&service, &format!("a{number:02}"), 1).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    let stop = CancellationToken::new();
    let writer = tokio::spawn({
        let (service, stop) = (service.clone(), stop.clone());
        async move {
            let mut number = 0;
            while !stop.is_cancelled() {
                number += 1;
                deposit(&service, &format!("a{:02}", number % 50), number).await;
                // Else the log may grow faster than it is folded.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for key in ["a00", "a10", "a20", "a30", "a40"] {
        forge(store, Amounts::NAME, &[(key, "[0]")], &[]).await;
        let mut found = Vec::new();
        let mut report = |difference: Difference| found.push(difference.key);
        let healed = service.heal_named(Amounts::NAME, 1.0, &act, &mut report).await.expect("mended");
        assert_eq!((found, healed.mended), (vec![key.to_owned()], 1));
    }
    stop.cancel();
    writer.await.expect("no panic");
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(differences(&service, Amounts::NAME, 1.0).await.1, []);
    service.shutdown(PATIENCE).await.expect("it ends");
}

pub(super) async fn scan<S: ServiceStore + Clone>(store: &S) -> Vec<(String, Bytes)> {
    store.scan(Amounts::NAME, KeyRange::default(), 100).await.expect("a scan").expect("it serves").found
}

/// R22: events that cannot be decoded were skipped, in each order, and in one shard and several. Seen to fail where skips, and the
/// events at which the reader has stopped, are not looked at.
pub async fn r22_what_was_skipped_is_left_out_when_it_is_folded_again<S: ServiceStore + Clone>(store: &S) {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let builder =
        builder.projection(OfStream::default()).projection_with(Amounts::default(), |projector| projector.shards(2));
    let service = builder.start().await.expect("it starts");
    deposit(&service, "a", 1).await;
    service.settled(PATIENCE).await.expect("it serves");
    unreadable(store, "c").await;
    deposit(&service, "b", 2).await;
    for (model, shards) in [(OfStream::NAME, 1), (Amounts::NAME, 2)] {
        for _ in 0..shards {
            let stop = eventually("it stops", async || store.stops(model).await.expect("read").pop()).await;
            assert_eq!(differences(&service, model, 1.0).await.1, [], "{model}");
            let found = service.as_of_named(model, "b", Moment::Now).await.expect("folded");
            if shards == 1 {
                assert_eq!((found.document, found.waits_at.map(Position::get)), (None, Some(3)));
            }
            store.skip(model, &stop.shard, stop.position, stop.event_id, &act()).await.expect("skipped");
        }
    }
    service.settled(PATIENCE).await.expect("it goes on");
    for model in [OfStream::NAME, Amounts::NAME] {
        assert_eq!(differences(&service, model, 1.0).await.1, [], "{model}");
        let found = service.as_of_named(model, "b", Moment::Now).await.expect("folded");
        assert_eq!((found.document.as_deref(), found.waits_at), (Some(&b"[2]"[..]), None), "{model}");
    }
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
    for model in ["turnover", "histories"] {
        let late = service.as_of_named(model, "a", at(5)).await;
        assert!(
            matches!(late, Err(RefoldError::NoSuchPosition { position, head }) if (position.get(), head.get()) == (5, 4))
        );
    }
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
        assert!(found.hindered.is_empty(), "{found:?}");
        let found = found.documents;
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
    let histories = service.what_if_named("histories", &last).await.expect("folded").documents;
    let documents: Vec<_> = histories.iter().map(|found| found.hypothetical.as_deref()).collect();
    assert_eq!(documents, [Some(&b"[1,2,3]"[..]), Some(b"[1]")]);

    // The second event of the stream does not follow nothing.
    let broken = service.what_if_named("histories", &WhatIf::default().without(at(1))).await.expect("folded");
    let hindered: Vec<_> = broken.hindered.iter().map(|found| (&*found.key, found.position, &found.error)).collect();
    assert!(matches!(hindered[..], [("a", third, EngineError::Unfoldable { .. })] if third == at(3)), "{hindered:?}");
    let documents: Vec<_> = broken.documents.iter().map(|found| (&*found.key, found.hypothetical.as_deref())).collect();
    assert_eq!(documents, [("a", None)], "up to the event");
    let unread = service.what_if_named("histories", &WhatIf::default().replacing(at(1), &b"{}"[..])).await;
    assert!(matches!(unread, Err(RefoldError::Fold(EngineError::Decode(_)))), "{unread:?}");
    for missing in [0, 5] {
        let missing = service.what_if_named("turnover", &WhatIf::default().without(at(missing))).await;
        assert!(matches!(missing, Err(RefoldError::NoSuchPosition { .. })), "{missing:?}");
    }
    assert_eq!(store.read_log(Position::ZERO, 10).await.expect("read"), log);
}
