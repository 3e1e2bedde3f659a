//! What a program prints about itself: shell completions, and the manual page.

mod manual;

use clap::{Command, Subcommand};
use clap_complete::Shell;

use crate::{
    end::{CommandError, Outcome},
    output::Output,
};

/// A command that prints a text about the program. It needs no store.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum TextCommand {
    /// Prints a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Prints the manual page, for example: man > program.1
    Man,
}

impl TextCommand {
    /// Prints to `output` the text about `program`: [`CommandFactory::command`](clap::CommandFactory::command) of the type that parses
    /// its arguments.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn run(self, mut program: Command, output: &mut Output) -> Result<Outcome, CommandError> {
        match self {
            Self::Completions { shell } => {
                let (mut script, name) = (Vec::new(), program.get_name().to_owned());
                clap_complete::generate(shell, &mut program, name, &mut script);
                output.line(String::from_utf8_lossy(&script).trim_end())?;
            }
            Self::Man => output.line(manual::page(&program)?.trim_end())?,
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}
