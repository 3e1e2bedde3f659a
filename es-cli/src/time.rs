//! Times and durations for people.

use std::time::Duration;

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

/// `5ms`, `0.5s`.
pub(crate) fn parse_limit(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or_default(), 1.0),
    };
    let seconds = number.trim().parse::<f64>().ok().map(|number| number * unit);
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| "write it like 5ms or 0.5s".to_owned())
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
    fn limits_have_a_unit_and_are_not_nothing() {
        assert_eq!(parse_limit("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(parse_limit("0.5 s"), Ok(Duration::from_millis(500)));
        for wrong in ["5", "5m", "-1s", "0ms", "s", "infs", ""] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_may_have_any_offset() {
        assert_eq!(parse("2026-01-31T12:00:00+02:00").map(text), Ok("2026-01-31T10:00:00.000Z".into()));
        assert!(parse("yesterday").is_err_and(|error| error.contains("2026-01-31")));
    }
}
