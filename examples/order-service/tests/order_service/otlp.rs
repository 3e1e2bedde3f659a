//! What a collector gets, over OTLP.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::service::{Service, order, program};

/// Keeps all spans that it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Value>>>,
    url: String,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self { url, ..Self::default() };
        let take = async |State(spans): State<Arc<Mutex<Vec<Value>>>>, Json(request): Json<Value>| {
            let mut all = spans.lock().unwrap();
            for resource in request["resourceSpans"].as_array().unwrap() {
                for scope in resource["scopeSpans"].as_array().unwrap() {
                    all.extend(scope["spans"].as_array().unwrap().iter().cloned());
                }
            }
            Json(json!({}))
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.spans.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        collector
    }

    fn told(&self, command: &mut Command) {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.url).env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
    }

    /// All spans of this name in the trace.
    fn of(&self, trace: &str, name: &str) -> Vec<Value> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span["traceId"] == trace && span["name"] == name).cloned().collect()
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00f067aa0ba902b7";

async fn place(service: &Service, trace: &str) {
    let placed = service.post("/api/orders?drive=manual").json(&order("USR-123", 2));
    let placed = placed.header("traceparent", format!("00-{trace}-{CALLER}-01")).send().await.unwrap();
    assert_eq!(placed.status(), 201);
}

/// (Seen to fail without [`set_tracer`](evenfold::telemetry::spans::set_tracer): each span was a trace of its own.)
#[tokio::test]
async fn one_trace_leads_from_the_client_to_the_read_models_and_a_batch_of_two_is_linked_to_both() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start_with(directory, &["--only-http"], |command| collector.told(command)).await;
    place(&service, TRACE).await;
    // Another process, which knows the trace from the events.
    let project = async || {
        let mut command = program(service.directory.path(), &["project", "order-details"]);
        collector.told(&mut command);
        let mut process = command.spawn().unwrap();
        let position = service.readyz().await["head"].clone();
        while service.readyz().await["reached"]["order-details"] != position {
            tokio::task::yield_now().await;
        }
        let id = process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        assert!(process.wait().await.unwrap().success());
    };
    project().await;
    place(&service, TRACE).await;
    place(&service, OTHER).await;
    project().await;
    service.interrupt().await;

    let only = |name: &str, count: usize| {
        let found = collector.of(TRACE, name);
        assert_eq!(found.len(), count, "{name} in {:#?}", collector.spans.lock().unwrap());
        found[0].clone()
    };
    let (request, decide, append, fold) = (only("request", 2), only("decide", 2), only("append", 2), only("fold", 1));
    for (child, parent) in [
        (&request, &json!(CALLER)),
        (&decide, &request["spanId"]),
        (&append, &decide["spanId"]),
        (&fold, &decide["spanId"]),
    ] {
        assert_eq!(&child["parentSpanId"], parent, "{child:#?}");
    }
    let spans = collector.spans.lock().unwrap();
    let linked = spans.iter().filter_map(|span| span["links"].as_array().filter(|links| links.len() == 2));
    let [links] = &linked.collect::<Vec<_>>()[..] else { panic!("one batch has two traces: {spans:#?}") };
    assert_eq!((&links[0]["traceId"], &links[1]["traceId"]), (&json!(TRACE), &json!(OTHER)));
}
