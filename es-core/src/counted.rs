//! Numbers of things, in texts for people.

/// How many things there are: `1 event`, `2 events`. The plural of `thing` ends with an s.
pub fn counted(count: impl TryInto<u64>, thing: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EngineError, LiveError,
        backend::Location,
        read::refold::RefoldError,
        stream::{Position, Version},
    };

    #[test]
    fn only_one_thing_is_singular() {
        let told: Vec<_> = (0..3_usize).map(|count| counted(count, "event")).collect();
        assert_eq!(told, ["0 events", "1 event", "2 events"]);
        assert_eq!(counted(u128::MAX, "byte"), format!("{} bytes", u64::MAX));
    }

    #[test]
    fn errors_that_count_one_thing_say_so() {
        let event = Location { position: Position::new(7), event: "account-a@1".to_owned() };
        let none = RefoldError::NoSuchVersion { key: "a".to_owned(), version: 2, found: 1 };
        assert_eq!(none.to_string(), "the stream of \"a\" has 1 event and no version 2");
        let (wanted, found) = (Version::new(2), Version::new(1));
        let none = LiveError::NoSuchVersion { key: "a".to_owned(), wanted, found };
        assert_eq!(none.to_string(), "the stream of \"a\" has 1 event and no version 2");
        let large = EngineError::TooLarge { event, documents: 1, bytes: 2, limit: 1 };
        assert!(large.to_string().contains("touches 1 document of 2 bytes or more"), "{large}");
    }
}
