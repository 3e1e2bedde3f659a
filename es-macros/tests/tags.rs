//! Tags that come from the event.

#![allow(clippy::unwrap_used)]

use es_core::{Event, InvalidTag, NewEvent, NewEventError, TagError};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "booking", tag = "hotel:{hotel}")]
enum BookingEvent {
    #[event(name = "booking.made", tag = "room:{hotel}/{room}", tag = "guest:{guest}", tag = "{{made}}")]
    Made { hotel: u8, room: u16, guest: String },
    #[event(name = "booking.moved", tags = rooms)]
    Moved { hotel: u8, from: u16, to: u16 },
    #[event(name = "booking.cancelled")]
    Cancelled { hotel: u8, r#type: String },
}

fn rooms(event: &BookingEvent) -> Vec<String> {
    match event {
        BookingEvent::Moved { from, to, .. } => vec![format!("room:{from}"), format!("room:{to}")],
        _ => Vec::new(),
    }
}

#[derive(Debug, PartialEq, Event)]
#[event(category = "note")]
enum NoteEvent {
    #[event(name = "note.taken", tag = "text:{0}", tag = "notes")]
    Taken(String),
    #[event(name = "note.lost")]
    Lost,
    #[event(name = "note.typed", tag = "type:{type}")]
    Typed { r#type: String },
}

#[track_caller]
fn tags(event: &impl Event) -> Vec<String> {
    event.tags().unwrap().iter().map(|tag| tag.as_str().to_owned()).collect()
}

#[test]
fn tags_are_made_of_the_fields_of_the_event() {
    let made = BookingEvent::Made { hotel: 1, room: 7, guest: "Ada".into() };
    assert_eq!(tags(&made), ["hotel:1", "room:1/7", "guest:Ada", "{made}"]);
    assert_eq!(tags(&BookingEvent::Moved { hotel: 1, from: 7, to: 8 }), ["hotel:1", "room:7", "room:8"]);
    assert_eq!(tags(&BookingEvent::Cancelled { hotel: 2, r#type: String::new() }), ["hotel:2"]);
    assert_eq!(tags(&NoteEvent::Taken("{0}".into())), ["text:{0}", "notes"]);
    assert_eq!(tags(&NoteEvent::Lost), [""; 0]);
    assert_eq!(tags(&NoteEvent::Typed { r#type: "a".into() }), ["type:a"]);
}

#[test]
fn a_new_event_carries_the_tags_of_its_content() {
    let made = BookingEvent::Made { hotel: 1, room: 7, guest: "Ada".into() };
    assert_eq!(NewEvent::of(&made).unwrap().tags, made.tags().unwrap());
}

#[test]
fn r15_a_tag_that_is_invalid_is_an_error_that_names_event_and_rule_and_no_value() {
    for secret in ["\u{7}secret".to_owned(), "secret".repeat(50)] {
        let error = NewEvent::of(&BookingEvent::Made { hotel: 1, room: 7, guest: secret }).unwrap_err();
        let rule = "guest:{guest}";
        assert!(
            matches!(error, NewEventError::Tag(TagError { event: "booking.made", rule: found, reason: InvalidTag }) if found == rule),
            "{error:?}"
        );
        assert!(error.to_string().contains("booking.made") && error.to_string().contains(rule), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
    let typed = NoteEvent::Typed { r#type: String::new() };
    assert_eq!(tags(&typed), ["type:"], "a field may be empty if the tag is not");
}
