//! A workload's results: medians over the rounds, ratios within a round, and whether the claims hold.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::{entrant::Entrant, measure::Measurement, rounds::Series, workload::Workload};

/// How much of a ratio noise may take before it counts as fallen.
const HOLDS_UP: f64 = 0.95;

/// A workload's results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// How the workload is chosen on the command line.
    pub(crate) name: String,
    /// What it is.
    pub(crate) title: String,
    /// Whether the server and the clients had processors of their own.
    pub(crate) apart: bool,
    /// Who took part: first whom the claims are about, then the reference, then the others.
    pub(crate) entries: Vec<Entry>,
    /// Who could not, and why.
    pub(crate) absent: Vec<Absence>,
    /// What was claimed.
    pub(crate) targets: Vec<Target>,
}

/// What a participant did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The medians over the rounds.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// The throughput as a multiple of the reference's: the median of the rounds' ratios.
    pub(crate) of_reference: f64,
    /// Every round.
    pub(crate) rounds: Vec<Figures>,
}

/// The part that a participant plays. Where the framework takes part twice, the claims are about the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Ours,
    Reference,
    Other,
}

/// The figures of a round, or their medians.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Operations.
    pub(crate) per_second: f64,
    /// Latency; none where the work is one piece.
    pub(crate) p50_us: Option<f64>,
    /// The same.
    pub(crate) p99_us: Option<f64>,
    /// Bytes of write-ahead log for each operation; none where no server counts them.
    pub(crate) wal_bytes: Option<f64>,
    /// Processor time of the server for each operation; none where it runs on another machine.
    pub(crate) server_cpu_us: Option<f64>,
    /// Processor time of the clients for each operation.
    pub(crate) client_cpu_us: Option<f64>,
}

/// Who did not take part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Absence {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// A claim and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) claim: String,
    pub(crate) value: f64,
    pub(crate) met: bool,
}

impl Row {
    pub(crate) fn of(workload: &Workload, apart: bool, series: &[Series]) -> Self {
        let rounds: Vec<Vec<Figures>> =
            series.iter().map(|series| series.rounds.iter().map(Figures::of).collect()).collect();
        let reference = series.iter().position(|series| series.entrant == workload.reference).unwrap_or(0);
        let entry = |(series, own): (&Series, &Vec<Figures>)| Entry {
            name: series.entrant.name().to_owned(),
            role: match series.entrant {
                entrant if entrant == workload.ours => Role::Ours,
                entrant if entrant == workload.reference => Role::Reference,
                Entrant::Unconditional => Role::Ours,
                _ => Role::Other,
            },
            figures: Figures::medians(own),
            of_reference: ratio(own, &rounds[reference], |figures| figures.per_second),
            rounds: own.clone(),
        };
        let entries: Vec<Entry> = series.iter().zip(&rounds).map(entry).collect();
        let absent = workload.absent().into_iter();
        Self {
            name: workload.name.to_owned(),
            title: workload.title.to_owned(),
            apart,
            targets: targets(workload, &entries),
            absent: absent.map(|(name, reason)| Absence { name: name.into(), reason: reason.into() }).collect(),
            entries,
        }
    }

    /// Whom the claims are about.
    pub(crate) fn ours(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == Role::Ours)
    }

    /// Claims that the ratio to the reference is no worse than it was in one of the `earlier` rows.
    pub(crate) fn compare(&mut self, workload: &Workload, earlier: &[Self]) {
        let easier = earlier.iter().find(|row| Some(row.name.as_str()) == workload.claims.holds_up);
        if let Some((now, then)) = self.ours().zip(easier.and_then(Self::ours)) {
            let value = now.of_reference / then.of_reference;
            let claim = format!("its ratio to bare >= {HOLDS_UP} x that without the delay");
            self.targets.push(Target { claim, value, met: value >= HOLDS_UP });
        }
    }

    /// The row for people.
    pub(crate) fn table(&self) -> String {
        let optional =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let reference = self.entries.iter().find(|entry| entry.role == Role::Reference);
        let ratio = format!("x {}", reference.map_or("", |entry| &entry.name));
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "per second", "p50 us", "p99 us", &ratio, "WAL bytes", "server us", "client us"]);
        for Entry { name, figures, of_reference, .. } in &self.entries {
            table.add_row([
                name.clone(),
                format!("{:.0}", figures.per_second),
                optional(figures.p50_us, 0),
                optional(figures.p99_us, 0),
                format!("{of_reference:.2}"),
                optional(figures.wal_bytes, 0),
                optional(figures.server_cpu_us, 1),
                optional(figures.client_cpu_us, 1),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let apart = if self.apart { ", server and clients apart" } else { "" };
        let mut text = format!("\n{} ({}{apart})\n{table}\n", self.title, self.name);
        for Absence { name, reason } in &self.absent {
            let _ = writeln!(text, "  {name} {reason}");
        }
        for Target { claim, value, met } in &self.targets {
            let _ = writeln!(text, "  {} {claim}: {value:.2}", if *met { "met    " } else { "NOT MET" });
        }
        text
    }
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn of(measured: &Measurement) -> Self {
        let operations = measured.operations as f64;
        let microseconds = |seconds: f64| seconds * 1e6 / operations;
        Self {
            per_second: measured.per_second(),
            p50_us: measured.quantile_us(0.5),
            p99_us: measured.quantile_us(0.99),
            wal_bytes: measured.usage.wal_bytes.map(|bytes| bytes / operations),
            server_cpu_us: measured.usage.server_seconds.map(microseconds),
            client_cpu_us: measured.client_seconds.map(microseconds),
        }
    }

    fn medians(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let optional =
            |figure: fn(&Self) -> Option<f64>| rounds.iter().map(figure).collect::<Option<Vec<_>>>().map(median);
        Self {
            per_second: of(|figures| figures.per_second),
            p50_us: optional(|figures| figures.p50_us),
            p99_us: optional(|figures| figures.p99_us),
            wal_bytes: optional(|figures| figures.wal_bytes),
            server_cpu_us: optional(|figures| figures.server_cpu_us),
            client_cpu_us: optional(|figures| figures.client_cpu_us),
        }
    }
}

/// The median of the ratios of two participants' rounds.
fn ratio(of: &[Figures], to: &[Figures], figure: fn(&Figures) -> f64) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| figure(of) / figure(to)).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn targets(workload: &Workload, entries: &[Entry]) -> Vec<Target> {
    let find = |role| entries.iter().find(|entry| entry.role == role);
    let (Some(ours), Some(reference)) = (find(Role::Ours), find(Role::Reference)) else { return Vec::new() };
    let others = entries.iter().filter(|entry| entry.role == Role::Other);
    let best = others.max_by(|a, b| a.figures.per_second.total_cmp(&b.figures.per_second));
    let claims = workload.claims;
    let name = workload.reference.name();
    let mut targets = Vec::new();
    if let Some(least) = claims.throughput {
        let value = ours.of_reference;
        targets.push(Target { claim: format!("throughput >= {least} x {name}"), value, met: value >= least });
    }
    if let Some(most) = claims.p99 {
        let value = ratio(&ours.rounds, &reference.rounds, |figures| figures.p99_us.unwrap_or(f64::NAN));
        targets.push(Target { claim: format!("p99 <= {most} x {name}"), value, met: value <= most });
    }
    if let Some((least, best)) = claims.of_best_peer.zip(best) {
        let value = ratio(&ours.rounds, &best.rounds, |figures| figures.per_second);
        let claim = format!("throughput >= {least} x the best peer ({})", best.name);
        targets.push(Target { claim, value, met: value >= least });
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
    }
}
