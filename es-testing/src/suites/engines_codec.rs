//! What is written can be read: events, documents and states that JSON does not return unchanged.
#![expect(clippy::option_option, reason = "such types are what is tested")]

use std::{collections::BTreeMap, convert::Infallible};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    engines_project::{PATIENCE, Store},
    event_store,
};
use es_core::{
    Aggregate, Append, EngineError, ExecuteError, Expected, FoldResult, KeyRange, Keys, LoadError, LogSource, Position,
    Projection, Projector, ReadModel, Recorded, Repository, StreamId, Version,
    backend::{Folded, Snapshot, Undecodable},
    codec::Unencodable,
    limits::MAX_NESTING,
    testing::project,
};

/// The events of a gauge.
#[derive(Debug, Clone, PartialEq, es_core::Event)]
#[event(category = "gauge")]
pub enum GaugeEvent {
    /// A number.
    #[event(name = "gauge.read", version = 2, upcast(1 = GaugeEvent::from_tenths))]
    Read {
        /// What was read.
        value: f64,
    },
    /// Numbers in a list of structures.
    #[event(name = "gauge.sampled")]
    Sampled {
        /// What was read, in order.
        samples: Vec<Sample>,
    },
    /// Options of options.
    #[event(name = "gauge.noted")]
    Noted {
        /// Nothing was noted, or that there is nothing to note, or a note.
        note: Option<Option<u8>>,
    },
    /// A map with numbers as keys, flattened into the event.
    #[event(name = "gauge.counted")]
    Counted {
        /// How often each number was read.
        #[serde(flatten)]
        counts: Counts,
    },
    /// Content that serde reads through a buffer, which supports fewer types.
    #[event(name = "gauge.tagged")]
    Tagged {
        /// The content.
        content: Tagged,
    },
    /// A list whose nodes hold each other.
    #[event(name = "gauge.nested")]
    Nested {
        /// Its first node.
        list: Option<Box<Node>>,
    },
    /// A field that is not written.
    #[event(name = "gauge.cached")]
    Cached {
        /// Not written.
        #[serde(skip)]
        hidden: u8,
    },
}

impl GaugeEvent {
    fn from_tenths(tenths: u32) -> Self {
        Self::Read { value: f64::from(tenths) / 10.0 }
    }
}

/// One of several numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What was read.
    pub value: Option<f64>,
}

/// How often each number was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// By the number.
    pub of: BTreeMap<u64, u64>,
}

/// Content with its kind inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Tagged {
    /// A wide integer.
    Wide {
        /// 128 bits.
        value: i128,
    },
    /// A map.
    Keyed {
        /// With numbers as keys.
        counts: BTreeMap<u64, u64>,
    },
    /// What can be read back.
    Sound {
        /// A text.
        text: String,
    },
}

/// A node of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The next nodes.
    pub next: Option<Box<Node>>,
}

fn gauge(id: &str) -> StreamId {
    StreamId::new("gauge", id).expect("a valid name")
}

fn read(value: f64) -> GaugeEvent {
    GaugeEvent::Read { value }
}

fn list(nodes: usize) -> GaugeEvent {
    let list = (0..nodes).fold(None, |next, _| Some(Box::new(Node { next })));
    GaugeEvent::Nested { list }
}

/// A gauge, whose state has fields that a snapshot does not return.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    sum: f64,
    inverse: Option<f64>,
    note: Option<Option<u8>>,
    #[serde(skip)]
    cached: u32,
}

/// The command that produces these events.
#[derive(Debug, Clone)]
pub struct Happen(pub Vec<GaugeEvent>);

impl Aggregate for Gauge {
    type Command = Happen;
    type Event = GaugeEvent;
    type Error = Infallible;

    fn handle(&self, Happen(events): &Happen) -> Result<Vec<GaugeEvent>, Infallible> {
        Ok(events.clone())
    }

    fn apply(&mut self, event: &GaugeEvent) {
        match event {
            GaugeEvent::Read { value } => {
                self.sum += value;
                self.inverse = Some(1.0 / value);
            }
            GaugeEvent::Noted { note } => self.note = Some(note.unwrap_or_default()),
            GaugeEvent::Cached { .. } => self.cached += 1,
            _ => {}
        }
    }
}

/// The sum of what a gauge read, and the inverse of what it read last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums;

/// The document of [`Sums`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    sum: f64,
    last: Vec<Inverse>,
}

/// A rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inverse {
    rate: f64,
}

impl Projection for Sums {
    const NAME: &'static str = "sums";
    type Event = GaugeEvent;
    type Document = Sum;

    fn keys(&self, event: &Recorded<GaugeEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, sum: &mut Option<Sum>, event: &Recorded<GaugeEvent>) -> FoldResult {
        let sum = sum.get_or_insert_default();
        if let GaugeEvent::Read { value } = event.data {
            sum.sum += value;
            sum.last = vec![Inverse { rate: 1.0 }, Inverse { rate: 1.0 / value }];
        }
        Ok(())
    }
}

/// Numbers whose shortest decimal form an approximate parser reads as another number.
fn numbers() -> impl Iterator<Item = f64> {
    (0..300_u32).map(|number| (f64::from(number) + 1.577_777_777_777_000_1).sqrt() / 7.0)
}

/// An event, its wire name, the field that is named, and the reason that is given.
type Refused = (GaugeEvent, &'static str, Option<&'static str>, fn(&Unencodable) -> bool);

/// R14
pub async fn r14_an_event_that_would_not_be_read_back_is_refused<S: Store>(store: &S) {
    let counts = || BTreeMap::from([(1, 2)]);
    let sampled = |value| GaugeEvent::Sampled { samples: vec![Sample { value: Some(1.0) }, Sample { value }] };
    let refused: [Refused; 11] = [
        (read(f64::NAN), "gauge.read", Some("value"), |reason| matches!(reason, Unencodable::NotFinite)),
        (read(f64::INFINITY), "gauge.read", Some("value"), |reason| matches!(reason, Unencodable::NotFinite)),
        (sampled(Some(f64::INFINITY)), "gauge.sampled", Some("samples[1].value"), |reason| {
            matches!(reason, Unencodable::NotFinite)
        }),
        (sampled(Some(f64::NAN)), "gauge.sampled", Some("samples[1].value"), |reason| {
            matches!(reason, Unencodable::NotFinite)
        }),
        (GaugeEvent::Noted { note: Some(None) }, "gauge.noted", Some("note"), |reason| {
            matches!(reason, Unencodable::SomeNull)
        }),
        (GaugeEvent::Counted { counts: Counts { of: counts() } }, "gauge.counted", Some("of"), |reason| {
            matches!(reason, Unencodable::MapKey)
        }),
        (GaugeEvent::Tagged { content: Tagged::Wide { value: 1 } }, "gauge.tagged", Some("content.value"), |reason| {
            matches!(reason, Unencodable::WideInteger)
        }),
        (
            GaugeEvent::Tagged { content: Tagged::Keyed { counts: counts() } },
            "gauge.tagged",
            Some("content.counts"),
            |reason| matches!(reason, Unencodable::MapKey),
        ),
        (list(130), "gauge.nested", None, |reason| matches!(reason, Unencodable::TooDeep)),
        (list(MAX_NESTING), "gauge.nested", None, |reason| matches!(reason, Unencodable::TooDeep)),
        (GaugeEvent::Cached { hidden: 1 }, "gauge.cached", None, |reason| matches!(reason, Unencodable::Different)),
    ];
    let gauges = Repository::<Gauge>::new(store.clone());
    for (event, name, field, expected) in refused {
        let outcome = gauges.execute("g", Happen(vec![read(1.0), event.clone()])).await;
        let Err(ExecuteError::Encode(error)) = outcome else { panic!("{event:?}: {outcome:?}") };
        assert_eq!((error.what, error.field.as_deref()), (name, field), "{event:?}");
        assert!(expected(&error.reason), "{event:?}: {error:?}");
    }
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
    let sound = vec![
        read(1.577_777_777_777_000_1),
        GaugeEvent::Noted { note: Some(Some(1)) },
        GaugeEvent::Noted { note: None },
        GaugeEvent::Tagged { content: Tagged::Sound { text: "text".into() } },
        GaugeEvent::Cached { hidden: 0 },
        list(MAX_NESTING - 1),
    ];
    gauges.execute("g", Happen(sound.clone())).await.expect("executed");
    let log = store.read_log(Position::ZERO, 100).await.expect("a read");
    let events = log.iter().map(|event| event.decode::<GaugeEvent>().expect("it decodes").expect("a gauge's").data);
    assert_eq!(events.collect::<Vec<_>>(), sound);
    Repository::<Gauge>::new(store.clone()).load("g").await.expect("loaded");
}

/// R8: a state that JSON does not return unchanged is not kept; a state that is kept equals the replayed one to the last
/// digit.
pub async fn r8_a_snapshot_is_the_state_or_none<S: Store>(store: &S) {
    let cases: [(&str, Vec<GaugeEvent>, bool); 4] = [
        ("infinite", vec![read(1.0), read(0.0)], false),
        ("some-none", vec![read(1.0), GaugeEvent::Noted { note: None }], false),
        ("skipped", vec![read(1.0), GaugeEvent::Cached { hidden: 0 }], false),
        ("sums", numbers().map(read).collect(), true),
    ];
    for (id, events, kept) in cases {
        let gauges = Repository::<Gauge>::new(store.clone()).snapshot_every(2);
        for event in events {
            gauges.execute(id, Happen(vec![event])).await.expect("executed");
        }
        let snapshot = store.load_snapshot(&gauge(id)).await.expect("loaded");
        assert_eq!(snapshot.is_some(), kept, "{id}");
        let replayed = Repository::<Gauge>::new(store.clone()).snapshot_every(0).load(id).await.expect("loaded");
        let loaded = Repository::<Gauge>::new(store.clone()).load(id).await.expect("loaded");
        assert_eq!((loaded.version, loaded.state), (replayed.version, replayed.state), "{id}");
    }
}

/// R8: a corrected upcaster changes the meaning of its events, so a snapshot with upcast events is valid for one program
/// only.
pub async fn r8_a_snapshot_of_upcast_events_is_bound_to_the_program<S: Store>(store: &S) {
    let first = || {
        let mut event = event_store::event("15");
        (event.data.name, event.data.schema_version) = ("gauge.read".into(), 1);
        event
    };
    store.append(Append::new(gauge("old"), Expected::NoStream, vec![first()])).await.expect("appended");
    for (id, folded) in [("old", Folded::Upcast), ("new", Folded::AsWritten)] {
        // The first loads the events, the second finds a snapshot, the third finds a snapshot and an old event after it.
        for _ in 0..2 {
            let gauges = Repository::<Gauge>::new(store.clone()).snapshot_every(1);
            gauges.execute(id, Happen(vec![read(2.0)])).await.expect("executed");
            let snapshot = store.load_snapshot(&gauge(id)).await.expect("loaded").expect("one was taken");
            let (_, opened) = snapshot.open::<Gauge>().expect("by this program");
            assert_eq!(opened, folded, "{id}");
        }
    }
    store.append(Append::new(gauge("new"), Expected::Any, vec![first()])).await.expect("appended");
    let gauges = Repository::<Gauge>::new(store.clone()).snapshot_every(1);
    gauges.execute("new", Happen(vec![read(2.0)])).await.expect("executed");
    let snapshot = store.load_snapshot(&gauge("new")).await.expect("loaded").expect("one was taken");
    assert_eq!(snapshot.open::<Gauge>().map(|(_, folded)| folded), Some(Folded::Upcast));
    // Another program would find that the events were upcast, and that the snapshot is not its own.
    let foreign = Snapshot { checksum: snapshot.checksum ^ 1, ..snapshot };
    assert_eq!(foreign.open::<Gauge>(), None);
}

fn projector<S: Store>(store: &S, batch: usize) -> Projector<Sums> {
    let source = LogSource::new(store.clone()).batch(batch);
    Projector::new(Sums, source, store.clone())
}

/// R9: with batches of any size, the sum of floating-point numbers equals that of the fold, to the last digit.
///
/// The events are not written through a repository, which refuses a number that is not read back: this test is about the
/// sums in the documents.
///
/// Seen to fail without `float_roundtrip`: the first document is not written ([`EngineError::Unwritable`]); without that
/// check too, batches of 1 end at 497.4369477084307 and the fold at 497.43694770843064.
pub async fn r9_batches_of_any_size_end_at_the_same_document<S: Store>(store: &S) {
    let events = numbers().map(|number| {
        let mut event = event_store::event(&format!(r#"{{"value":{number}}}"#));
        (event.data.name, event.data.schema_version) = ("gauge.read".into(), 2);
        event
    });
    store.append(Append::new(gauge("g"), Expected::NoStream, events.collect())).await.expect("appended");
    let log = store.read_log(Position::ZERO, 1_000).await.expect("a read");
    let fold: Vec<_> = project(&Sums, &log).expect("it folds").into_iter().collect();
    let sums = ReadModel::<Sums>::new(store.clone());
    for batch in [1, 2, 3, 10, 500] {
        projector(store, batch).rebuild(CancellationToken::new()).await.expect("rebuilt");
        assert_eq!(sums.scan(KeyRange::default(), 10).await.expect("a scan").documents, fold, "in batches of {batch}");
    }
}

/// R14: the document is refused before it is committed, and the read model stays readable. (Seen to fail, in time, where
/// documents are not read back.)
pub async fn r14_a_document_that_would_not_be_read_back_stops_the_projector<S: Store>(store: &S) {
    let gauges = Repository::<Gauge>::new(store.clone());
    gauges.execute("fine", Happen(vec![read(1.0)])).await.expect("executed");
    projector(store, 7).rebuild(CancellationToken::new()).await.expect("rebuilt");
    gauges.execute("zero", Happen(vec![read(2.0), read(0.0)])).await.expect("executed");
    for batch in [1, 2, 7] {
        let projector = projector(store, batch);
        let stopped = tokio::time::timeout(PATIENCE, projector.run(CancellationToken::new())).await;
        let error = stopped.expect("it stops in time").expect_err("it stops");
        let EngineError::Unwritable { projection, key, reason } = error else { panic!("{batch}: {error:?}") };
        assert_eq!((projection, key.as_str(), reason.field.as_deref()), ("sums", "zero", Some("last[1].rate")));
        assert!(matches!(reason.reason, Unencodable::NotFinite));
        let sums = ReadModel::<Sums>::new(store.clone());
        let page = sums.scan(KeyRange::default(), 10).await.expect("every document is readable");
        assert!(page.documents.iter().all(|(_, sum)| sum.sum > 0.0));
    }
    let log = store.read_log(Position::ZERO, 1_000).await.expect("a read");
    assert!(matches!(project(&Sums, &log), Err(EngineError::Unwritable { .. })), "the fold refuses it too");
}

/// R14: an error names the place of a value and does not repeat it, be it a secret or a megabyte long.
pub async fn r14_an_error_names_the_place_and_not_the_value<S: Store>(store: &S) {
    const SECRET: &str = "hunter2";
    let secrets = [
        (format!(r#"{{"samples":[{{"value":1.5}},{{"value":"{SECRET}"}}]}}"#), "gauge.sampled"),
        (format!(r#"{{"samples":{{"{SECRET}":"{}"}}}}"#, SECRET.repeat(100_000)), "gauge.sampled"),
        (format!(r#"{{"content":{{"kind":"{SECRET}"}}}}"#), "gauge.tagged"),
        (format!(r#"{{"value":"{SECRET}"}}"#), "gauge.read"),
        (format!(r#""{SECRET}""#), "gauge.nested"),
    ];
    for (number, (payload, name)) in secrets.into_iter().enumerate() {
        let mut event = event_store::event(&payload);
        (event.data.name, event.data.schema_version) = (name.into(), if name == "gauge.read" { 2 } else { 1 });
        let id = format!("g{number}");
        store.append(Append::new(gauge(&id), Expected::NoStream, vec![event])).await.expect("appended");
        let error = Repository::<Gauge>::new(store.clone()).load(&id).await.expect_err("it does not fit");
        let LoadError::Decode(decode) = &error else { panic!("{error:?}") };
        let Undecodable::Shape(misfit) = &decode.reason else { panic!("{decode:?}") };
        if number == 0 {
            assert_eq!(misfit.field(), Some("samples[1].value"));
            assert_eq!(
                misfit.to_string(),
                "samples[1].value: invalid type: a string, expected f64 at line 1 column 44"
            );
        }
        let recorded = store.read_stream(&gauge(&id), Version::ZERO, 1).await.expect("a read");
        for text in [format!("{error} {error:?} {misfit} {misfit:?}"), format!("{recorded:?}")] {
            assert!(!text.contains(SECRET) && text.len() < 2_000, "{text:.200}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use es_core::testing::given;

    #[test]
    #[should_panic(expected = "gauge.read cannot be written because of value")]
    fn r14_a_test_without_a_store_finds_what_the_log_would_refuse() {
        given::<Gauge>([]).when(&Happen(vec![read(f64::INFINITY)])).then([read(f64::INFINITY)]);
    }
}
