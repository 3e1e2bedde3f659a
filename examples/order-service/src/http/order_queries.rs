//! Queries of one order: its state now, its state at a version, its timeline and its events.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use evenfold::http::ETag;
use evenfold::read::refold::Moment;
use evenfold::{LiveError, Metadata, Position, RecordedEvent, Version};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    parameters::{Id, Parameters},
    problem::{Problem, unknown_order},
    queries::catch_up,
};
use crate::{
    app::App,
    ids::OrderId,
    read_models::{OrderView, Step},
};

/// The largest number of events in one answer. An order has at most five.
const MAX_EVENTS: usize = 1_000;

/// `GET /api/orders/{id}`, also `?after=<token>` or `?version=<n>`.
pub(super) async fn order(
    State(app): State<Arc<App>>,
    Id(id): Id<OrderId>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let version = parameters.take("version")?.map(Version::new);
    let after = parameters.take("after")?;
    parameters.finish()?;
    catch_up(&app.order_details, after).await?;
    let found = match version {
        Some(version) => as_of(&app, &id, version).await?,
        None => app.order_details.get(id.as_ref()).await?,
    };
    let order = found.ok_or_else(unknown_order)?;
    Ok((ETag(order.version), Json(order)).into_response())
}

/// The order after its first `version` events, by the fold of the read model.
async fn as_of(app: &App, id: &OrderId, version: Version) -> Result<Option<OrderView>, Problem> {
    match app.past_order_details.get_as_of(id.as_ref(), Moment::Version(version)).await {
        Err(LiveError::NoSuchVersion { .. }) => Ok(None),
        found => Ok(found?),
    }
}

/// `GET /api/orders/{id}/timeline`: always with all that was written before the request, so it has no `?after=`.
pub(super) async fn timeline(
    State(app): State<Arc<App>>,
    Id(order_id): Id<OrderId>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Timeline {
        order_id: OrderId,
        steps: Vec<Step>,
    }

    parameters.finish()?;
    let steps = app.order_timeline.get(order_id.as_ref()).await?.ok_or_else(unknown_order)?;
    Ok(Json(Timeline { order_id, steps }))
}

/// `GET /api/orders/{id}/events`.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Id(order_id): Id<OrderId>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Stream {
        order_id: OrderId,
        events: Vec<Event>,
    }

    parameters.finish()?;
    let events = read(&app, &order_id).await?;
    if events.is_empty() {
        return Err(unknown_order());
    }
    let events = events.into_iter().map(Event::try_from).collect::<Result<_, _>>()?;
    Ok(Json(Stream { order_id, events }))
}

/// An event as it is stored: in the schema version in which it was written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    version: Version,
    position: Position,
    id: Uuid,
    r#type: String,
    schema_version: u32,
    recorded_at: DateTime<Utc>,
    data: Box<RawValue>,
    metadata: Metadata,
}

impl TryFrom<RecordedEvent> for Event {
    type Error = Problem;

    fn try_from(event: RecordedEvent) -> Result<Self, Problem> {
        let damaged = |error: serde_json::Error| Problem::failed(&error);
        Ok(Self {
            version: event.version,
            position: event.position,
            id: event.id,
            r#type: event.data.name.to_string(),
            schema_version: event.data.schema_version,
            recorded_at: event.recorded_at,
            data: serde_json::from_slice(&event.data.payload).map_err(damaged)?,
            metadata: event.metadata,
        })
    }
}

async fn read(app: &App, id: &OrderId) -> Result<Vec<RecordedEvent>, Problem> {
    // Each order id is a valid stream id.
    let stream = app.orders.stream(id.as_ref()).map_err(|error| Problem::failed(&error))?;
    Ok(app.service.store().read_stream(&stream, Version::ZERO, MAX_EVENTS).await?)
}
