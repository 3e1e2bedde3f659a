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

/// `GET /readyz`: the store can be reached, and no worker of this process has stopped for good.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Readiness {
        status: &'static str,
        head: Position,
        reached: BTreeMap<&'static str, Position>,
        stopped: Vec<String>,
    }

    let head = app.log.head().await?;
    let reached = app.progress().await.map_err(es_core::QueryError::from)?.into_iter().collect();
    let stopped = app.casualties.list();
    let (code, status) =
        if stopped.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "stopped") };
    Ok((code, Json(Readiness { status, head, reached, stopped })).into_response())
}
