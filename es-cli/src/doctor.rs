//! `es doctor`.

use anstyle::{AnsiColor, Style};
use clap::Args;
use es_core::{
    ServiceStore,
    backend::{Finding, Severity, counted},
};

use crate::{
    end::{CommandError, Outcome},
    operate::{program, resume_command, skip_command},
    output::{Format, Output},
    readers::{self, Paused, Place, Reader, Stopped},
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
    /// Examines `store`. `known` are the read models of the program, if it has any, and `more` is what was found elsewhere.
    pub(crate) async fn run(
        self,
        store: &dyn ServiceStore,
        known: &[String],
        more: Vec<Finding>,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let mut findings = vec![Finding::ok("connection", "the store answers")];
        findings.extend(store.diagnose().await.map_err(CommandError::Store)?);
        let readers = readers::look(store).await?;
        findings.extend(known.iter().filter(|name| readers.iter().all(|found| found.name != **name)).map(unbuilt));
        findings.extend(readers.iter().filter_map(first_build));
        findings.extend(readers.iter().filter_map(left_alone));
        findings.extend(readers.iter().flat_map(held_up));
        let is_bad = |finding: &Finding| finding.check == "readers" && finding.severity != Severity::Ok;
        if !readers.is_empty() && !findings.iter().any(is_bad) {
            let count = counted(readers.len(), "reader");
            findings.push(Finding::ok(
                "readers",
                format!("of {count} none lags without a worker, is paused or has failed"),
            ));
        }
        findings.extend(more);
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

/// A read model that no process has begun to build.
fn unbuilt(name: &String) -> Finding {
    Finding::warning(
        "readers",
        format!("{name} has not been built yet, so it cannot be read"),
        "start a process that runs it, as with `run`: it folds the log from the first event, and then serves",
    )
}

/// A read model that is built for the first time, and does not serve yet. Why it waits is another finding.
fn first_build(reader: &Reader) -> Option<Finding> {
    let Reader { name, place: Some(Place { position, lag_events, .. }), .. } = reader else { return None };
    if !reader.is_first_build || reader.waits() {
        return None;
    }
    if reader.held() > 0 {
        let head = position + lag_events;
        let found =
            format!("{name} is being built for the first time, is at position {position} of {head}, and serves then");
        return Some(Finding::ok("readers", found));
    }
    let found = format!("{name} has not been built to the end yet, so it cannot be read, and no worker holds it");
    let start =
        format!("start a process that runs it, as with `run`: it goes on from position {position}, and then serves");
    if reader.has_shards() {
        return Some(Finding::warning("readers", found, start));
    }
    let waits =
        "where it follows Kafka, it waits for the first event that it listens to, with which the topic is created";
    if *lag_events == 0 {
        return Some(Finding::ok("readers", format!("{name} has nothing to read yet: the log is empty")));
    }
    Some(Finding::warning("readers", found, format!("{waits}: then there is nothing to do. Else {start}")))
}

/// A reader that lags, or of which that is not known here, and that no process runs.
fn left_alone(reader: &Reader) -> Option<Finding> {
    // Why a reader waits is another finding, and so is a first build.
    if reader.held() > 0 || reader.waits() || reader.is_first_build {
        return None;
    }
    let name = reader.called();
    let found = match &reader.place {
        Some(Place { lag_events: 0, .. }) => return None,
        Some(Place { lag_seconds: Some(seconds), .. }) if *seconds < LATE => return None,
        Some(Place { lag_events, .. }) => format!("{name} lags by {}, and no worker", counted(*lag_events, "event")),
        None => format!("{name} handles the messages of another system, and no worker"),
    };
    Some(Finding::warning(
        "readers",
        format!("{found} holds it"),
        "start a process that runs it, or look into its log and at /readyz why it has stopped",
    ))
}

/// What keeps a reader, or some of its keys, from going on.
fn held_up(reader: &Reader) -> Vec<Finding> {
    let Reader { name, dead_letters, parked_keys, .. } = reader;
    let (code, then) = if reader.is_building() && !reader.is_first_build {
        ("correct the code", "; then `rebuild` goes on from there. What serves is not concerned")
    } else {
        ("correct the code and start it again", "")
    };
    let mut findings = Vec::new();
    for (index, Stopped { position, event_id, cause, .. }) in reader.stopped_at.iter().enumerate() {
        // One command moves all shards that have stopped at the event.
        let is_it = |other: &&Stopped| (other.position, other.event_id) == (*position, *event_id);
        if reader.stopped_at[..index].iter().any(|other| is_it(&other)) {
            continue;
        }
        let shards = match reader.stopped_at.iter().filter(is_it).count() {
            1 => String::new(),
            several => format!(" in {several} shards"),
        };
        findings.push(Finding::problem(
            "readers",
            format!("{} has stopped at position {position}{shards}: {cause}", reader.called()),
            format!("{code}, or `{}`{then}", skip_command(name, None, *position, *event_id)),
        ));
    }
    if let Some(Paused { actor, reason, .. }) = &reader.paused {
        let found = format!("{name} was paused by {actor}: {reason}");
        findings.push(Finding::warning("readers", found, format!("`{}` when it may go on", resume_command(name))));
    }
    if *parked_keys > 0 {
        let found = format!(
            "{} has {} under {}",
            reader.called(),
            counted(*dead_letters, "dead letter"),
            counted(*parked_keys, "parked key")
        );
        findings.push(Finding::warning("readers", found, format!("`{} dead-letters list {name}`", program())));
    }
    findings
}
