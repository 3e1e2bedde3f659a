//! The revenue of each day: a fold over orders and payments together.

mod first;

pub use first::{DayInCents, FirstDailyRevenue};

use chrono::{Days, NaiveDate};
use evenfold::{EventSet, FoldResult, KeyRange, Keys, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::{
    money::{self, Money},
    order::OrderEvent,
    payment::PaymentEvent,
};

/// Folds orders and payments into one [`Day`] under each date (UTC, `2026-01-31`).
#[derive(Debug, Clone, Copy)]
pub struct DailyRevenue;

impl DailyRevenue {
    /// The days from `from` to `to`, both included.
    pub fn range(from: NaiveDate, to: NaiveDate) -> KeyRange {
        let range = KeyRange::default();
        let range = from.checked_sub_days(Days::new(1)).map_or(range.clone(), |before| range.after(before.to_string()));
        to.checked_add_days(Days::new(1)).map_or(range.clone(), |after| range.before(after.to_string()))
    }
}

/// The events of orders and payments.
#[derive(Debug, Clone, EventSet)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SalesEvent {
    Order(OrderEvent),
    Payment(PaymentEvent),
}

/// The revenue of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Day {
    /// How many orders were placed.
    pub placed: u64,
    #[serde(with = "money::number")]
    pub captured: Money,
    #[serde(with = "money::number")]
    pub refunded: Money,
    /// What was captured on this day minus what was refunded on it, for orders of any day.
    #[serde(with = "money::number")]
    pub net: Money,
}

impl Projection for DailyRevenue {
    const NAME: &'static str = "daily-revenue";
    /// 2: exact amounts, and `net`.
    const VERSION: u32 = 2;

    type Event = SalesEvent;
    type Document = Day;

    fn keys(&self, event: &Recorded<SalesEvent>) -> Keys {
        Keys::one(event.recorded_at.date_naive().to_string())
    }

    fn fold(&self, document: &mut Option<Day>, event: &Recorded<SalesEvent>) -> FoldResult {
        let day = document.get_or_insert_default();
        let counted = match &event.data {
            SalesEvent::Order(OrderEvent::Placed { .. }) => {
                day.placed += 1;
                return Ok(());
            }
            SalesEvent::Order(_) | SalesEvent::Payment(PaymentEvent::Declined { .. }) => return Ok(()),
            SalesEvent::Payment(PaymentEvent::Captured { amount }) => day.capture(*amount),
            SalesEvent::Payment(PaymentEvent::Refunded { amount }) => day.refund(*amount),
        };
        counted.ok_or_else(|| "the day's revenue is too large".into())
    }
}

impl Day {
    fn capture(&mut self, amount: Money) -> Option<()> {
        self.captured = self.captured.plus(amount)?;
        self.net = self.net.plus(amount)?;
        Some(())
    }

    fn refund(&mut self, amount: Money) -> Option<()> {
        self.refunded = self.refunded.plus(amount)?;
        self.net = self.net.minus(amount)?;
        Some(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::{project, recorded};

    use super::*;

    #[test]
    fn a_day_counts_what_was_captured_and_what_was_refunded() {
        let captured = |cents| PaymentEvent::Captured { amount: Money::of_cents(cents) };
        let refunded = |cents| PaymentEvent::Refunded { amount: Money::of_cents(cents) };
        let log = recorded([("A", captured(9_998)), ("B", captured(10)), ("A", refunded(9_998)), ("C", captured(30))]);
        let days = project(&DailyRevenue, &log).unwrap();
        let [captured, refunded, net] = [10_038, 9_998, 40].map(Money::of_cents);
        assert_eq!(
            days.into_iter().collect::<Vec<_>>(),
            [("2026-01-01".into(), Day { placed: 0, captured, refunded, net })]
        );
    }

    #[test]
    fn a_range_holds_both_its_ends() {
        let [from, to] = ["2026-01-30", "2026-02-01"].map(|date| date.parse().unwrap());
        let range = DailyRevenue::range(from, to);
        let held = ["2026-01-29", "2026-01-30", "2026-02-01", "2026-02-02"].map(|date| range.contains(date));
        assert_eq!(held, [false, true, true, false]);
    }
}
