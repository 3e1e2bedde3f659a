//! Whether a service lives, and whether it is ready.

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use es_core::Service;
use serde_json::json;

/// The routes `GET /healthz` and `GET /readyz` of `service`, to be merged into the router of an application.
///
/// | route | answer |
/// |---|---|
/// | `/healthz` | 200 as long as the process is of use, 503 once the service was shut down. It does not ask the store: a database that is away is no reason to end a process |
/// | `/readyz` | 200, or 503 with the reasons; in both cases [`Health`](crate::service::Health) as JSON, with state, position, lag and last error of each part |
///
/// ```
/// use axum::Router;
/// use evenfold::{MemoryStore, http::health_routes, prelude::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder("seats", MemoryStore::new()).start().await?;
/// let router: Router = Router::new().merge(health_routes(&service));
/// # Ok(())
/// # }
/// ```
pub fn health_routes<S: Clone + Send + Sync + 'static>(service: &Service) -> Router<S> {
    let (lives, is_ready) = (service.clone(), service.clone());
    Router::new().route("/healthz", get(async move || alive(&lives))).route(
        "/readyz",
        get(async move || {
            let health = is_ready.health().await;
            (status(health.ready), Json(health))
        }),
    )
}

fn alive(service: &Service) -> impl IntoResponse + use<> {
    let live = service.is_live();
    (status(live), Json(json!({ "live": live })))
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
