//! `es doctor`.

use anstyle::{AnsiColor, Style};
use clap::Args;
use es_core::{
    ServiceStore,
    backend::{Finding, Severity},
};

use crate::{
    end::{CommandError, Outcome},
    output::{Format, Output},
    readers::{self, Reader},
};

/// A reader without a worker that is so many seconds late is worth a warning.
const LATE: f64 = 60.0;

/// How to print what was found.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) format: Format,
}

impl Doctor {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let mut findings = vec![Finding::ok("connection", "the store answers")];
        findings.extend(store.diagnose().await.map_err(CommandError::Store)?);
        let readers = readers::look(store).await?;
        findings.extend(readers.iter().filter_map(left_alone));
        if !readers.is_empty() && findings.iter().all(|finding| finding.check != "readers") {
            findings.push(Finding::ok("readers", format!("no reader of {} is left without a worker", readers.len())));
        }
        self.print(&findings, output)
    }

    /// Prints `findings`, the worst first, and tells how bad the worst is.
    pub(crate) fn print(self, findings: &[Finding], output: &mut Output) -> Result<Outcome, CommandError> {
        let mut sorted: Vec<_> = findings.iter().collect();
        sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for finding in &sorted {
            if self.format.json {
                output.json(finding)?;
                continue;
            }
            let (style, word) = (style(finding.severity), finding.severity.as_str());
            output.line(format_args!("{style}{word:<8}{style:#} {}: {}", finding.check, finding.found))?;
            if let Some(advice) = &finding.advice {
                output.line(format_args!("         what to do: {advice}"))?;
            }
        }
        output.flush()?;
        Ok(sorted.first().map_or(Severity::Ok, |finding| finding.severity).into())
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Ok => AnsiColor::Green.on_default(),
        Severity::Warning => AnsiColor::Yellow.on_default(),
        Severity::Problem => AnsiColor::Red.on_default().bold(),
    }
}

/// A reader that lags, and that no process runs.
fn left_alone(reader: &Reader) -> Option<Finding> {
    let is_late = reader.lag_seconds.is_none_or(|seconds| seconds >= LATE);
    if reader.lag_events == 0 || !is_late || reader.held() > 0 {
        return None;
    }
    let Reader { name, state, lag_events, .. } = reader;
    Some(Finding::warning(
        "readers",
        format!("{name} ({state}) lags by {lag_events} events, and no worker holds it"),
        "start a process that runs it, or look into its log and at /readyz why it has stopped",
    ))
}
