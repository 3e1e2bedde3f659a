use bytes::Bytes;

use super::*;
use crate::{
    read::{
        projection::{FoldResult, Keys},
        read_model::{Amendment, Extent, Shard},
    },
    testing::{
        account::{AccountEvent, Histories},
        recorded,
    },
};

/// Documents are named after amounts.
struct ByAmount;

impl Projection for ByAmount {
    const NAME: &'static str = "by-amount";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        Keys::one(amount.to_string())
    }

    fn fold(&self, _: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        Ok(())
    }
}

fn deposit(amount: u64) -> RecordedEvent {
    recorded([("a", AccountEvent::Deposited { amount })]).remove(0)
}

fn unreadable() -> RecordedEvent {
    let event = deposit(1);
    RecordedEvent { data: EventData { payload: Bytes::from_static(b"{}"), ..event.data.clone() }, ..event }
}

fn edited(key: &str, payload: &'static [u8]) -> Exceptions {
    let mut exceptions = Exceptions::default();
    let (extent, payload) = (Extent::Key(key.to_owned()), Some(Bytes::from_static(payload)));
    exceptions.amend(Amendment { position: deposit(1).position, extent, payload });
    exceptions
}

fn amounts<'t>(touch: &'t Touch<'_, AccountEvent>) -> Vec<(&'t str, u64)> {
    let amount = |event: &Recorded<AccountEvent>| {
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        amount
    };
    touch.folds().map(|(key, event)| (&**key, amount(event))).collect()
}

#[test]
fn r22_an_edited_event_is_folded_into_the_document_whose_letter_it_was() {
    let folded = |payload| {
        let touch = touch_with(&Histories, &deposit(1), &edited("a", payload)).map_err(|error| error.to_string());
        amounts(&touch.expect("readable")).into_iter().map(|(key, amount)| (key.to_owned(), amount)).collect::<Vec<_>>()
    };
    assert_eq!(folded(br#"{"amount":5}"#), [("a".to_owned(), 5)]);
}

/// The payload of a letter names its key, or else the reader could not have handled it.
#[test]
fn r22_an_edited_event_that_names_another_document_is_folded_into_none() {
    for (payload, expected) in [(&br#"{"amount":1}"#[..], vec![("1", 1)]), (br#"{"amount":2}"#, vec![])] {
        let touch = touch_with(&ByAmount, &deposit(1), &edited("1", payload)).expect("readable");
        assert_eq!(amounts(&touch), expected);
    }
}

#[test]
fn r14_an_event_that_cannot_be_read_is_an_error_unless_it_was_passed_over() {
    let event = unreadable();
    let mut exceptions = Exceptions::default();
    assert!(touch_with(&ByAmount, &event, &exceptions).is_err());
    exceptions.park("1", event.position);
    assert!(touch_with(&ByAmount, &event, &exceptions).is_err(), "a parked key tells nothing of this event");
    exceptions.stop(Shard::whole("log"), event.position);
    let touch = touch_with(&ByAmount, &event, &exceptions).expect("the reader has stopped before it");
    assert_eq!(touch.into_keys().count(), 0);
}
