//! Prometheus, which a test lets scrape the order service. The test starts it itself.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::home::{self, Home};
use crate::interrupt::Interrupt;
use crate::{Failure, Result, children, say, tools};

/// The program: that of the system, or one that is fetched once. The caller holds the lock of the home. `None` if it cannot
/// be fetched; the test that needs it reports that.
pub(crate) fn program(home: &Home, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let folder = home.path.join("prometheus");
    let fetched = folder.join("usr/bin/prometheus");
    if let Some(program) = tools::find("prometheus").or_else(|| fetched.is_file().then(|| fetched.clone())) {
        return Ok(Some(program));
    }
    match fetch(&folder, interrupt) {
        Ok(()) => Ok(Some(fetched)),
        Err(Failure::Cannot(why)) => {
            say(format!("{why}; install Prometheus, or name the program with PROMETHEUS"));
            Ok(None)
        }
        Err(interrupted) => Err(interrupted),
    }
}

/// Unpacks the package of Debian without installing it: that would start a service.
fn fetch(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    say(format!("fetching Prometheus into {}", folder.display()));
    let _ = fs::remove_dir_all(folder);
    let packages = folder.join("package");
    home::create(&packages)?;
    let log = folder.join("fetch.log");
    let apt = |arguments: &[&str]| {
        let mut command = children::mortal(Path::new("apt-get"), Signal::KILL);
        command.args(arguments).current_dir(&packages);
        command
    };
    let what = "fetch Prometheus with apt-get";
    // The lists of a fresh machine are empty or old.
    if children::run_quietly(apt(&["download", "prometheus"]), what, &log, interrupt).is_err() {
        interrupt.check()?;
        children::run_quietly(apt(&["update"]), "update the package lists", &log, interrupt)?;
        children::run_quietly(apt(&["download", "prometheus"]), what, &log, interrupt)?;
    }
    let found = fs::read_dir(&packages).into_iter().flatten().flatten().map(|entry| entry.path()).next();
    let package = found.ok_or_else(|| Failure::cannot(what, "apt-get has left no package"))?;
    let mut unpack = children::mortal(Path::new("dpkg-deb"), Signal::KILL);
    unpack.arg("-x").arg(&package).arg(folder);
    let unpacked = children::run_quietly(unpack, "unpack Prometheus", &log, interrupt);
    let _ = fs::remove_dir_all(&packages);
    unpacked
}
