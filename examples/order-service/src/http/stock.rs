//! The stock: shown, and replenished.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use evenfold::{
    KeyRange, ReadToken, Receipt, Version,
    http::{CommandHeaders, ETag, JsonBody},
};
use serde::{Deserialize, Serialize};

use super::{
    cursor::Cursor,
    parameters::{Id, Parameters},
    problem::{Kind, Problem},
    queries::{catch_up, limit},
};
use crate::{
    app::App,
    ids::ProductId,
    inventory::{InventoryCommand, InventoryRefusal},
    line::Quantity,
    read_models::StockItem,
};

/// `GET /api/stock`, a page at a time in the order of the products' ids: those that were ordered or received.
pub(super) async fn all(State(app): State<Arc<App>>, mut parameters: Parameters) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Page {
        products: Vec<StockItem>,
        next: Option<Cursor>,
    }

    let cursor = parameters.take::<Cursor>("cursor")?;
    let limit = limit(&mut parameters)?;
    let after = parameters.take("after")?;
    parameters.finish()?;
    catch_up(&app.stock, after).await?;
    let range = KeyRange::default();
    let range = match cursor {
        Some(Cursor(cursor)) => range.resume(cursor),
        None => range,
    };
    let page = app.stock.scan(range, limit).await?;
    let products = page.documents.into_iter().map(|(_, product)| product).collect();
    Ok(Json(Page { products, next: page.next.map(Cursor) }))
}

/// `GET /api/stock/{id}`. A product that was never ordered or received has its opening stock.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Id(product_id): Id<ProductId>,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    let after = parameters.take("after")?;
    parameters.finish()?;
    catch_up(&app.stock, after).await?;
    let opening = Some(app.rules.stock.opening_of(&product_id));
    let unseen = || StockItem { product_id: product_id.clone(), free: opening, reserved: 0, dispatched: 0 };
    Ok(Json(app.stock.get(product_id.as_ref()).await?.unwrap_or_else(unseen)))
}

/// The body of `POST /api/stock/{id}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receive {
    pieces: Quantity,
}

/// `POST /api/stock/{id}`: pieces have come in.
pub(super) async fn receive(
    State(app): State<Arc<App>>,
    Id(product_id): Id<ProductId>,
    headers: CommandHeaders,
    JsonBody { value: request, .. }: JsonBody<Receive>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        product_id: ProductId,
        version: Version,
        token: ReadToken,
    }

    let canonical = serde_json::to_vec(&request).map_err(|error| Problem::failed(&error))?;
    let opening = app.rules.stock.opening_of(&product_id);
    let command = InventoryCommand::Receive { pieces: request.pieces.get().into(), opening };
    let context = headers.context(Some("staff"), &canonical);
    let receipt = app.inventory.execute_with(&product_id, command, context).await?;
    let Receipt { version, token, .. } = receipt;
    Ok((ETag(version), Json(Answer { product_id, version, token })))
}

impl From<InventoryRefusal> for Problem {
    fn from(refusal: InventoryRefusal) -> Self {
        Kind::Invalid.in_field("pieces", refusal.to_string())
    }
}
