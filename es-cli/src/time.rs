//! Times and durations for people.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// As it is printed everywhere.
pub(crate) fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `2026-01-31T12:00:00Z`, with any offset.
pub(crate) fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|error| format!("{error}: write it like 2026-01-31T12:00:00Z"))
}

/// `4 s`, `3 min`, `2 h`, `5 d`: the largest unit of which there are two.
pub(crate) fn duration(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_largest_unit_of_which_there_are_two() {
        let text = |seconds| duration(TimeDelta::seconds(seconds));
        assert_eq!(
            [-1, 0, 119, 120, 7_199, 7_200, 172_800].map(text),
            ["0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]
        );
    }

    #[test]
    fn times_may_have_any_offset() {
        assert_eq!(parse("2026-01-31T12:00:00+02:00").map(text), Ok("2026-01-31T10:00:00.000Z".into()));
        assert!(parse("yesterday").is_err_and(|error| error.contains("2026-01-31")));
    }
}
