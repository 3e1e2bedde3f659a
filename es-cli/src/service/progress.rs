//! How far a rebuild is: a bar on a terminal, lines otherwise, on the standard error output.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use es_core::Service;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a terminal is told.
const BAR: Duration = Duration::from_millis(250);

/// How often a log is told.
const LINE: Duration = Duration::from_secs(10);

/// Shows how far the new generation of `projection` is, until it is dropped.
pub(super) async fn show(service: &Service, projection: &str) -> Infallible {
    let (is_terminal, began) = (io::stderr().is_terminal(), Instant::now());
    let bar = if is_terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
    let template = "{bar:30} {percent}%  {human_pos} of {human_len} events  {per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let bar = Ended(bar);
    loop {
        tokio::time::sleep(if is_terminal { BAR } else { LINE }).await;
        // What the store does not answer is told by the rebuild itself.
        let (Ok(found), Ok(head)) = (service.store().generations(projection).await, service.store().head().await)
        else {
            continue;
        };
        let Some(building) = found.building else { continue };
        let (reached, head) = (building.reached.get(), head.get());
        bar.0.set_length(head);
        bar.0.set_position(reached);
        if !is_terminal {
            eprintln!("{}", line(reached, head, began.elapsed()));
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
fn line(reached: u64, head: u64, elapsed: Duration) -> String {
    let rate = reached as f64 / elapsed.as_secs_f64().max(0.001);
    let left =
        if rate > 0.0 { format!("{:.0} s", head.saturating_sub(reached) as f64 / rate) } else { "unknown".into() };
    format!("{reached} of {head} events, {rate:.0} a second, time left: {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_events_rate_and_time_left() {
        assert_eq!(line(500, 2_000, Duration::from_secs(5)), "500 of 2000 events, 100 a second, time left: 15 s");
        assert_eq!(line(0, 10, Duration::ZERO), "0 of 10 events, 0 a second, time left: unknown");
    }
}
