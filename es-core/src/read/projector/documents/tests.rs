//! What of the documents of a part stays in memory.

use super::*;
use crate::{
    read::samples::{Found, Texts},
    testing::{account::AccountEvent, recorded},
};

const A: &str = "a";

/// A deposit of so much into the account `a`.
fn deposit(amount: u64) -> Recorded<AccountEvent> {
    let events = recorded([(A, AccountEvent::Deposited { amount })]);
    events[0].decode().expect("readable").expect("its own")
}

/// A part begins that knows the text under `a`, of three bytes, and folds a deposit of `amount` into it.
fn folded(most: usize, amount: u64) -> Documents<Texts> {
    let mut documents = Documents::new();
    documents.begin(most);
    documents.add(A.to_owned(), Some("\"x\"".into()));
    fold_again(&mut documents, amount);
    documents
}

fn fold_again(documents: &mut Documents<Texts>, amount: u64) {
    documents.fold(&Texts, A, &deposit(amount), Duration::MAX).expect("folded");
    documents.write(&Location::of(&deposit(amount))).expect("written");
}

/// Whether the document is there as a value.
fn is_kept(documents: &Documents<Texts>) -> bool {
    documents.drafts.get(A).is_some_and(|draft| draft.document.is_some())
}

#[test]
fn r17_documents_that_take_more_than_may_stay_are_kept_as_they_are_written() {
    // The entry, its key and what was loaded.
    let size = ENTRY + 1 + 3;
    assert!(is_kept(&folded(size, 1)));
    assert!(!is_kept(&folded(size - 1, 1)));
    // And what was written of it, with its key.
    for (most, is_enough) in [(size + 4, true), (size + 3, false)] {
        let mut documents = folded(most, 1);
        fold_again(&mut documents, 1);
        assert_eq!(is_kept(&documents), is_enough, "{most}");
    }
}

#[test]
fn r17_documents_stay_for_the_next_part_unless_they_have_become_too_large() {
    // Of a text of ten bytes, twelve are written.
    let size = ENTRY + 1 + 12;
    for (most, is_enough) in [(size, true), (size - 1, false)] {
        let mut documents = folded(most, 10);
        let handled = documents.handled(1, None);
        assert_eq!(handled.upserts, [(A.to_owned(), Bytes::from("\"xxxxxxxxxx\""))]);
        assert_eq!(documents.missing([&A.to_owned()].into_iter()).is_empty(), is_enough, "{most}");
        assert_eq!(documents.bytes, if is_enough { size } else { 0 });
    }
}

#[test]
fn the_fields_of_a_document_count_as_it_does() {
    let mut documents = Documents::<Found>::new();
    documents.add(A.to_owned(), None);
    documents.fold(&Found, A, &deposit(1), Duration::MAX).expect("folded");
    documents.write(&Location::of(&deposit(1))).expect("written");
    // The key, the letter and the text.
    assert_eq!(documents.written, 1 + 1 + 500);
}

#[test]
fn a_size_is_known_when_a_document_was_loaded_or_written() {
    let mut documents = Documents::<Texts>::new();
    documents.add(A.to_owned(), None);
    assert!(!documents.is_any_size_known());
    fold_again(&mut documents, 1);
    assert!(documents.is_any_size_known());
    documents.begin(7);
    documents.clear();
    assert_eq!((documents.is_any_size_known(), documents.most), (false, 7));
}
