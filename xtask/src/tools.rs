//! The system programs that the servers and the build need: found, or installed where that is possible.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::account::is_root;
use crate::interrupt::Interrupt;
use crate::{Failure, Result, children, say};

/// The oldest Java that Kafka 4 runs on.
const JAVA: u32 = 17;

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    // From the environment at run time: several checkouts may share one target directory, and so this program.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = Path::new(&package);
    package.parent().unwrap_or(package).to_path_buf()
}

/// Removes what cargo has set for this program from the environment of another cargo, some of whose build scripts would run
/// again when it changes.
pub(crate) fn forget_this_package(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
}

/// Java, recent enough for Kafka.
pub(crate) fn java(interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(java) = find_java() {
        return Ok(java);
    }
    let why = format!("Kafka needs java {JAVA} or newer");
    // Not every release of a distribution has both, and the default of some is too old.
    install(&["openjdk-17-jre-headless"], &why, interrupt)
        .or_else(|_| install(&["default-jre-headless"], &why, interrupt))?;
    find_java().ok_or_else(|| Failure::cannot("start Kafka", format!("the java installed is older than {JAVA}")))
}

/// Maven, which fetches the servers.
pub(crate) fn maven(interrupt: &Interrupt) -> Result<()> {
    // Its package installs a Java of its own choice, so the one for Kafka is installed first.
    java(interrupt)?;
    need(&["mvn"], &["maven"], "Maven fetches Postgres and Kafka", interrupt)
}

/// The programs that unpack the Postgres archive.
pub(crate) fn unpacker(interrupt: &Interrupt) -> Result<()> {
    need(&["tar", "xz"], &["tar", "xz-utils"], "they unpack Postgres", interrupt)
}

/// The programs that build the C library of the Kafka client.
pub(crate) fn for_native_builds(interrupt: &Interrupt) -> Result<()> {
    let packages = ["build-essential", "pkg-config", "zlib1g-dev", "libssl-dev"];
    need(&["cc", "c++", "make", "pkg-config"], &packages, "they build the Kafka client library", interrupt)?;
    if !has_openssl() {
        install(&packages, "the Kafka client library needs the headers of OpenSSL", interrupt)?;
    }
    if !has_zlib() && hindrance().is_none() {
        // Optional: without the headers the build compiles its own zlib.
        let _ = install(&packages, "zlib headers shorten the build", interrupt);
    }
    Ok(())
}

/// The programs in the order service's README, and the pooler that tests of `es-postgres` start. Debian installs that one in a
/// directory that is only on root's `PATH`.
pub(crate) fn for_tests(interrupt: &Interrupt) -> Result<()> {
    need(&["bash", "curl", "jq"], &["bash", "curl", "jq"], "the order service's README uses them", interrupt)?;
    if Path::new("/usr/sbin/pgbouncer").exists() || hindrance().is_some() {
        return Ok(());
    }
    install(&["pgbouncer"], "tests of es-postgres connect through it", interrupt)
}

/// The programs that build one of the benchmarks' peers.
pub(crate) fn for_peers(interrupt: &Interrupt) -> Result<()> {
    let packages = ["build-essential", "pkg-config", "libssl-dev"];
    need(&["cc", "pkg-config"], &packages, "they build the benchmarks", interrupt)?;
    if has_openssl() {
        return Ok(());
    }
    install(&packages, "esrs needs the headers of OpenSSL", interrupt)
}

/// The command line of a process; empty when there is no such process.
pub(crate) fn command_line(pid: Pid) -> String {
    if Path::new("/proc/self/cmdline").exists() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        return String::from_utf8_lossy(&line).into_owned();
    }
    let output = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn need(programs: &[&str], packages: &[&str], why: &str, interrupt: &Interrupt) -> Result<()> {
    let missing: Vec<_> = programs.iter().copied().filter(|program| !on_path(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(packages, &format!("{} missing: {why}", missing.join(", ")), interrupt)
}

/// Installs packages of Debian and its relatives.
fn install(packages: &[&str], why: &str, interrupt: &Interrupt) -> Result<()> {
    let what = format!("install {}", packages.join(" "));
    if let Some(hindrance) = hindrance() {
        return Err(Failure::cannot(what, format!("{hindrance} ({why}; please install it by hand)")));
    }
    say(format!("{what}: {why}"));
    let log = env::temp_dir().join("xtask-apt-get.log");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The lists of a fresh machine are empty or old, those of a used one are mostly fine.
    if children::run_quietly(apt(&arguments), &what, &log, interrupt).is_err() {
        interrupt.check()?;
        children::run_quietly(apt(&["update"]), "update the package lists", &log, interrupt)?;
        children::run_quietly(apt(&arguments), &what, &log, interrupt)?;
    }
    Ok(())
}

/// Why nothing can be installed here, if so.
fn hindrance() -> Option<&'static str> {
    if !on_path("apt-get") {
        return Some("there is no apt-get");
    }
    (!is_root()).then_some("this is not root")
}

fn find_java() -> Option<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.into_iter().chain([PathBuf::from("java")]).find(|java| {
        let output = Command::new(java).arg("-version").stdin(Stdio::null()).output();
        output.is_ok_and(|output| java_major(&String::from_utf8_lossy(&output.stderr)) >= Some(JAVA))
    })
}

/// The major version in the output of `java -version`: `openjdk version "17.0.15" 2025-04-15`.
fn java_major(output: &str) -> Option<u32> {
    let version = output.split('"').nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn has_openssl() -> bool {
    let mut probe = Command::new("pkg-config");
    probe.args(["--exists", "openssl"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn has_zlib() -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-E", "-include", "zlib.h", "-x", "c", "/dev/null"]);
    compiler.stdout(Stdio::null()).stderr(Stdio::null());
    compiler.status().is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    find(program).is_some()
}

/// Where the program is on the `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(1));
        assert_eq!(java_major("sh: java: not found"), None);
    }
}
