use super::{AppendError, ReadError, check_contiguous, is_last_page};
use crate::{
    event::RecordedEvent,
    limits::PAGE_BYTES,
    stream::Position,
    testing::{account::AccountEvent, recorded},
};

fn events(count: u64) -> Vec<RecordedEvent> {
    recorded((0..count).map(|_| ("a", AccountEvent::Deposited { amount: 1 })))
}

#[test]
fn r3_events_follow_each_other_without_a_gap() {
    let log = events(5);
    let last = |after, events: &[RecordedEvent]| check_contiguous(Position::new(after), events).map(Position::get);
    assert!(matches!(last(0, &log), Ok(5)));
    assert!(matches!(last(2, &log[2..4]), Ok(4)));
    assert!(matches!(last(7, &[]), Ok(7)));
    let gap = last(1, &log[2..]).expect_err("2 is missing");
    assert!(matches!(gap, ReadError::Gap { after, found } if (after.get(), found.get()) == (1, 3)), "{gap}");
    assert!(last(2, &log[1..]).is_err(), "2 comes twice");
    assert!(last(0, &[log[0].clone(), log[2].clone()]).is_err());
}

#[test]
fn r17_a_page_that_is_full_by_number_or_by_bytes_is_not_the_last() {
    let mut page = events(3);
    assert!(is_last_page(&page, 4));
    assert!(!is_last_page(&page, 3));
    let others: usize = page[1..].iter().map(|event| event.data.payload.len()).sum();
    page[0].data.payload = vec![b' '; PAGE_BYTES - others].into();
    assert!(!is_last_page(&page, 4));
    page[0].data.payload.truncate(PAGE_BYTES - others - 1);
    assert!(is_last_page(&page, 4));
}

#[test]
fn only_a_store_that_failed_leaves_the_outcome_unknown() {
    assert!(AppendError::Store("the connection was lost".into()).is_unknown());
    assert!(AppendError::Closed.is_unknown());
    assert!(!AppendError::KeyReused.is_unknown());
    assert!(!AppendError::ConditionFailed { position: Position::new(1) }.is_unknown());
}
