//! A private Kafka of one node.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::home::Home;
use crate::interrupt::Interrupt;
use crate::server::Server;
use crate::{Failure, Result, children, tools};

const READY: &str = "Kafka Server started";

/// A clean shutdown of Kafka takes seconds, and its data is deleted anyway.
const STOP: Signal = Signal::KILL;

/// Every cluster needs an id. These are never connected, so all use the same one.
const CLUSTER: &str = "5L6g3nShT-eMCtK--X86sw";

const SETTINGS: &str = include_str!("../servers/server.properties");

/// Formats the data directory that is copied for every run: faster than a second Java process for each run.
pub(crate) fn create_template(home: &Home, interrupt: &Interrupt) -> Result<()> {
    let data = home.path.join("kafka-template");
    let settings = home.path.join("kafka-template.properties");
    // Formatting stores no port, but needs valid settings.
    write_settings(&settings, &data, [9092, 9093])?;
    let mut format = command(home, &tools::java(interrupt)?, &home.path);
    format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(&settings);
    children::run_quietly(format, "format a Kafka cluster", &home.path.join("kafka-format.log"), interrupt)
}

/// What tests need that start brokers of their own (`tests/src/cluster/installed.rs`).
pub(crate) fn variables(home: &Home, java: &Path) -> [(&'static str, String); 4] {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("KAFKA_OF_TESTS_JAVA", text(java)),
        ("KAFKA_OF_TESTS_LIBRARIES", text(&home.path.join("kafka"))),
        ("KAFKA_OF_TESTS_TEMPLATE", text(&home.path.join("kafka-template"))),
        ("KAFKA_OF_TESTS_LOGGING", text(&logging())),
    ]
}

/// Copies the template into the directory of the run and returns the path of the copy.
pub(crate) fn copy_template(home: &Home, run: &Path) -> Result<PathBuf> {
    let data = run.join("kafka");
    let failed = |error| Failure::cannot("copy the Kafka template", error);
    fs::create_dir_all(&data).map_err(failed)?;
    for entry in fs::read_dir(home.path.join("kafka-template")).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        fs::copy(entry.path(), data.join(entry.file_name())).map_err(failed)?;
    }
    Ok(data)
}

/// Starts Kafka on the ports (broker, controller), with the copy of the template.
pub(crate) fn spawn(home: &Home, run: &Path, data: &Path, java: &Path, ports: [u16; 2]) -> Result<Server> {
    let settings = run.join("server.properties");
    write_settings(&settings, data, ports)?;
    let log = run.join("kafka.log");
    let failed = |error| Failure::cannot("start Kafka", error);
    let output = File::create(&log).map_err(failed)?;
    let mut kafka = command(home, java, run);
    kafka.arg("kafka.Kafka").arg(&settings);
    kafka.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output);
    // In a process group of its own: Ctrl-C must not stop the server before the tests that use it.
    let child = kafka.process_group(0).spawn().map_err(failed)?;
    Server::new("Kafka", child, log, READY, STOP, run.join("kafka.pid"))
}

fn write_settings(path: &Path, data: &Path, [broker, controller]: [u16; 2]) -> Result<()> {
    let settings = SETTINGS
        .replace("@DATA@", &data.to_string_lossy())
        .replace("@BROKER_PORT@", &broker.to_string())
        .replace("@CONTROLLER_PORT@", &controller.to_string());
    fs::write(path, settings).map_err(|error| Failure::cannot(format!("write {}", path.display()), error))
}

fn logging() -> PathBuf {
    tools::workspace().join("xtask/servers/log4j2.properties")
}

/// Java with Kafka's libraries, tuned for a quick start and a small size. What it would leave in the system's temporary
/// directory when it is killed goes to `temporary`.
fn command(home: &Home, java: &Path, temporary: &Path) -> Command {
    let mut command = children::mortal(java, STOP);
    command
        .args(["-Xms64m", "-Xmx512m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Dlog4j2.configurationFile={}", logging().display()))
        .arg("-XX:-UsePerfData")
        .arg(format!("-Djava.io.tmpdir={}", temporary.display()))
        .arg("-cp")
        .arg(home.path.join("kafka/*"));
    command
}
