//! Whether the service is alive, and whether it is ready.

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

/// `GET /healthz`: the process answers, and its shutdown has not begun.
pub(super) async fn alive(State(app): State<Arc<App>>) -> Response {
    if app.service.is_live() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "ended" }))).into_response()
    }
}

/// `GET /readyz`: the store answers, no part of this process has stopped for good, and, in the first seconds of the process, each read
/// model serves. A part that stands by for newer code, as in a rolling deploy, leaves the process ready. If it waits at one event for too long, it stops.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Readiness {
        status: &'static str,
        reasons: Vec<String>,
        head: Option<Position>,
        reached: BTreeMap<String, Option<Position>>,
        /// Read models that are being built and do not serve yet, and the position that each has reached.
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
    for part in found.parts.into_iter().filter(|part| part.kind.follows_log()) {
        if let Some(position) = part.building.filter(|_| part.serves == Some(false)) {
            building.insert(part.name.clone(), position);
        }
        reached.insert(part.name, part.position);
    }
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let head = found.head;
    (code, Json(Readiness { status, reasons, head, reached, building, standing_by, stopped })).into_response()
}
