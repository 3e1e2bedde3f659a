//! The API over HTTP.

mod changes;
mod cursor;
mod health;
mod order_queries;
mod orders;
mod parameters;
mod problem;
mod queries;
mod search;
mod stock;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
};
use evenfold::http::trace_request;

use crate::{app::App, order::Status};
use orders::Addressed;
use problem::Kind;

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// All routes of the API.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/orders", post(orders::place))
        .route("/api/orders/search", get(search::search))
        .route("/api/orders/{id}", get(order_queries::order))
        .route("/api/orders/{id}/events", get(order_queries::events))
        .route("/api/orders/{id}/timeline", get(order_queries::timeline))
        .route("/api/orders/{id}/changes", get(changes::changes))
        .route("/api/orders/{id}/pay", post(|order: Addressed| order.execute(Status::PaymentOk)))
        .route("/api/orders/{id}/reserve", post(|order: Addressed| order.execute(Status::Reserved)))
        .route("/api/orders/{id}/ship", post(|order: Addressed| order.execute(Status::Scheduled)))
        .route("/api/orders/{id}/complete", post(|order: Addressed| order.execute(Status::Completed)))
        .route("/api/orders/{id}/cancel", post(|order: Addressed| order.execute(Status::Cancelled)))
        .route("/api/stock", get(stock::all))
        .route("/api/stock/{id}", get(stock::one).post(stock::receive))
        .route("/api/customers/{id}/orders", get(queries::orders_of_customer))
        .route("/api/revenue", get(queries::revenue))
        .route("/api/audit", get(queries::audit))
        .route("/api/funnel", get(queries::funnel))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(async |uri: Uri| Kind::NotFound.because(format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Kind::MethodNotAllowed.because(format!("{} does not know {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(trace_request))
        .with_state(Arc::new(app))
}
