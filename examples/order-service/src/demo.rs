//! An order of each kind from its beginning to its end, as timelines: one goes well, and each of the others fails in another way.

mod timeline;

use std::{
    io::{self, Write},
    time::Duration,
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use evenfold::{
    CommandContext, IdempotencyKey, InvalidKey, KeyRange, Metadata, QueryError, react::saga::SagaQueryError,
    service::Unsettled,
};

pub use self::timeline::TimelineError;
use crate::{
    app::App,
    fulfilment::Fulfilment,
    ids::{CustomerId, InvalidId, OrderId},
    line::{InvalidQuantity, Line},
    money::Money,
    order::{Drive, OrderCommand},
    placing::PlaceError,
    rules::Rules,
};

/// How long an order, and the read models, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest number of rows in a table.
const ROWS: usize = 1_000;

/// What is to be seen, a customer, and the items (product, quantity, price in cents).
type Story<'a> = (&'a str, &'a str, &'a [(&'a str, u32, i64)]);

const STORIES: [Story<'static>; 5] = [
    ("All goes well", "USR-ADA", &[("PROD-LAMP", 2, 4_999)]),
    ("The payment is declined", "USR-EVE", &[("PROD-LAMP", 1, 4_999)]),
    ("There is too little in stock", "USR-BEN", &[("PROD-CHAIR", 4, 8_000), ("PROD-DESK", 2, 25_000)]),
    ("The shipment fails", "USR-FAY", &[("PROD-LAMP", 1, 4_999), ("PROD-BULB", 3, 10)]),
    ("It is not paid in time", "USR-LEO", &[("PROD-BULB", 10, 10)]),
];

/// The rules under which the stories go so.
pub fn rules() -> Rules {
    toml::from_str(include_str!("demo/rules.toml")).expect("a test reads them")
}

/// Plays the stories and prints timelines and read models to `out`. A second run on the same store changes nothing, because every
/// order has an idempotency key.
///
/// # Errors
/// [`DemoError`].
pub async fn run(app: &App, out: &mut impl Write) -> Result<(), DemoError> {
    let mut orders = Vec::new();
    for (number, story) in STORIES.iter().enumerate() {
        let order = live(app, &format!("demo-{number}"), story).await?;
        writeln!(out, "{}\n", story.0)?;
        timeline::print(&app.service, &order, out).await?;
        writeln!(out)?;
        orders.push(order);
    }
    app.service.settled(PATIENCE).await?;
    writeln!(out, "order details\n{}\n", order_details(app, &orders).await?)?;
    writeln!(out, "stock\n{}\n", stock(app).await?)?;
    writeln!(out, "daily revenue\n{}", daily_revenue(app).await?)?;
    Ok(())
}

/// Places an order, and returns when nothing happens to it any more.
async fn live(app: &App, name: &str, (_, customer, items): &Story<'_>) -> Result<OrderId, DemoError> {
    let customer: CustomerId = customer.parse()?;
    let key = IdempotencyKey::new(name)?;
    let id = OrderId::of_request(&key);
    let lines = items.iter().map(|(product, quantity, cents)| {
        Ok(Line { product: product.parse()?, quantity: (*quantity).try_into()?, price: Money::of_cents(*cents) })
    });
    let lines = lines.collect::<Result<Vec<_>, DemoError>>()?;
    let total = Line::total(&lines).unwrap_or_default();
    let drive = Drive::Saga { pay_within_ms: app.rules.payments.within_ms };
    let place = OrderCommand::Place { customer: customer.clone(), lines, total, drive };
    let metadata = Metadata { actor: Some(customer.to_string()), ..Metadata::default() };
    app.placing.place(&id, &customer, &place, CommandContext::from(metadata).idempotent(key, b"demo")).await?;
    app.service.sagas::<Fulfilment>().ended(id.as_ref(), PATIENCE).await?;
    Ok(id)
}

async fn order_details(app: &App, orders: &[OrderId]) -> Result<Table, DemoError> {
    let mut table = table(["order", "customer", "status", "items", "total", "version"]);
    for id in orders {
        if let Some(order) = app.order_details.get(id.as_ref()).await? {
            let items = order.items.iter().map(|item| format!("{} × {}", item.quantity.get(), item.product_id));
            table.add_row([
                order.order_id.to_string(),
                order.user_id.to_string(),
                order.status.to_string(),
                items.collect::<Vec<_>>().join(", "),
                order.total_amount.to_string(),
                order.version.to_string(),
            ]);
        }
    }
    Ok(table)
}

async fn stock(app: &App) -> Result<Table, DemoError> {
    let mut table = table(["product", "free", "reserved", "dispatched"]);
    for (product, item) in app.stock.scan(KeyRange::default(), ROWS).await?.documents {
        let [free, reserved, dispatched] = [item.free.unwrap_or_default(), item.reserved, item.dispatched];
        table.add_row([product, free.to_string(), reserved.to_string(), dispatched.to_string()]);
    }
    Ok(table)
}

async fn daily_revenue(app: &App) -> Result<Table, DemoError> {
    let mut table = table(["date", "orders placed", "captured", "refunded", "net"]);
    for (date, day) in app.daily_revenue.scan(KeyRange::default(), ROWS).await?.documents {
        let [captured, refunded, net] = [day.captured, day.refunded, day.net].map(|amount| amount.to_string());
        table.add_row([date, day.placed.to_string(), captured, refunded, net]);
    }
    Ok(table)
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DemoError {
    /// An order was not placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("a query failed")]
    Query(#[from] QueryError),
    #[error("the order did not come to its end")]
    Unended(#[from] SagaQueryError),
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    #[error("the read models did not follow in time")]
    Unsettled(#[from] Unsettled),
    #[error("the tables cannot be printed")]
    Print(#[from] io::Error),
    #[error("a story of the demo is invalid")]
    Id(#[from] InvalidId),
    #[error("a story of the demo is invalid")]
    Key(#[from] InvalidKey),
    #[error("a story of the demo is invalid")]
    Quantity(#[from] InvalidQuantity),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_can_be_read() {
        assert_eq!(rules().payments.declined.len(), 1);
    }
}
