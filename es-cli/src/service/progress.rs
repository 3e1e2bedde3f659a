//! How far a rebuild is: a bar on a terminal, lines otherwise, on the standard error output.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use es_core::{Position, Service, Throttle, Throttling, backend::counted, service::RebuildPlan};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How often a terminal is told, and failures are looked for.
const BAR: Duration = Duration::from_millis(250);

/// How often a log is told.
const LINE: Duration = Duration::from_secs(10);

/// What there is to do.
pub(super) fn plan(plan: RebuildPlan) -> String {
    let RebuildPlan { events, bytes, time, .. } = plan;
    format!("{}, about {} of payload, about {:.1} s", counted(events, "event"), HumanBytes(bytes), time.as_secs_f64())
}

/// Shows how far the rebuild of `projection` in this process has folded, what `throttle` leaves it, and each of its failures, until
/// it is dropped.
pub(super) async fn show(service: &Service, projection: &str, throttle: Option<&Throttle>) -> Infallible {
    let (is_terminal, began) = (io::stderr().is_terminal(), Instant::now());
    let bar = if is_terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
    let template = "{bar:30} {percent}%  event {human_pos} of {human_len}  {per_sec}  {eta} left{msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let bar = Ended(bar);
    let tell = |line: String| if is_terminal { bar.0.println(line) } else { eprintln!("{line}") };
    let mut first = None;
    let (mut told, mut asked) = (began, began);
    let mut known = service.failures_after(projection, 0).map_or(0, |(known, _)| known);
    let mut head = 0;
    loop {
        tokio::time::sleep(BAR).await;
        if let Ok((count, failures)) = service.failures_after(projection, known) {
            known = count;
            for failure in failures {
                tell(format!("trying again after a failure: {}", failure.error));
            }
        }
        if asked.elapsed() >= LINE {
            asked = Instant::now();
            if let Ok(Some(pause)) = service.store().paused(projection).await {
                tell(format!("it waits: paused by {} ({})", pause.actor, pause.reason));
            }
        }
        let Ok(Some(reached)) = service.rebuilding(projection) else { continue };
        let reached = reached.get();
        if first.is_none() || reached > head {
            // What the store does not answer is told by the rebuild itself.
            head = service.store().head().await.map_or(head, Position::get);
        }
        // One that was interrupted does not begin at the first event.
        let first = *first.get_or_insert_with(|| {
            bar.0.reset_eta();
            (reached, began.elapsed())
        });
        bar.0.set_length(head);
        bar.0.set_position(reached);
        let throttled = throttle.map_or_else(String::new, |throttle| throttled(throttle.state()));
        bar.0.set_message(throttled.clone());
        if !is_terminal && told.elapsed() >= LINE {
            told = Instant::now();
            tell(line(first.0, reached, head, began.elapsed().saturating_sub(first.1)) + &throttled);
        }
    }
}

/// Takes the bar away when the rebuild ends.
struct Ended(ProgressBar);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn line(from: u64, reached: u64, head: u64, elapsed: Duration) -> String {
    let rate = reached.saturating_sub(from) as f64 / elapsed.as_secs_f64().max(0.001);
    let left =
        if rate > 0.0 { format!("{:.0} s", head.saturating_sub(reached) as f64 / rate) } else { "unknown".into() };
    format!("{reached} of {}, {rate:.0} a second, time left: {left}", counted(head, "event"))
}

fn throttled(Throttling { share, append_p99, limit, .. }: Throttling) -> String {
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    let (percent, limit) = (share * 100.0, milliseconds(limit));
    match (append_p99.map(milliseconds), share < 1.0) {
        (Some(p99), true) => {
            format!(", works {percent:.0} % of the time: 99 % of appends would take up to {p99} (limit: {limit})")
        }
        (Some(p99), false) => format!(", not throttled: 99 % of appends would take up to {p99} (limit: {limit})"),
        (None, true) => {
            format!(
                ", works {percent:.0} % of the time until enough is measured to know how long appends take (limit: {limit})"
            )
        }
        (None, false) => format!(", not throttled: how long appends take is not measured yet (limit: {limit})"),
    }
}

#[cfg(test)]
mod tests {
    use es_core::MemoryStore;

    use super::*;

    #[test]
    fn a_line_tells_events_rate_and_time_left() {
        assert_eq!(line(0, 500, 2_000, Duration::from_secs(5)), "500 of 2000 events, 100 a second, time left: 15 s");
        assert_eq!(
            line(1_500, 2_000, 2_500, Duration::from_secs(5)),
            "2000 of 2500 events, 100 a second, time left: 5 s"
        );
        assert_eq!(line(0, 0, 10, Duration::ZERO), "0 of 10 events, 0 a second, time left: unknown");
    }

    #[tokio::test]
    async fn it_tells_how_far_a_rebuild_is_throttled() {
        let mut state = Throttle::keeping(Duration::from_millis(5), MemoryStore::new()).state();
        (state.share, state.append_p99) = (0.05, None);
        let unknown = "until enough is measured to know how long appends take (limit: 5.0 ms)";
        assert_eq!(throttled(state), format!(", works 5 % of the time {unknown}"));
        state.append_p99 = Some(Duration::from_micros(6_050));
        assert_eq!(
            throttled(state),
            ", works 5 % of the time: 99 % of appends would take up to 6.0 ms (limit: 5.0 ms)"
        );
        (state.share, state.append_p99) = (1.0, Some(Duration::from_micros(2_340)));
        assert_eq!(throttled(state), ", not throttled: 99 % of appends would take up to 2.3 ms (limit: 5.0 ms)");
    }
}
