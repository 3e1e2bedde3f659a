//! Projections for the tests of several modules.

use crate::{
    event::Recorded,
    read::{
        field::{Field, Fields},
        projection::{EventOrder, FoldResult, Keys, Projection},
    },
    testing::account::AccountEvent,
};

/// A text as long as the last deposit, until something is withdrawn.
pub(crate) struct Texts;

impl Projection for Texts {
    const NAME: &'static str = "texts";
    type Event = AccountEvent;
    type Document = String;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, text: &mut Option<String>, event: &Recorded<AccountEvent>) -> FoldResult {
        *text = match event.data {
            AccountEvent::Deposited { amount } => Some("x".repeat(usize::try_from(amount)?)),
            AccountEvent::Withdrawn { .. } => None,
        };
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

    fn fold(&self, last: &mut Option<i64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        *last = Some(i64::try_from(amount)?);
        Ok(())
    }
}

/// Its document is one letter, and is found by a text of 500.
pub(crate) struct Found;

impl Projection for Found {
    const NAME: &'static str = "found";
    const FIELDS: Fields<u8> = &[&Field::<u8, String>::new("text", |_| Some("x".repeat(500)))];
    type Event = AccountEvent;
    type Document = u8;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<u8>, _: &Recorded<AccountEvent>) -> FoldResult {
        *document = Some(1);
        Ok(())
    }
}
