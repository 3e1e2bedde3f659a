#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use super::*;

fn record<'a>(headers: &[(&'a str, &'a str)]) -> Record<'a> {
    let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
    Record {
        topic: "payments.retry.2",
        partition: 1,
        offset: 4,
        millis: Some(9),
        key: None,
        headers,
        value: None,
        unreadable: None,
    }
}

fn story() -> Story {
    Story {
        handler: Some("provider".to_owned()),
        origin: Origin { topic: "payments".to_owned(), partition: 3, offset: 41, millis: Some(1_700_000_000_000) },
        failure: Failure {
            class: "refused".to_owned(),
            message: "no reaction: größer".to_owned(),
            failed_at: Some("2026-01-31T12:00:00.125Z".parse().unwrap()),
            attempts: 4,
        },
        retries: 2,
        retry_after: Some("2026-01-31T12:00:10Z".parse().unwrap()),
    }
}

#[test]
fn the_topics_of_a_topic_are_told_from_others() {
    assert_eq!((retry_topic("pay", 2), dead_letter_topic("pay")), ("pay.retry.2".to_owned(), "pay.dlq".to_owned()));
    for (read, nth) in
        [("pay", 0), ("pay.retry.1", 1), ("pay.retry.12", 12), ("pay.retry.x", 0), ("payments.retry.1", 0)]
    {
        assert_eq!(stage("pay", read), nth, "{read}");
    }
}

#[test]
fn a_story_is_read_as_it_is_written_and_the_record_is_as_it_was() {
    let written = story().headers();
    // Before them stand the record's own headers, also such with the same names.
    let own = [("attempts", "many"), ("handler", "a"), ("traceparent", "x")];
    let headers: Vec<_> = own.into_iter().chain(written.iter().map(|(name, value)| (*name, &**value))).collect();
    let record = record(&headers);
    let (read, rest) = Story::of(&record).unwrap();
    assert_eq!(read, story());
    let original = read.original(record, rest);
    assert_eq!((original.topic, original.partition, original.offset), ("payments", 3, 41));
    assert_eq!(original.millis, Some(1_700_000_000_000));
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
    assert_eq!(original.headers, own);
}

/// The story of a dead letter has no `retry-after`. Headers were looked for from the end, however far: then the
/// record's own is taken for one of the story, and is no time.
#[test]
fn a_header_that_the_story_lacks_is_not_taken_from_the_record() {
    let dead = Story { retry_after: None, ..story() };
    let written = dead.headers();
    let own = [("retry-after", "120"), ("original-timestamp", "never")];
    let headers: Vec<_> = own.into_iter().chain(written.iter().map(|(name, value)| (*name, &**value))).collect();
    let record = record(&headers);
    let (read, rest) = Story::of(&record).unwrap();
    assert_eq!(read, dead);
    assert_eq!(rest, own.map(|(name, value)| (name, Some(value.as_bytes()))));
}

/// Another system may write into these topics too.
#[test]
fn a_record_without_a_story_is_where_it_is_and_for_every_handler() {
    let (story, _) = Story::of(&record(&[])).unwrap();
    assert_eq!((story.handler, &*story.origin.topic, story.origin.offset), (None, "payments.retry.2", 4));
    for (headers, reason) in [
        (&[("original-topic", "pay")][..], "header original-partition is missing"),
        (&[("attempts", "many")], "header attempts is no number"),
        (&[("retry-after", "soon")], "header retry-after is no time"),
    ] {
        assert_eq!(Story::of(&record(headers)).unwrap_err(), reason);
    }
}

#[test]
fn a_record_waits_until_its_time() {
    let now = story().retry_after.unwrap();
    assert_eq!(story().waits(now - Duration::from_millis(1_500)), Duration::from_millis(1_500));
    assert_eq!(story().waits(now), Duration::ZERO);
    assert_eq!(Story { retry_after: None, ..story() }.waits(now), Duration::ZERO);
}

#[test]
fn an_error_message_has_room_in_a_header() {
    let message = "ü".repeat(MOST_MESSAGE_BYTES);
    let headers = Story { failure: Failure { message, ..story().failure }, ..story() }.headers();
    let (_, message) = headers.iter().find(|(name, _)| *name == names::ERROR_MESSAGE).unwrap();
    assert!(message.ends_with("ü…") && message.len() <= MOST_MESSAGE_BYTES + '…'.len_utf8());
}
