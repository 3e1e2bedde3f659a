//! Spans go to a collector over OTLP (feature `otel`), as the environment says: `OTEL_EXPORTER_OTLP_ENDPOINT`, and the others
//! of OpenTelemetry's specification.

use std::env;

use evenfold::telemetry::spans::{Tracer, set_tracer};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// Either one asks for spans.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Sends what is left when it is dropped.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The layer that sends spans, if the environment names where to.
///
/// # Errors
/// [`ExporterBuildError`] when what it says makes no sense.
pub fn layer<S>() -> Result<Option<(impl Layer<S>, Exporting)>, ExporterBuildError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if ENDPOINTS.iter().all(|name| env::var_os(name).is_none()) {
        return Ok(None);
    }
    let is_json = env::var("OTEL_EXPORTER_OTLP_PROTOCOL").is_ok_and(|protocol| protocol == "http/json");
    let protocol = if is_json { Protocol::HttpJson } else { Protocol::HttpBinary };
    let exporter = SpanExporter::builder().with_http().with_protocol(protocol).build()?;
    let resource = Resource::builder().with_service_name("order-service").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let wanted = ["es_core", "es_kafka", "evenfold"].map(|target| (target, Level::DEBUG));
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("evenfold"));
    set_tracer(OpenTelemetry);
    Ok(Some((layer.with_filter(Targets::new().with_targets(wanted)), Exporting(provider))))
}

struct OpenTelemetry;

impl Tracer for OpenTelemetry {
    fn traceparent(&self, span: &Span) -> Option<String> {
        let context = span.context();
        let context = context.span().span_context().clone();
        let flags = context.trace_flags().to_u8();
        context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    fn continue_from(&self, span: &Span, traceparent: &str) {
        if let Some(context) = read(traceparent)
            && let Err(error) = span.set_parent(Context::new().with_remote_span_context(context))
        {
            tracing::debug!(%error, "a span does not go on in its trace");
        }
    }

    fn link(&self, span: &Span, traceparent: &str) {
        if let Some(context) = read(traceparent) {
            span.add_link(context);
        }
    }
}

/// `00-<trace>-<span>-<flags>`.
fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}
