//! The results as a picture: for each workload ours, the bare work and the best two peers.
//!
//! It brings its own background, so it looks the same on a light and on a dark page, and every bar is named, so nobody
//! has to tell colours apart.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    report::{Entry, Role, Row},
    results::Results,
};

/// The file's name.
const FILE: &str = "results.svg";

/// Peers in each workload.
const PEERS: usize = 2;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 84.0;
const BAR: f64 = 20.0;
/// Between a workload's name and its first bar, and after its last one.
const GAP: f64 = 32.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 168.0;
const LONGEST: f64 = 440.0;

/// Draws the results that are in a directory, beside them.
pub(crate) fn draw(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    fs::write(&path, svg(&Results::read(directory)?)).with_context(|| format!("cannot write {}", path.display()))
}

fn svg(results: &Results) -> String {
    let machine = &results.machine;
    let fsync = machine.settings.get("fsync").map_or("?", String::as_str);
    let subtitle = format!(
        "operations per second, more is better; {} cores, Postgres {}, fsync {fsync}; medians of {} rounds",
        machine.cores, machine.postgres, results.rounds
    );
    let mut body = String::new();
    let mut y = HEAD;
    for row in &results.rows {
        y = group(&mut body, row, y);
    }
    let height = y + MARGIN / 2.0;
    let mut svg = String::new();
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title about" font-family="system-ui, sans-serif" font-size="13">
<title id="title">es-core next to the bare work and to other frameworks</title>
<desc id="about">{about}</desc>
<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>
<text x="{MARGIN}" y="36" font-size="18" font-weight="600" fill="#1f2328">es-core next to the bare work and to other frameworks</text>
<text x="{MARGIN}" y="58" fill="#59636e">{subtitle}</text>
{body}</svg>
"##,
        about = escape(&about(&results.rows)),
        subtitle = escape(&subtitle),
    );
    svg
}

/// A workload's name and bars; gives where the next one begins.
fn group(body: &mut String, row: &Row, top: f64) -> f64 {
    let bars = bars(row);
    let most = bars.iter().map(|entry| entry.figures.per_second).fold(f64::MIN_POSITIVE, f64::max);
    let title = escape(&row.title);
    let _ =
        writeln!(body, r##"<text x="{MARGIN}" y="{:.0}" font-weight="600" fill="#1f2328">{title}</text>"##, top + 18.0);
    let mut y = top + GAP;
    for entry in bars {
        let length = (entry.figures.per_second / most * LONGEST).max(1.0);
        let fill = match entry.role {
            Role::Ours => "#0969da",
            Role::Reference => "#818b98",
            Role::Other => "#bc4c00",
        };
        let text = y + BAR / 2.0 + 2.0;
        let _ = writeln!(
            body,
            r##"<text x="{name_x:.0}" y="{text:.0}" text-anchor="end" fill="#1f2328">{name}</text><rect x="{LEFT}" y="{y:.0}" width="{length:.1}" height="{height:.0}" rx="2" fill="{fill}"/><text x="{value_x:.0}" y="{text:.0}" fill="#1f2328">{value}</text>"##,
            name_x = LEFT - 10.0,
            name = escape(&entry.name),
            height = BAR - 5.0,
            value_x = LEFT + length + 8.0,
            value = thousands(entry.figures.per_second),
        );
        y += BAR;
    }
    y + GAP / 4.0
}

/// Ours, the reference, and the best of the others.
fn bars(row: &Row) -> Vec<&Entry> {
    let of = |role| row.entries.iter().filter(move |entry| entry.role == role);
    let mut others: Vec<_> = of(Role::Other).collect();
    others.sort_by(|a, b| b.figures.per_second.total_cmp(&a.figures.per_second));
    of(Role::Ours).chain(of(Role::Reference)).chain(others.into_iter().take(PEERS)).collect()
}

/// The picture in words.
fn about(rows: &[Row]) -> String {
    let describe = |row: &Row| {
        let bars = bars(row).into_iter();
        let bars = bars.map(|entry| format!("{} {}", entry.name, thousands(entry.figures.per_second)));
        format!("{}: {} per second.", row.title, bars.collect::<Vec<_>>().join(", "))
    };
    rows.iter().map(describe).collect::<Vec<_>>().join(" ")
}

/// 12,345.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(123.0), "123");
        assert_eq!(thousands(1_234.0), "1,234");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
