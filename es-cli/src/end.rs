//! How a command ends.

use std::{io, process::ExitCode};

use es_core::{
    ReadError,
    backend::{ReadModelError, Severity},
    error::{BoxError, with_causes},
};

/// The exit codes, as `--help` tells them. They do not change.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, and all is well
  1  the answer is no: a problem or a difference was found, or what was named is not there
  2  the arguments are wrong, or a confirmation is missing
  3  the store, or Kafka, cannot be reached
  4  the store failed, or it does not fit this program; or Kafka refuses
  5  doctor or relay status found warnings and no problem; or relay reconcile did not look at object storage";

/// What a command that was carried out has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All is well.
    Well,
    /// The answer is no.
    No,
    /// There are warnings.
    Warnings,
}

impl From<Severity> for Outcome {
    fn from(worst: Severity) -> Self {
        match worst {
            Severity::Ok => Self::Well,
            Severity::Warning => Self::Warnings,
            Severity::Problem => Self::No,
        }
    }
}

/// Why a command was not carried out. The errors with which a store is not opened convert into it (features `sqlite` and
/// `postgres`), so that they end a program with the [exit codes](EXIT_CODES) that they have in `es`, and say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The arguments are wrong.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// What was named is not there.
    #[error("{0}")]
    Missing(String),
    /// The store cannot be reached.
    #[error("the store cannot be reached")]
    Unreachable {
        /// Why.
        #[source]
        cause: BoxError,
        /// What to do.
        advice: String,
    },
    /// The store does not fit this program.
    #[error("the store cannot be used as it is")]
    Unfit {
        /// Why.
        #[source]
        cause: BoxError,
        /// What to do.
        advice: String,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] BoxError),
    /// Kafka cannot be read.
    #[error("kafka cannot be read")]
    Kafka {
        /// Why.
        #[source]
        cause: BoxError,
        /// What to do.
        advice: String,
        /// Whether trying again may help.
        is_transient: bool,
    },
    /// Parts of the service have stopped for good: a line for each, with the reason.
    #[error("{}", .0.join("\n"))]
    Stopped(Vec<String>),
    /// What was found cannot be printed.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Arguments that are wrong.
    pub fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), advice: advice.into() }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        match self {
            Self::Usage { advice, .. }
            | Self::Unreachable { advice, .. }
            | Self::Unfit { advice, .. }
            | Self::Kafka { advice, .. } => Some(advice),
            Self::Store(_) => Some("`es doctor` examines it"),
            Self::Missing(_) | Self::Stopped(_) | Self::Output(_) => None,
        }
    }

    /// Whether the reader of the output has gone, as `head` does when it has enough.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    const fn code(&self) -> u8 {
        match self {
            Self::Missing(_) => 1,
            Self::Usage { .. } => 2,
            Self::Unreachable { .. } | Self::Kafka { is_transient: true, .. } => 3,
            Self::Kafka { .. } | Self::Unfit { .. } | Self::Store(_) | Self::Stopped(_) | Self::Output(_) => 4,
        }
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

impl From<ReadModelError> for CommandError {
    fn from(error: ReadModelError) -> Self {
        Self::Store(error.into())
    }
}

/// The [exit code](EXIT_CODES) of a command. An error is told on the standard error output, with its causes and what to do; that
/// the reader of the output has gone is none.
pub fn exit_code(ended: Result<Outcome, CommandError>) -> ExitCode {
    match ended {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Ok(Outcome::Warnings) => ExitCode::from(5),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            if let Some(advice) = error.advice() {
                eprintln!("  what to do: {advice}");
            }
            ExitCode::from(error.code())
        }
    }
}
