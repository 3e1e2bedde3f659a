//! Programs for cargo, installed once for each version.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use rustix::process::Signal;

use crate::children::{self, Group};
use crate::interrupt::Interrupt;
use crate::{Failure, Result, say, tools};

/// A program that cargo installs below `target/tools`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    /// The package, which is also the name of the program.
    pub(crate) name: &'static str,
    /// Which is known to work.
    pub(crate) version: &'static str,
}

/// Checks licences and sources of dependencies.
const DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };

/// Runs `cargo deny check` with the arguments.
///
/// Without any it checks bans, licences and sources: what can be known of `Cargo.lock` and the packages. Advisories come from
/// a database on GitHub that not every machine can fetch.
pub(crate) fn deny(checks: &[String]) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let mut command = children::mortal(&DENY.installed(&interrupt)?, Signal::TERM);
    command.current_dir(tools::workspace()).args(["--all-features", "--log-level", "error", "check"]);
    if checks.is_empty() {
        command.args(["bans", "licenses", "sources"]);
        say("advisories are not checked: their database is on GitHub (`cargo xtask deny advisories`)");
    }
    command.args(checks);
    children::run_to_end(command, Group::Own, &interrupt)
}

/// Checks what users compile, with the oldest compiler that the manifest promises.
pub(crate) fn msrv() -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let version = promised()?;
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", "--profile", "minimal", "--no-self-update", &version]);
    let log = env::temp_dir().join("xtask-rustup.log");
    children::run_quietly(install, &format!("install Rust {version}"), &log, &interrupt)?;
    let mut check = children::mortal("rustup".as_ref(), Signal::TERM);
    check.args(["run", &version, "cargo", "check", "--locked", "--package", "evenfold", "--all-features"]);
    // Beside the other target directory: one would replace what the other has built.
    check.current_dir(tools::workspace()).arg("--target-dir").arg(tools::workspace().join("target/msrv"));
    tools::forget_this_package(&mut check);
    children::run_to_end(check, Group::Own, &interrupt)
}

impl CargoTool {
    /// The program, installed if it was not.
    pub(crate) fn installed(self, interrupt: &Interrupt) -> Result<PathBuf> {
        let Self { name, version } = self;
        let root = tools::workspace().join(format!("target/tools/{name}-{version}"));
        let program = root.join("bin").join(name);
        if program.exists() {
            return Ok(program);
        }
        let started = Instant::now();
        say(format!("installing {name} {version} into {}", root.display()));
        fs::create_dir_all(&root).map_err(|error| Failure::cannot(format!("create {}", root.display()), error))?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut install = Command::new(cargo);
        // Unoptimised: it builds in a third of the time and runs for seconds.
        install.args(["install", name, "--version", version, "--locked", "--debug", "--root"]).arg(&root);
        children::run_quietly(install, &format!("install {name}"), &root.join("install.log"), interrupt)?;
        say(format!("installed in {:.0} s", started.elapsed().as_secs_f32()));
        Ok(program)
    }
}

/// The `rust-version` of the workspace.
fn promised() -> Result<String> {
    let manifest = tools::workspace().join("Cargo.toml");
    let failed = |error: &dyn std::fmt::Display| Failure::cannot(format!("read {}", manifest.display()), error);
    let text = fs::read_to_string(&manifest).map_err(|error| failed(&error))?;
    let line = text.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let version = line.map(|version| version.trim_matches('"').to_owned());
    version.ok_or_else(|| failed(&"it has no rust-version"))
}
