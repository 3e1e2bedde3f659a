use super::{ALLOCATION, Draft, Drafts, ENTRY, MEASURED, MEASURED_FIRST, PLACE, field_bytes};
use crate::{
    read::{
        engine_error::EngineError,
        samples::{Distinct, Found, Texts},
    },
    testing::{account::AccountEvent, recorded},
};

/// Folds a text so that it has so many bytes with its quotes and its key of two letters.
fn fold(drafts: &mut Drafts<Texts>, key: &str, bytes: u64) {
    let event = recorded([("a", AccountEvent::Deposited { amount: bytes - 4 })]).remove(0);
    let event = event.decode::<AccountEvent>().expect("it fits").expect("it is one of them");
    drafts.fold(&Texts, key, &event).expect("folded");
}

#[test]
fn r17_what_has_changed_is_counted_until_it_is_written_in_the_order_of_keys() {
    let mut drafts = Drafts::new();
    let counted = |drafts: &Drafts<Texts>| (drafts.changed_documents(), drafts.changed, drafts.all);
    fold(&mut drafts, "bb", 160);
    assert_eq!(counted(&drafts), (1, 160, 160));
    fold(&mut drafts, "aa", 160);
    fold(&mut drafts, "bb", 160);
    assert_eq!(counted(&drafts), (2, 320, 320));
    drafts.sort();
    let written = drafts.write(0).expect("written").expect("it has changed");
    assert_eq!((&*written.key, written.bytes, written.document.map_or(0, |text| text.len())), ("aa", 160, 158));
    assert!(drafts.write(0).expect("written").is_none(), "it has not changed since then");
    assert_eq!(counted(&drafts), (1, 160, 320));
    assert_eq!(drafts.write(1).expect("written").expect("it has changed").key, "bb");
    assert_eq!(counted(&drafts), (0, 0, 320));
    assert!(drafts.write(2).expect("written").is_none(), "there is no other");
}

#[test]
fn r17_a_document_has_the_size_that_was_measured_last_and_a_new_one_the_mean() {
    let mut drafts = Drafts::new();
    fold(&mut drafts, "aa", 160);
    fold(&mut drafts, "aa", 1_600);
    assert_eq!((drafts.all, drafts.mean), (1_600, (15 * 160 + 1_600) / 16));
    for _ in 2..MEASURED_FIRST {
        fold(&mut drafts, "aa", 160);
    }
    let mean = drafts.mean;
    assert!((160..250).contains(&mean), "{mean}");
    fold(&mut drafts, "bb", 16_000);
    assert_eq!((drafts.all, drafts.changed), (160 + mean, 160 + mean), "it is not measured yet");
    assert_eq!(drafts.changed_bytes(), 2 * mean, "all may be as large as the last ones");
    let places = drafts.by_key.capacity() * (size_of::<(u64, String, Draft<String>)>() + PLACE);
    assert_eq!(drafts.bytes(), 2 * mean + places + 2 * ALLOCATION);
    for _ in MEASURED_FIRST + 1..MEASURED - 1 {
        fold(&mut drafts, "bb", 16_000);
        assert_eq!(drafts.all, 160 + mean, "few of the later ones are measured");
    }
    fold(&mut drafts, "bb", 16_000);
    assert_eq!((drafts.all, drafts.mean), (160 + 16_000, (15 * mean + 16_000) / 16));
    assert!(drafts.bytes() > drafts.all, "an entry takes memory, too");
}

#[test]
fn r17_documents_that_are_forgotten_leave_their_mean_size() {
    let mut drafts = Drafts::new();
    for _ in 0..MEASURED_FIRST {
        fold(&mut drafts, "aa", 160);
    }
    drafts.forget();
    fold(&mut drafts, "bb", 160);
    assert_eq!(drafts.all, 160, "it is as large as the others, and not measured");
}

#[test]
fn r17_a_document_that_is_loaded_counts_with_its_key() {
    let mut drafts = Drafts::<Texts>::new();
    drafts.add("aa".to_owned(), Some(&"\"bbb\"".into())).expect("a text");
    assert_eq!(drafts.all, 2 + 5);
}

/// It would fail where only the documents were counted: of 3 bytes each instead of 505.
#[test]
fn r17_what_is_written_of_fields_is_counted() {
    let mut drafts = Drafts::<Found>::new();
    let event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
    let event = event.decode::<AccountEvent>().expect("it fits").expect("it is one of them");
    for key in ["aa", "bb"] {
        drafts.fold(&Found, key, &event).expect("folded");
    }
    // Two letters of the key, with the document and with the field.
    let size = 2 + 1 + 2 + 500;
    assert_eq!((drafts.changed_bytes(), drafts.all, drafts.mean), (2 * size, 2 * size, size));
    let written = drafts.write(0).expect("written").expect("it has changed");
    assert_eq!((written.bytes, field_bytes(&written.fields)), (size, 2 + 500));
    assert_eq!((drafts.changed_bytes(), drafts.all), (size, 2 * size));
}

#[test]
fn r17_documents_and_their_unique_values_take_memory_beside_what_is_written() {
    let mut texts = Drafts::<Texts>::new();
    let mut distinct = Drafts::<Distinct>::new();
    for key in ["aa", "bb", "cc"] {
        texts.add(key.to_owned(), Some(&"\"x\"".into())).expect("a text");
        distinct.add(key.to_owned(), Some(&"7".into())).expect("a number");
    }
    // The table has so many places.
    let [texts_have, distinct_have] = [texts.by_key.capacity(), distinct.by_key.capacity()];
    assert_eq!(
        texts.bytes(),
        texts.all + texts_have * (size_of::<(u64, String, Draft<String>)>() + PLACE) + 3 * ALLOCATION
    );
    assert_eq!(
        distinct.bytes(),
        distinct.all + distinct_have * (size_of::<(u64, String, Draft<i64>)>() + PLACE) + 3 * (ALLOCATION + ENTRY)
    );
}

/// In a build too, although the projector's own handler would find it.
#[test]
fn r11_a_value_that_another_document_has_is_refused_while_a_generation_is_built() {
    let event = recorded([("aa", AccountEvent::Deposited { amount: 8 })]).remove(0);
    let event = event.decode::<AccountEvent>().expect("it fits").expect("it is one of them");
    let mut drafts = Drafts::<Distinct>::new();
    for (key, number) in [("aa", "7"), ("bb", "8")] {
        drafts.add(key.to_owned(), Some(&number.into())).expect("a number");
    }
    drafts.fold(&Distinct, "aa", &event).expect("folded");
    let settled = drafts.settle(&["aa".to_owned()], &event);
    assert!(matches!(settled, Err(EngineError::NotUnique { .. })), "{settled:?}");
}
