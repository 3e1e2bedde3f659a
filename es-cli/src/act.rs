//! What every command that changes something asks for: who does it and why, and whether it is meant.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use es_core::{Act, ActError};

use crate::end::CommandError;

/// Who does it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Actor {
    /// Who you are; it is recorded [default: the user of this machine]
    #[arg(long, value_name = "NAME", env = "ES_ACTOR", hide_env = true)]
    actor: Option<String>,
}

impl Actor {
    fn name(&self) -> Option<String> {
        self.actor.clone().or_else(|| std::env::var("USER").ok())
    }

    pub(crate) fn act(&self, reason: &str) -> Result<Act, CommandError> {
        let unknown = || CommandError::usage("it is not known who you are", "pass --actor, or set ES_ACTOR");
        act(self.name().ok_or_else(unknown)?, reason)
    }
}

fn act(actor: String, reason: &str) -> Result<Act, CommandError> {
    Act::new(actor, reason)
        .map_err(|error| CommandError::usage(error.to_string(), "pass --actor and --reason as short texts"))
}

/// Who does it, and why.
#[derive(Debug, Clone, Args)]
pub(crate) struct Who {
    /// Why you do it; it is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    actor: Actor,
}

impl Who {
    pub(crate) fn act(&self) -> Result<Act, CommandError> {
        self.actor.act(&self.reason)
    }
}

/// Who does it, and why, where it must not fail because that is not said.
#[derive(Debug, Clone, Args)]
pub(crate) struct MaybeWho {
    /// Why you do it; it is recorded
    #[arg(long, value_name = "TEXT", default_value = "none given")]
    reason: String,

    #[command(flatten)]
    actor: Actor,
}

impl MaybeWho {
    pub(crate) fn act(&self) -> Result<Act, CommandError> {
        act(self.actor.name().unwrap_or_else(|| "unknown".to_owned()), &self.reason)
    }
}

/// Who does it and why, or that it is only tried.
#[derive(Debug, Clone, Args)]
pub(crate) struct Intent {
    /// Why you do it; it is recorded
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,

    #[command(flatten)]
    actor: Actor,

    /// Only lists what it concerns
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Intent {
    /// The act; `None` where nothing is to be done.
    pub(crate) fn act(&self) -> Result<Option<Act>, CommandError> {
        let reason = self.reason.as_ref().filter(|_| !self.dry_run);
        reason.map(|reason| self.actor.act(reason)).transpose()
    }
}

/// Whether it is meant.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Does it without asking
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Asks whether `what` is meant, unless that is said already.
    pub(crate) fn to(self, what: &str) -> Result<bool, CommandError> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(CommandError::usage(
                format!("{what}: there is no terminal to ask whether that is meant"),
                "pass --yes if it is",
            ));
        }
        eprint!("{what}. Go on? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

impl From<ActError> for CommandError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Store(error) => error.into(),
            ActError::NotJson(misfit) => Self::usage(format!("the payload is no JSON text: {misfit}"), "correct it"),
            error => Self::Missing(error.to_string()),
        }
    }
}
