//! Results that are not compared with another participant: times and shares, with targets of their own.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::report::median;

/// The results of a measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sheet {
    /// How it is chosen on the command line.
    pub(crate) name: String,
    /// What it is.
    pub(crate) title: String,
    pub(crate) figures: Vec<Figure>,
}

/// A figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: String,
    /// Over the rounds.
    pub(crate) median: f64,
    /// Every round.
    pub(crate) rounds: Vec<f64>,
    pub(crate) target: Option<Bound>,
}

/// What the median is to reach.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl Figure {
    pub(crate) fn of(name: impl Into<String>, rounds: Vec<f64>, target: Option<Bound>) -> Self {
        Self { name: name.into(), median: median(rounds.clone()), rounds, target }
    }
}

impl Sheet {
    /// The sheet for people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "median", "least", "most", "target", ""]);
        for Figure { name, median, rounds, target } in &self.figures {
            let target_text = target.map_or(String::new(), |target| match target {
                Bound::AtMost(most) => format!("<= {most}"),
                Bound::AtLeast(least) => format!(">= {least}"),
            });
            let met = target.map_or("", |target| if target.is_met(*median) { "met" } else { "NOT MET" });
            table.add_row([
                name.clone(),
                digits(*median),
                digits(rounds.iter().copied().fold(f64::INFINITY, f64::min)),
                digits(rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
                target_text,
                met.to_owned(),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("\n{} ({})\n{table}\n", self.title, self.name)
    }
}

/// Three digits.
fn digits(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_at_its_bound() {
        assert!(Bound::AtMost(5.0).is_met(5.0) && !Bound::AtMost(5.0).is_met(5.01));
        assert!(Bound::AtLeast(5.0).is_met(5.0) && !Bound::AtLeast(5.0).is_met(4.99));
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([0.123, 12.34, 1_234.5].map(digits), ["0.12", "12.3", "1234"]);
    }
}
