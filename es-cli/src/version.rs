//! What `--version` of an application's program prints if the application gives it none.

use clap::Command;

/// What stands where the version would: that none is known, and with which Evenfold the program was made.
pub(crate) const UNKNOWN: &str = concat!("(no version given; Evenfold ", env!("CARGO_PKG_VERSION"), ")");

/// For the attributes of the derive macro.
pub(crate) trait Versioned {
    /// Gives a program a version if it has none, so that `--version` is no wrong argument. One that has an argument of its own by this
    /// name stays as it is.
    fn version_or(self, unknown: &'static str) -> Self;
}

impl Versioned for Command {
    fn version_or(self, _unknown: &'static str) -> Self {
        // Only then it is known what the program says itself.
        self.defer(completed)
    }
}

fn completed(program: Command) -> Command {
    let is_taken = |own: &clap::Arg| own.get_short() == Some('V') || own.get_long() == Some("version");
    let is_known = program.get_version().is_some() || program.get_long_version().is_some();
    if is_known || program.get_arguments().any(is_taken) { program } else { program.version(UNKNOWN) }
}
