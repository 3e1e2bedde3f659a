//! Queries of the read models.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{Days, NaiveDate, Utc};
use evenfold::{Position, Projection, ReadModel, ReadToken};
use serde::Serialize;

use super::{
    cursor::Cursor,
    parameters::{Id, Parameters},
    problem::{Kind, Problem},
};
use crate::{
    app::App,
    ids::CustomerId,
    order::Status,
    read_models::{AuditEntry, AuditTrail, DailyRevenue, OrderFunnel, OrderSummary, OrdersByCustomer},
};

/// How long `?after=` waits for a read model.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The largest number of days in one answer.
const MAX_DAYS: usize = 366;

/// Waits until `model` holds the write that returned the token `after` (R13).
pub(super) async fn catch_up<P: Projection>(model: &ReadModel<P>, after: Option<ReadToken>) -> Result<(), Problem> {
    match after {
        Some(token) => Ok(model.wait_for(token, PATIENCE).await?),
        None => Ok(()),
    }
}

/// `GET /api/customers/{id}/orders`, a page at a time in the order of the orders' ids. Ids that the service has generated
/// are in the order in which the orders were placed.
pub(super) async fn orders_of_customer(
    State(app): State<Arc<App>>,
    Id(user_id): Id<CustomerId>,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        user_id: CustomerId,
        orders: Vec<OrderSummary>,
        next: Option<Cursor>,
    }

    let cursor = parameters.take::<Cursor>("cursor")?;
    let limit = limit(&mut parameters)?;
    let after = parameters.take("after")?;
    parameters.finish()?;
    catch_up(&app.orders_by_customer, after).await?;
    let range = OrdersByCustomer::range(&user_id);
    let range = match cursor {
        Some(Cursor(cursor)) => range.resume(cursor),
        None => range,
    };
    let page = app.orders_by_customer.scan(range, limit).await?;
    let orders = page.documents.into_iter().map(|(_, order)| order).collect();
    Ok(Json(Page { user_id, orders, next: page.next.map(Cursor) }))
}

/// `GET /api/revenue?from=&to=`, both days included; by default the last 30 days.
pub(super) async fn revenue(State(app): State<Arc<App>>, mut parameters: Parameters) -> Result<Response, Problem> {
    let to = parameters.take("to")?.unwrap_or_else(|| Utc::now().date_naive());
    let from = parameters.take("from")?.unwrap_or_else(|| to.checked_sub_days(Days::new(30)).unwrap_or(to));
    let after = parameters.take("after")?;
    parameters.finish()?;
    let days = usize::try_from((to - from).num_days() + 1).unwrap_or_default();
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Kind::Parameter.in_field("from", format!("expected at most {MAX_DAYS} days up to {to}")));
    }
    match &app.first_daily_revenue {
        Some(first) => revenue_of(first, from, to, after).await,
        None => revenue_of(&app.daily_revenue, from, to, after).await,
    }
}

async fn revenue_of<P: Projection>(
    model: &ReadModel<P>,
    from: NaiveDate,
    to: NaiveDate,
    after: Option<ReadToken>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Revenue<D> {
        from: NaiveDate,
        to: NaiveDate,
        days: Vec<Dated<D>>,
    }

    #[derive(Serialize)]
    struct Dated<D> {
        date: String,
        #[serde(flatten)]
        day: D,
    }

    catch_up(model, after).await?;
    let days = model.scan(DailyRevenue::range(from, to), MAX_DAYS).await?;
    let days = days.documents.into_iter().map(|(date, day)| Dated { date, day }).collect();
    Ok(Json(Revenue { from, to, days }).into_response())
}

/// `GET /api/audit?cursor=`, a page at a time in the order of the log.
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Page {
        entries: Vec<AuditEntry>,
        /// The `cursor` of the next page, also if there are no more entries yet.
        next: Position,
    }

    let cursor = parameters.take("cursor")?.map_or(Position::ZERO, Position::new);
    let limit = limit(&mut parameters)?;
    let after = parameters.take("after")?;
    parameters.finish()?;
    catch_up(&app.audit_trail, after).await?;
    let page = app.audit_trail.scan(AuditTrail::range(cursor), limit).await?;
    let entries: Vec<_> = page.documents.into_iter().map(|(_, entry)| entry).collect();
    let next = entries.last().map_or(cursor, |last| last.position);
    Ok(Json(Page { entries, next }))
}

/// `GET /api/funnel`: how many orders have each status.
pub(super) async fn funnel(
    State(app): State<Arc<App>>,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Funnel {
        orders: BTreeMap<Status, u64>,
    }

    let after = parameters.take("after")?;
    parameters.finish()?;
    let without_kafka = || Kind::NotFound.because("the funnel is kept by services with --kafka");
    let model = app.order_funnel.as_ref().ok_or_else(without_kafka)?;
    catch_up(model, after).await?;
    let mut orders = BTreeMap::new();
    for status in Status::ALL {
        orders.insert(status, model.count(OrderFunnel::STATUS.is(status.to_string())).await?);
    }
    Ok(Json(Funnel { orders }))
}

/// The most entries of a page.
pub(super) fn limit(parameters: &mut Parameters) -> Result<usize, Problem> {
    let limit = parameters.take("limit")?.unwrap_or(20);
    if (1..=100).contains(&limit) {
        Ok(limit)
    } else {
        Err(Kind::Parameter.in_field("limit", "expected a number from 1 to 100"))
    }
}
