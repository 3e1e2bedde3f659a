//! Version 1, with which the walk in the README begins: it counted in cents.

use evenfold::{FoldResult, Keys, Projection, Recorded};
use serde::{Deserialize, Serialize};

use super::{DailyRevenue, SalesEvent};
use crate::{order::OrderEvent, payment::PaymentEvent};

/// The daily revenue as the first release folded it. An amount with fractions of a cent is more than it can count.
#[derive(Debug, Clone, Copy)]
pub struct FirstDailyRevenue;

/// The revenue of one day, in cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct DayInCents {
    pub placed: u64,
    pub captured_cents: i64,
    pub refunded_cents: i64,
}

impl Projection for FirstDailyRevenue {
    const NAME: &'static str = DailyRevenue::NAME;

    type Event = SalesEvent;
    type Document = DayInCents;

    fn keys(&self, event: &Recorded<SalesEvent>) -> Keys {
        DailyRevenue.keys(event)
    }

    fn fold(&self, document: &mut Option<DayInCents>, event: &Recorded<SalesEvent>) -> FoldResult {
        let day = document.get_or_insert_default();
        let (sum, amount) = match &event.data {
            SalesEvent::Order(OrderEvent::Placed { .. }) => {
                day.placed += 1;
                return Ok(());
            }
            SalesEvent::Order(_) | SalesEvent::Payment(PaymentEvent::Declined { .. }) => return Ok(()),
            SalesEvent::Payment(PaymentEvent::Captured { amount }) => (&mut day.captured_cents, amount),
            SalesEvent::Payment(PaymentEvent::Refunded { amount }) => (&mut day.refunded_cents, amount),
        };
        let cents = amount.cents().ok_or("the amount has fractions of a cent")?;
        *sum = sum.checked_add(cents).ok_or("the day's revenue is too large")?;
        Ok(())
    }
}
