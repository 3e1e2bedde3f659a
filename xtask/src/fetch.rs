//! Fetches the programs of the servers, once.

use std::env::consts;
use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use crate::home::{self, Home};
use crate::interrupt::Interrupt;
use crate::{Failure, Result, children, kafka, postgres, say, tools};

/// Everything that determines what is fetched and prepared. The stamp file holds it: after a change all is fetched again.
const RECIPE: &str =
    concat!(include_str!("../servers/pom.xml"), include_str!("../servers/server.properties"), "format 1");

/// Fetches the programs and prepares the templates below the home, if they are missing. The caller holds its lock.
pub(crate) fn prepare(home: &Home, interrupt: &Interrupt) -> Result<()> {
    let stamp = home.path.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == RECIPE) {
        return Ok(());
    }
    let started = Instant::now();
    say(format!("fetching Postgres and Kafka into {}", home.path.display()));
    for folder in ["postgres", "kafka", "postgres-template", "kafka-template", "markers"] {
        let _ = fs::remove_dir_all(home.path.join(folder));
    }
    run_maven(home, interrupt)?;
    unpack_postgres(home, interrupt)?;
    postgres::create_template(home, interrupt)?;
    kafka::create_template(home, interrupt)?;
    // Written last, so that an interrupted fetch is done again.
    fs::write(&stamp, RECIPE).map_err(|error| Failure::cannot(format!("write {}", stamp.display()), error))?;
    say(format!("fetched and prepared in {:.1} s", started.elapsed().as_secs_f32()));
    Ok(())
}

fn run_maven(home: &Home, interrupt: &Interrupt) -> Result<()> {
    let platform = match (consts::OS, consts::ARCH) {
        ("linux", "x86_64") => "linux-amd64",
        ("linux", "aarch64") => "linux-arm64v8",
        ("macos", "x86_64") => "darwin-amd64",
        ("macos", "aarch64") => "darwin-arm64v8",
        (os, arch) => {
            return Err(Failure::cannot(
                "fetch Postgres",
                format!("no Postgres package for {os} on {arch}: start servers and set DATABASE_URL and KAFKA_BROKERS"),
            ));
        }
    };
    tools::maven(interrupt)?;
    let mut maven = children::mortal(Path::new("mvn"), Signal::KILL);
    maven
        .args(["-B", "-q", "-Dstyle.color=never", "-f"])
        .arg(tools::workspace().join("xtask/servers/pom.xml"))
        .arg("process-resources")
        .arg(format!("-Dservers.directory={}", home.path.display()))
        .arg(format!("-Dpostgres.platform={platform}"));
    let log = home.path.join("maven.log");
    children::run_quietly(maven, "fetch Postgres and Kafka with Maven", &log, interrupt)
}

fn unpack_postgres(home: &Home, interrupt: &Interrupt) -> Result<()> {
    tools::unpacker(interrupt)?;
    let folder = home.path.join("postgres");
    // With any umask, the account of the servers must be able to search it.
    home::create(&folder)?;
    let archive = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "txz"))
        .ok_or_else(|| Failure::cannot("unpack Postgres", "the package has no archive (.txz)"))?;
    let mut tar = children::mortal(Path::new("tar"), Signal::KILL);
    // With the permissions of the archive, not of the umask, and owned by the user of this process.
    tar.arg("-xJpf").arg(&archive).arg("--no-same-owner").arg("-C").arg(&folder);
    children::run_quietly(tar, "unpack Postgres", &home.path.join("tar.log"), interrupt)?;
    let _ = fs::remove_file(archive);
    // The archive has no entries for its folders, so the umask has set their permissions.
    let mut chmod = children::mortal(Path::new("chmod"), Signal::KILL);
    chmod.args(["-R", "go+rX"]).arg(&folder);
    children::run_quietly(chmod, "unpack Postgres", &home.path.join("tar.log"), interrupt)?;
    Ok(())
}
