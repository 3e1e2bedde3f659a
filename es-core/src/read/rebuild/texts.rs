//! A projection for tests, whose documents have the size that a test wants.

use crate::{
    event::Recorded,
    read::projection::{FoldResult, Keys, Projection},
    testing::account::AccountEvent,
};

/// A text as long as the last deposit.
pub(super) struct Texts;

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
