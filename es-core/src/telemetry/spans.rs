//! Spans on the way of a command: `execute` or `decide`, `append`, `write` (the store), `publish` (the relay), `fold` and `react`
//! (readers). They have
//! the level debug, so that only those who ask for them pay.
//!
//! Events carry the W3C `traceparent` of the command that wrote them ([`Metadata::traceparent`]), through the store and through
//! Kafka. What is done later with one of them goes on in that trace; what is done with several together is linked to each.
//! A span of `tracing` itself has no such identity. A program that exports spans tells how to get it: [`set_tracer`].

use std::sync::OnceLock;

use tracing::{Span, debug_span, field::Empty};

use crate::{
    event::{Metadata, RecordedEvent},
    write::append::Append,
};

/// What connects spans with traces of other processes, for example `tracing-opentelemetry`.
pub trait Tracer: Send + Sync + 'static {
    /// The `traceparent` of `span`, if it is recorded.
    fn traceparent(&self, span: &Span) -> Option<String>;

    /// `span`, which has not begun, goes on in the trace of `traceparent`.
    fn continue_from(&self, span: &Span, traceparent: &str);

    /// `span` has to do with the one of `traceparent`, whichever trace it is in.
    fn link(&self, span: &Span, traceparent: &str);
}

static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Connects the spans of this process with traces. The first one stays: `false` where there was one.
pub fn set_tracer(tracer: impl Tracer) -> bool {
    TRACER.set(Box::new(tracer)).is_ok()
}

/// The most traces to which the span of a batch is linked.
const MOST_LINKS: usize = 128;

/// The `traceparent` of `span`, if it is enabled and there is a [`Tracer`].
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    TRACER.get()?.traceparent(span)
}

/// `span`, which has not begun, goes on in the trace of `traceparent`, which its field of this name gets.
pub fn continue_from(span: &Span, traceparent: &str) {
    span.record("traceparent", traceparent);
    if let Some(tracer) = TRACER.get().filter(|_| !span.is_disabled()) {
        tracer.continue_from(span, traceparent);
    }
}

/// `span`, which has not begun, is about `events`: it goes on in their trace where they all have the same one, and is linked to
/// each where they have several (its field `traces` gets their number).
pub fn about<'a>(span: &Span, events: impl IntoIterator<Item = &'a RecordedEvent>) {
    about_all(span, events.into_iter().map(|event| &event.metadata));
}

fn about_all<'a>(span: &Span, all: impl Iterator<Item = &'a Metadata>) {
    if span.is_disabled() {
        return;
    }
    let mut parents: Vec<&str> = Vec::new();
    for parent in all.filter_map(|metadata| metadata.traceparent.as_deref()) {
        if parents.len() < MOST_LINKS && !parents.iter().any(|known| trace(known) == trace(parent)) {
            parents.push(parent);
        }
    }
    match &parents[..] {
        [] => {}
        [one] => continue_from(span, one),
        several => {
            span.record("traces", several.len());
            let Some(tracer) = TRACER.get() else { return };
            for parent in several {
                tracer.link(span, parent);
            }
        }
    }
}

/// The trace of a `traceparent`.
fn trace(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or(traceparent)
}

/// Goes on in the trace of `metadata`, unless the caller is in a span already; afterwards the metadata has the trace of `span`.
fn begun(span: Span, metadata: &mut Metadata) -> Span {
    if let Some(traceparent) = &metadata.traceparent {
        if Span::current().is_none() {
            continue_from(&span, traceparent);
        } else {
            span.record("traceparent", traceparent);
        }
    }
    if let Some(traceparent) = traceparent(&span) {
        metadata.traceparent = Some(traceparent);
    }
    span
}

/// A command on an aggregate.
pub(crate) fn execute(aggregate: &'static str, id: &str, metadata: &mut Metadata) -> Span {
    begun(debug_span!("execute", aggregate, id, traceparent = Empty), metadata)
}

/// A decision across streams.
pub(crate) fn decide(decision: &str, metadata: &mut Metadata) -> Span {
    begun(debug_span!("decide", decision, traceparent = Empty), metadata)
}

/// Appends on their way to the store together.
pub(crate) fn append(appends: &[Append]) -> Span {
    debug_span!(
        "append",
        stream = appends.first().map(|append| append.stream.as_str()),
        events = appends.iter().map(|append| append.events.len()).sum::<usize>(),
        traceparent =
            appends.iter().flat_map(|append| &append.events).find_map(|event| event.metadata.traceparent.as_deref()),
    )
}

/// Appends that a store writes with one commit. (Each caller's own span is `append`.)
pub fn write<'a>(appends: impl Iterator<Item = &'a Append>) -> Span {
    let span = debug_span!(parent: None, "write", events = Empty, traceparent = Empty, traces = Empty);
    if !span.is_disabled() {
        let events: Vec<_> = appends.flat_map(|append| &append.events).collect();
        span.record("events", events.len());
        about_all(&span, events.into_iter().map(|event| &event.metadata));
    }
    span
}

/// Events that a reader takes in together.
pub(crate) fn fold(consumer: &str, events: &[RecordedEvent]) -> Span {
    if events.is_empty() {
        return Span::none();
    }
    let span = debug_span!(parent: None, "fold", consumer, events = events.len(), traceparent = Empty, traces = Empty);
    about(&span, events);
    span
}

/// A policy's reaction to one event.
pub(crate) fn react(policy: &'static str, event: &RecordedEvent) -> Span {
    let span = debug_span!("react", policy, event = &*event.data.name, traceparent = Empty, traces = Empty);
    about(&span, [event]);
    span
}

/// An attempt at an action of a saga.
pub(crate) fn perform(saga: &'static str, instance: &str, action: u64, attempt: u32, metadata: &Metadata) -> Span {
    let span = debug_span!("perform", saga, instance, action, attempt, traceparent = Empty, traces = Empty);
    about_all(&span, std::iter::once(metadata));
    span
}

/// Events that a relay publishes together.
pub fn publish(relay: &str, events: &[RecordedEvent]) -> Span {
    let span = debug_span!(parent: None, "publish", relay, events = events.len(), traceparent = Empty, traces = Empty);
    about(&span, events);
    span
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        thread::{self, ThreadId},
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::{
        event::NewEvent,
        stream::Expected,
        testing::{account::AccountEvent, recorded, subscribe},
    };

    /// Notes what it is asked to do on the thread of its test: the process has one tracer, and spans of other tests may reach it.
    #[derive(Clone)]
    struct Noted(Arc<Mutex<Vec<String>>>, ThreadId);

    impl Noted {
        fn is_of_the_test(&self) -> bool {
            thread::current().id() == self.1
        }

        fn note(&self, what: &str, span: &Span, traceparent: &str) {
            if !self.is_of_the_test() {
                return;
            }
            let name = span.metadata().expect("it is enabled").name();
            self.0.lock().expect("no panic").push(format!("{what} {name} {}", &traceparent[3..5]));
        }
    }

    impl Tracer for Noted {
        fn traceparent(&self, _: &Span) -> Option<String> {
            self.is_of_the_test().then(|| "00-of this span".into())
        }

        fn continue_from(&self, span: &Span, traceparent: &str) {
            self.note("continue", span, traceparent);
        }

        fn link(&self, span: &Span, traceparent: &str) {
            self.note("link", span, traceparent);
        }
    }

    fn events(traces: &[&str]) -> Vec<RecordedEvent> {
        let mut events = recorded(traces.iter().map(|_| ("a", AccountEvent::Deposited { amount: 1 })));
        for (event, trace) in events.iter_mut().zip(traces) {
            let traceparent = format!("00-{}-00f067aa0ba902b7-01", trace.repeat(16));
            event.metadata.traceparent = Some(traceparent).filter(|_| !trace.is_empty());
        }
        events
    }

    /// The append that has written `event`.
    fn appended(event: RecordedEvent) -> Append {
        let new = NewEvent { metadata: event.metadata, ..NewEvent::new(event.data) };
        Append::new(event.stream, Expected::Any, vec![new])
    }

    #[test]
    fn one_trace_goes_on_and_several_are_linked() {
        let noted = Noted(Arc::default(), thread::current().id());
        assert!(set_tracer(noted.clone()), "no other test sets one");
        let sink = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let _subscribed = subscribe(tracing_subscriber::registry().with(sink));
        for traces in [&["aa", "aa", ""][..], &["aa", "bb", "aa"], &["", ""]] {
            fold("ledger", &events(traces));
        }
        react("copying", &events(&["cc"])[0]);
        publish("accounts", &events(&["aa", "bb"]));
        for traces in [&["aa", "bb"][..], &["cc", "cc"]] {
            let appends: Vec<_> = events(traces).into_iter().map(appended).collect();
            write(appends.iter());
        }
        let mut metadata = Metadata::default();
        execute("account", "a", &mut metadata);
        assert_eq!(metadata.traceparent.as_deref(), Some("00-of this span"));
        let expected = [
            "continue fold aa",
            "link fold aa",
            "link fold bb",
            "continue react cc",
            "link publish aa",
            "link publish bb",
            "link write aa",
            "link write bb",
            "continue write cc",
        ];
        assert_eq!(*noted.0.lock().expect("no panic"), expected);
        noted.0.lock().expect("no panic").clear();
        let traces: Vec<_> = (0..200).map(|number| format!("{number:02x}")).collect();
        fold("ledger", &events(&traces.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(noted.0.lock().expect("no panic").len(), MOST_LINKS);
    }
}
