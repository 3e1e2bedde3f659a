//! Whether the service lives, and whether it can answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use es_core::Position;
use serde::Serialize;
use serde_json::json;

use super::problem::Problem;
use crate::app::App;

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: the store can be reached, and no worker of this process has stopped for good. One that
/// stands by for newer code, as in a rolling deploy, leaves the process ready, until it has waited too long at one event
/// and stops.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Readiness {
        status: &'static str,
        head: Position,
        reached: BTreeMap<&'static str, Position>,
        /// Read models that do not serve before they have what the log held, and how far they are.
        building: BTreeMap<&'static str, Position>,
        standing_by: Vec<String>,
        stopped: Vec<String>,
    }

    let head = app.log.head().await?;
    let (mut reached, mut building) = (BTreeMap::new(), BTreeMap::new());
    for (name, found) in app.generations().await.map_err(es_core::QueryError::from)? {
        reached.insert(name, found.serving.as_ref().map_or(Position::ZERO, |serving| serving.reached));
        if let Some(first) = found.building.filter(|_| found.serving.is_none()) {
            building.insert(name, first.reached);
        }
    }
    let (standing_by, stopped) = (app.states.standing_by(), app.states.stopped());
    let (code, status) = match (stopped.is_empty(), standing_by.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "standing by"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
    };
    Ok((code, Json(Readiness { status, head, reached, building, standing_by, stopped })).into_response())
}
