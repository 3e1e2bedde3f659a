//! What the proof has found.

use std::{fmt, time::Duration};

/// What a rebuild may take beyond its model, and an append beyond a quiet one, and an event beyond one of a log of a hundredth.
const MORE_MEMORY: u64 = 256 * 1024 * 1024;
const SLOWER_APPENDS: f64 = 1.5;
const DEARER_EVENTS: f64 = 1.2;

/// What was found; `None` and 0: it was not measured.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "they are told by Display")]
pub struct Report {
    pub events: u64,
    pub accounts: u64,
    pub rate: u32,
    /// The 99th percentiles of appends, and of probes beside the quiet ones.
    pub quiet: Option<Duration>,
    pub unthrottled: Option<Duration>,
    pub throttled: Option<Duration>,
    pub probe_quiet: Option<Duration>,
    pub limit: Option<Duration>,
    /// The part of the time that the throttle left at last.
    pub share: Option<f64>,
    /// How long the rebuilds took: of the log of a hundredth and of the whole one without writers, the last also with a tenth of
    /// the memory of its model; beside writers without and with throttle.
    pub took_small: Option<Duration>,
    pub took_large: Option<Duration>,
    pub took_bounded: Option<Duration>,
    pub took_unthrottled: Option<Duration>,
    pub took_throttled: Option<Duration>,
    /// Bytes: the most memory of a rebuild, and the bound and the most memory of the one with little.
    pub peak: Option<u64>,
    pub peak_bounded: Option<(usize, u64)>,
    pub survived: Vec<Survived>,
    /// The documents that serve, their bytes with keys, and how many differ from the independent fold.
    pub documents: u64,
    pub model: u64,
    pub differing: u64,
}

/// A `kill -9` of a rebuild.
#[derive(Debug, Clone, Copy)]
pub struct Survived {
    /// The first event that the killed process had folded.
    pub first: u64,
    /// The last one, written or not.
    pub folded: u64,
    /// The last event whose documents and checkpoint were written.
    pub written: u64,
    /// The first event that the next process has folded.
    pub next: Option<u64>,
}

impl Survived {
    /// Whether the next process has continued after what was written, and not from the first event. A commit that was on its way when
    /// the process was killed may have been made since.
    pub fn is_resumed(&self) -> bool {
        self.written > 0 && self.next.is_some_and(|next| (self.written + 1..=self.folded + 1).contains(&next))
    }
}

impl Report {
    /// The process after the one that was killed last has folded `first` as its first event.
    pub(super) fn resumes(&mut self, first: u64) {
        if let Some(killed) = self.survived.last_mut() {
            killed.next = Some(first);
        }
    }

    /// Whether each rebuild that was killed was resumed, and the documents are those of the independent fold.
    pub fn is_proved(&self) -> bool {
        self.survived.iter().all(Survived::is_resumed) && self.documents > 0 && self.differing == 0
    }
}

fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "not measured".into(), |time| format!("{:.2} ms", time.as_secs_f64() * 1_000.0))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / 1_048_576.0)
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "DOES NOT HOLD" }
}

/// `time` as a multiple of `of`, against the most that it may be.
fn times(time: Option<Duration>, of: Option<Duration>, most: f64) -> String {
    let Some((time, of)) = time.zip(of) else { return String::new() };
    let times = time.as_secs_f64() / of.as_secs_f64();
    format!(", {times:.2} times; at most {most}: {}", verdict(times <= most))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, accounts, rate, .. } = self;
        writeln!(
            f,
            "{events} events before the writers, {} documents of {accounts} accounts, {} of JSON",
            self.documents,
            mib(self.model)
        )?;
        writeln!(f, "appends: {rate} a second by another process, 99th percentile of the time until durable")?;
        writeln!(f, "  without a rebuild      {} (of probes: {})", ms(self.quiet), ms(self.probe_quiet))?;
        let unthrottled = times(self.unthrottled, self.quiet, SLOWER_APPENDS);
        writeln!(f, "  rebuild, not throttled {}{unthrottled}", ms(self.unthrottled))?;
        let throttled = times(self.throttled, self.quiet, SLOWER_APPENDS);
        writeln!(f, "  rebuild, throttled     {}{throttled}", ms(self.throttled))?;
        let share =
            self.share.map_or_else(String::new, |share| format!(", {:.0} % of the time at last", share * 100.0));
        writeln!(f, "  limit of the throttle  {}{share}", ms(self.limit))?;
        for (what, took) in [
            ("without writers", self.took_large),
            ("without writers, little memory", self.took_bounded),
            ("beside writers, not throttled", self.took_unthrottled),
            ("beside writers, throttled, killed", self.took_throttled),
        ] {
            let Some(took) = took else { continue };
            writeln!(
                f,
                "rebuild {what}: {:.1} s, {:.0} events a second",
                took.as_secs_f64(),
                *events as f64 / took.as_secs_f64()
            )?;
        }
        if let Some((small, large)) = self.took_small.zip(self.took_large) {
            let cost = |took: Duration, events: u64| took.as_secs_f64() * 1e6 / events as f64;
            let (few, many) = (cost(small, events / 100), cost(large, *events));
            let holds = verdict(many / few <= DEARER_EVENTS);
            writeln!(
                f,
                "an event costs {many:.2} us, of {} events {few:.2} us, {:.2} times; at most {DEARER_EVENTS}: {holds}",
                events / 100,
                many / few
            )?;
        }
        if let Some(peak) = self.peak {
            let most = self.model + MORE_MEMORY;
            writeln!(f, "memory: {}, at most model + 256 MiB: {}", mib(peak), verdict(peak <= most))?;
        }
        if let Some((bound, peak)) = self.peak_bounded {
            let most = bound as u64 + MORE_MEMORY;
            writeln!(
                f,
                "memory with a bound of {}: {}, at most bound + 256 MiB: {}",
                mib(bound as u64),
                mib(peak),
                verdict(peak <= most)
            )?;
        }
        for killed in &self.survived {
            let Survived { first, folded, written, next } = killed;
            let next = next.map_or_else(|| "none".into(), |next| next.to_string());
            writeln!(
                f,
                "kill -9: had folded {first} to {folded}, written to {written}; the next process began at {next}: {}",
                verdict(killed.is_resumed())
            )?;
        }
        write!(f, "{} documents differ from the independent fold: {}", self.differing, verdict(self.is_proved()))
    }
}
