//! The changes of one order, as server-sent events.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};
use evenfold::{CancellationToken, Change, ChangeToken, ReadModel, Since, Watch, WatchError};
use futures_util::stream;

use super::{
    parameters::{Id, Parameters},
    problem::{Kind, Problem, unknown_order},
    queries::catch_up,
};
use crate::{
    app::App,
    ids::OrderId,
    read_models::{OrderDetails, OrderView},
};

/// The header with which a browser says which event it got last.
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /api/orders/{id}/changes`, also `?after=<token>`: the order as it is, and again after each change, until the client or the
/// process ends. A client that connects again with the id of its last event gets what has changed since.
pub(super) async fn changes(
    State(app): State<Arc<App>>,
    Id(id): Id<OrderId>,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let after = parameters.take("after")?;
    parameters.finish()?;
    let last = headers.get(LAST_EVENT_ID).map(|last| {
        let last = last.to_str().ok().and_then(|last| last.parse::<ChangeToken>().ok());
        last.ok_or_else(|| Kind::Parameter.in_field("Last-Event-ID", "not the id of an event of this service"))
    });
    let last = last.transpose()?;
    catch_up(&app.order_details, after).await?;
    if last.is_none() && app.order_details.get(id.as_ref()).await?.is_none() {
        return Err(unknown_order());
    }
    let (model, stops) = (app.order_details.clone(), app.stops.clone());
    let watch = model.watch(id.as_ref(), last)?;
    let changes = Changes { model, id, watch, has_told: true, stops };
    let events = stream::unfold(changes, async |mut changes| {
        changes.next().await.map(|event| (Ok::<_, Infallible>(event), changes))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Changes {
    model: ReadModel<OrderDetails>,
    id: OrderId,
    watch: Watch<OrderDetails>,
    /// Whether an event has come since the watch began anew.
    has_told: bool,
    stops: CancellationToken,
}

impl Changes {
    /// The next event; `None` when the client has to connect again, or the process ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            match self.stops.run_until_cancelled(self.watch.next()).await? {
                Ok(change) => {
                    self.has_told = true;
                    return event(&change);
                }
                // The read model was replaced: the current state first.
                Err(error) if self.has_told && !error.is_transient() => {
                    self.has_told = false;
                    self.watch = self.model.watch(self.id.as_ref(), Since::Now).ok()?;
                }
                Err(error) => return ended(&error),
            }
        }
    }
}

fn event(change: &Change<OrderView>) -> Option<Event> {
    let event = Event::default().event("order");
    let event = match change.token {
        Some(token) => event.id(token.to_string()),
        None => event,
    };
    event.json_data(&change.document).ok()
}

fn ended(error: &WatchError) -> Option<Event> {
    tracing::warn!(error = error as &dyn std::error::Error, "the changes of an order end");
    None
}
