//! Commands: placing an order, and taking the steps of a manual one.

use std::{str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use evenfold::{
    CommandContext, ReadToken, Receipt, Version,
    http::{CommandHeaders, ETag, JsonBody, NoBody},
};
use serde::{Deserialize, Serialize};

use super::{
    parameters::{Id, Parameters},
    problem::{Kind, Problem},
};
use crate::{
    app::App,
    ids::{CustomerId, OrderId},
    line::{Item, Line},
    money::{self, Money},
    order::{Drive, OrderCommand, Status},
};

/// The body of `POST /api/orders`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PlaceOrder {
    user_id: CustomerId,
    items: Vec<Item>,
    #[serde(with = "money::price")]
    total_amount: Money,
}

/// Who takes the steps of the order: `?drive=`.
#[derive(Debug, Clone, Copy, Serialize)]
enum Driver {
    Saga,
    Manual,
}

impl FromStr for Driver {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "saga" => Ok(Self::Saga),
            "manual" => Ok(Self::Manual),
            _ => Err("expected saga or manual"),
        }
    }
}

/// The answer to every command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    order_id: OrderId,
    status: Status,
    version: Version,
    token: ReadToken,
}

/// `POST /api/orders`, also `?drive=manual`.
pub(super) async fn place(
    State(app): State<Arc<App>>,
    headers: CommandHeaders,
    mut parameters: Parameters,
    JsonBody { value: request, .. }: JsonBody<PlaceOrder>,
) -> Result<impl IntoResponse, Problem> {
    let driver = parameters.take("drive")?.unwrap_or(Driver::Saga);
    parameters.finish()?;
    // A repeated request may have its fields in another order, or other blanks between them.
    let canonical = serde_json::to_vec(&(&request, driver)).map_err(|error| Problem::failed(&error))?;
    let PlaceOrder { user_id: customer, items, total_amount: total } = request;
    let order_id = match &headers.key {
        Some(key) => OrderId::of_request(key),
        None => OrderId::random(),
    };
    // An order that was not placed yet has version 0.
    if let Some(seen) = headers.if_version.filter(|seen| *seen > Version::ZERO) {
        return Err(Kind::Stale.in_field("If-Match", format!("expected version {seen}, found version 0")));
    }
    let context = CommandContext { if_version: None, ..headers.context(Some(customer.as_ref()), &canonical) };
    let lines = items.into_iter().map(Line::from).collect();
    let drive = match driver {
        Driver::Saga => Drive::Saga { pay_within_ms: app.rules.payments.within_ms },
        Driver::Manual => Drive::Manual,
    };
    let place = OrderCommand::Place { customer: customer.clone(), lines, total, drive };
    let status = place.leads_to();
    let receipt = app.placing.place(&order_id, &customer, &place, context).await?;
    let location = format!("/api/orders/{order_id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], answer(order_id, status, receipt)))
}

/// A request to one order: `POST /api/orders/{id}/…`.
pub(super) struct Addressed {
    app: Arc<App>,
    order_id: OrderId,
    headers: CommandHeaders,
}

impl FromRequest<Arc<App>> for Addressed {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Id(order_id) = Id::from_request_parts(&mut parts, app).await?;
        let headers = CommandHeaders::from_request_parts(&mut parts, app).await?;
        NoBody::from_request(Request::from_parts(parts, body), app).await?;
        Ok(Self { app: app.clone(), order_id, headers })
    }
}

impl Addressed {
    /// Takes the step to `status`.
    pub(super) async fn execute(self, status: Status) -> Result<impl IntoResponse, Problem> {
        let Self { app, order_id, headers } = self;
        let context = headers.context(Some("staff"), status.to_string().as_bytes());
        let receipt = app.orders.execute_with(&order_id, OrderCommand::Manual(status), context).await?;
        Ok(answer(order_id, status, receipt))
    }
}

fn answer(order_id: OrderId, status: Status, receipt: Receipt) -> (ETag, Json<Answer>) {
    let Receipt { version, token, .. } = receipt;
    (ETag(version), Json(Answer { order_id, status, version, token }))
}
