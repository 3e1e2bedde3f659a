//! `docs/observability.md` has each metric with its labels and what it says, and no other.

use es_core::telemetry::{ALL, Kind, Metric};

const DOCUMENT: &str = include_str!("../../docs/observability.md");

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { " ".to_owned() } else { format!(" {} ", labels.join(", ")) };
    format!("| `{}` |{labels}|", metric.name)
}

#[test]
fn the_document_has_each_metric_as_it_is_declared() {
    let (_, table) = DOCUMENT.split_once("| metric |").expect("a table");
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), ALL.len());
    for (metric, row) in ALL.iter().zip(rows) {
        assert!(row.starts_with(&self::row(metric)), "{metric:?} in {row}");
        assert!(row.ends_with(&format!("| {} |", metric.description)), "{metric:?} in {row}");
        assert_eq!(row.contains(", histogram |"), metric.kind == Kind::Histogram, "{row}");
        assert_eq!(row.contains("gauge |"), metric.kind == Kind::Gauge, "{row}");
    }
}
