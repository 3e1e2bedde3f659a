//! The search for orders.

use std::{fmt, str::FromStr, sync::Arc};

use axum::{Json, extract::State, response::IntoResponse};
use serde::{Serialize, Serializer};

use super::{
    parameters::Parameters,
    problem::Problem,
    queries::{PATIENCE, limit},
};
use crate::{
    app::App,
    ids::{CustomerId, OrderId},
    read_models::{OrderSummary, SearchError, Wanted},
};

/// `GET /api/orders/search`: orders by status, customer, amount and time, sorted, a page at a time, with their number.
pub(super) async fn search(
    State(app): State<Arc<App>>,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Page {
        count: i64,
        orders: Vec<Listed>,
        next: Option<Place>,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        user_id: CustomerId,
        #[serde(flatten)]
        order: OrderSummary,
    }

    let limit = limit(&mut parameters)?;
    let wanted = Wanted {
        status: parameters.take("status")?,
        customer: parameters.take("customer")?,
        least: parameters.take("least")?,
        most: parameters.take("most")?,
        since: parameters.take("since")?,
        until: parameters.take("until")?,
        sort: parameters.take("sort")?.unwrap_or_default(),
        descending: parameters.take("descending")?.unwrap_or_default(),
        after: parameters.take("cursor")?.map(|Place(generation, order)| (generation, order)),
        limit: i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let after = parameters.take("after")?;
    parameters.finish()?;
    if let Some(token) = after {
        app.order_search.wait_for(token, PATIENCE).await?;
    }
    let found = app.order_search.find(&wanted).await?;
    let last = found.orders.last().filter(|_| found.orders.len() == limit);
    let next = last.map(|(_, last)| Place(found.generation, last.order_id.clone()));
    let orders = found.orders.into_iter().map(|(user_id, order)| Listed { user_id, order }).collect();
    Ok(Json(Page { count: found.count, orders, next }))
}

/// The last order of a page, and the generation in which it was found: `7-ORD-…`.
struct Place(i64, OrderId);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (generation, order) = text.split_once('-').ok_or("not a cursor of this service")?;
        let generation = generation.parse().map_err(|_| "not a cursor of this service")?;
        Ok(Self(generation, order.parse().map_err(|_| "not a cursor of this service")?))
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Query(error) => error.into(),
            SearchError::Database(_) | SearchError::Row(_) => Self::failed(&error),
        }
    }
}
