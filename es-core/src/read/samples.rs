//! Projections for the tests of several modules.

use crate::{
    event::Recorded,
    read::{
        field::{Field, Fields},
        projection::{EventOrder, FoldResult, Keys, Projection},
    },
    testing::account::AccountEvent,
};

/// A text as long as the last deposit.
pub(crate) struct Texts;

impl Projection for Texts {
    const NAME: &'static str = "texts";
    type Event = AccountEvent;
    type Document = String;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, text: &mut Option<String>, event: &Recorded<AccountEvent>) -> FoldResult {
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        *text = Some("x".repeat(usize::try_from(amount).unwrap_or_default()));
        Ok(())
    }
}

/// Two documents may not have the same amount.
pub(crate) struct Distinct;

impl Projection for Distinct {
    const NAME: &'static str = "distinct";
    const FIELDS: Fields<i64> = &[&Field::<i64, i64>::new("amount", |amount| Some(*amount)).unique()];
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = AccountEvent;
    type Document = i64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, _: &mut Option<i64>, _: &Recorded<AccountEvent>) -> FoldResult {
        Ok(())
    }
}
