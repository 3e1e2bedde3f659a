//! A few orders from beginning to end, and the read models that follow from them.

use std::{
    io::{self, Write},
    time::Duration,
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use evenfold::{
    CommandContext, ExecuteError, IdempotencyKey, InvalidKey, KeyRange, Metadata, Position, QueryError,
    service::Unsettled,
};

use crate::{
    app::App,
    ids::{CustomerId, InvalidId, OrderId},
    line::{InvalidQuantity, Line},
    money::Money,
    order::{OrderCommand, OrderRefusal},
    placing::PlaceError,
    read_models::AuditTrail,
};

/// How long policy and read models may take to follow a step.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest number of rows in a table.
const ROWS: usize = 1_000;

/// A customer, the items (product, quantity, price in cents), and the steps of the order.
type Story<'a> = (&'a str, &'a [(&'a str, u32, i64)], &'a [OrderCommand]);

const STORIES: [Story<'static>; 4] = {
    use OrderCommand::{Cancel, Complete, Pay, Reserve, Ship};
    [
        ("USR-ADA", &[("PROD-LAMP", 2, 4_999)], &[Pay, Reserve, Ship, Complete]),
        ("USR-BEN", &[("PROD-LAMP", 1, 4_999), ("PROD-BULB", 3, 10)], &[Pay, Reserve, Cancel]),
        ("USR-ADA", &[("PROD-DESK", 1, 25_000)], &[Pay, Reserve, Ship]),
        ("USR-BEN", &[("PROD-BULB", 10, 10)], &[]),
    ]
};

/// Plays the stories and prints the read models to `out`. A second run on the same store changes nothing, because every step
/// carries an idempotency key.
///
/// # Errors
/// [`DemoError`].
pub async fn run(app: &App, out: &mut impl Write) -> Result<(), DemoError> {
    let mut orders = Vec::new();
    for (number, story) in STORIES.into_iter().enumerate() {
        orders.push(live(app, &format!("demo-{number}"), story).await?);
    }
    writeln!(out, "order details\n{}\n", order_details(app, &orders).await?)?;
    writeln!(out, "orders by customer\n{}\n", orders_by_customer(app).await?)?;
    writeln!(out, "daily revenue\n{}\n", daily_revenue(app).await?)?;
    writeln!(out, "audit trail\n{}", audit_trail(app).await?)?;
    Ok(())
}

/// Each step waits until policy and read models have followed the step before, so that the log has the same order in each
/// run.
async fn live(app: &App, name: &str, (customer, items, steps): Story<'_>) -> Result<OrderId, DemoError> {
    let customer: CustomerId = customer.parse()?;
    let id = OrderId::of_request(&IdempotencyKey::new(name)?);
    let lines = items.iter().map(|(product, quantity, cents)| {
        Ok(Line { product: product.parse()?, quantity: (*quantity).try_into()?, price: Money::of_cents(*cents) })
    });
    let lines = lines.collect::<Result<Vec<_>, DemoError>>()?;
    let total = Line::total(&lines).unwrap_or_default();
    let place = OrderCommand::Place { customer: customer.clone(), lines, total };
    for (step, command) in std::iter::once(&place).chain(steps).enumerate() {
        let metadata = Metadata { actor: Some(customer.to_string()), ..Metadata::default() };
        let key = IdempotencyKey::new(format!("{name}-{step}"))?;
        let context = CommandContext::from(metadata).idempotent(key, b"demo");
        if step == 0 {
            app.placing.place(&id, &customer, command, context).await?;
        } else {
            app.orders.execute_with(&id, command.clone(), context).await?;
        }
        app.service.settled(PATIENCE).await?;
    }
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

async fn orders_by_customer(app: &App) -> Result<Table, DemoError> {
    let mut table = table(["customer", "order", "status", "total"]);
    for (key, order) in app.orders_by_customer.scan(KeyRange::default(), ROWS).await?.documents {
        let customer = key.split('/').next().unwrap_or_default();
        table.add_row([customer, order.order_id.as_ref(), &order.status.to_string(), &order.total_amount.to_string()]);
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

async fn audit_trail(app: &App) -> Result<Table, DemoError> {
    let mut table = table(["position", "event", "stream", "who", "because of"]);
    let entries = app.audit_trail.scan(AuditTrail::range(Position::ZERO), ROWS).await?.documents;
    for (_, entry) in &entries {
        let cause = entries.iter().find(|(_, cause)| Some(cause.event_id) == entry.causation_id);
        table.add_row([
            entry.position.to_string(),
            entry.event.clone(),
            entry.stream.to_string(),
            entry.actor.clone().unwrap_or_default(),
            cause.map(|(_, cause)| cause.position.to_string()).unwrap_or_default(),
        ]);
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
    #[error("a step failed")]
    Step(#[from] ExecuteError<OrderRefusal>),
    /// An order was not placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("a query failed")]
    Query(#[from] QueryError),
    #[error("policy or read models did not follow in time")]
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
