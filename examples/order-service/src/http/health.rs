//! Whether the service lives, and whether it can answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use evenfold::{Position, service::Health};
use serde::Serialize;
use serde_json::json;

use crate::app::App;

/// `GET /healthz`: the process answers, and was not told to end.
pub(super) async fn alive(State(app): State<Arc<App>>) -> Response {
    if app.service.is_live() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "ended" }))).into_response()
    }
}

/// `GET /readyz`: the store can be reached, and no part of this process has stopped for good. One that
/// stands by for newer code, as in a rolling deploy, leaves the process ready, until it has waited too long at one event
/// and stops.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Readiness {
        status: &'static str,
        reasons: Vec<String>,
        head: Option<Position>,
        reached: BTreeMap<String, Option<Position>>,
        /// Read models that do not serve before they have what the log held, and how far they are.
        building: BTreeMap<String, Position>,
        standing_by: Vec<String>,
        stopped: Vec<String>,
    }

    let Health { ready, reasons, status: found, .. } = app.service.health().await;
    let (standing_by, stopped) = (found.standing_by(), found.stopped());
    let status = match (ready, stopped.is_empty(), standing_by.is_empty()) {
        (true, _, true) => "ready",
        (true, _, false) => "standing by",
        (false, false, _) => "stopped",
        (false, true, _) => "not ready",
    };
    let (mut reached, mut building) = (BTreeMap::new(), BTreeMap::new());
    for part in found.parts.into_iter().filter(|part| part.kind.is_reader()) {
        if let Some(position) = part.building.filter(|_| part.position == Some(Position::ZERO)) {
            building.insert(part.name.clone(), position);
        }
        reached.insert(part.name, part.position);
    }
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let head = found.head;
    (code, Json(Readiness { status, reasons, head, reached, building, standing_by, stopped })).into_response()
}
