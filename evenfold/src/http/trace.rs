//! Requests as spans.

use axum::{
    extract::{MatchedPath, Request},
    http::HeaderValue,
    middleware::Next,
    response::Response,
};
use es_core::telemetry::spans;
use tracing::{Instrument, debug_span, field::Empty};

use super::command::traceparent;

/// Answers a request in a span `request` of the level debug, with method, route and status.
///
/// It goes on in the trace of the header `traceparent`. Where spans are exported ([`spans::set_tracer`]), the header is given the
/// span itself, so that [`CommandHeaders`](super::CommandHeaders) takes that one into the events. One that cannot be read is
/// dropped, as W3C Trace Context asks.
///
/// ```
/// use axum::{Router, middleware, routing::get};
/// use evenfold::http::trace_request;
///
/// let router: Router = Router::new().route("/", get(async || "")).layer(middleware::from_fn(trace_request));
/// ```
pub async fn trace_request(mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = request.method().as_str();
    let span = debug_span!("request", method, route, status = Empty, traceparent = Empty);
    let given = request.headers().get("traceparent").and_then(|value| traceparent(value.to_str().ok()?));
    if let Some(given) = &given {
        spans::continue_from(&span, given);
    }
    let now = spans::traceparent(&span).or(given);
    match now.and_then(|now| HeaderValue::try_from(now).ok()) {
        Some(now) => drop(request.headers_mut().insert("traceparent", now)),
        None => drop(request.headers_mut().remove("traceparent")),
    }
    async {
        let response = next.run(request).await;
        tracing::Span::current().record("status", response.status().as_u16());
        response
    }
    .instrument(span)
    .await
}
