//! One broker.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Properties,
    installed::{Installed, PROPERTIES},
    mortal,
};

const READY: &str = "Kafka Server started";

/// How long a start may take: only a failure waits for it.
const PATIENCE: Duration = Duration::from_mins(4);

/// Below the ports that systems give to connections: a client that calls the port of a broker that is down could otherwise get that port
/// as its own, and be connected with itself.
const PORTS: std::ops::Range<u16> = 15_000..30_000;

/// Where a broker is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its `node.id`, from 1.
    pub node: usize,
    /// The port of its listener for clients.
    pub port: u16,
    /// The port of its controller.
    pub controller: u16,
    /// A free port for one more listener.
    pub other: u16,
    /// Its directory, with its data in `data`.
    pub directory: PathBuf,
}

impl Place {
    pub(super) fn some(count: usize, directory: &Path) -> Vec<Self> {
        let mut ports = free_ports(count * 3).into_iter();
        let mut next = || ports.next().expect("there are as many");
        let place = |node: usize| {
            let directory = directory.join(node.to_string());
            fs::create_dir_all(&directory).expect("it can be created");
            Self { node, port: next(), controller: next(), other: next(), directory }
        };
        (1..=count).map(place).collect()
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The directory of its data.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

/// Free ports, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    // All are held until the last is found, so that none comes twice.
    let mut held = Vec::new();
    while held.len() < count {
        let port = fastrand::u16(PORTS);
        held.extend(TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (listener, port)));
    }
    held.into_iter().map(|(_, port)| port).collect()
}

/// A broker, which is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Node {
    installed: Installed,
    place: Place,
    environment: Properties,
    java: Vec<String>,
    process: Option<Child>,
}

impl Node {
    /// Writes its settings and a data directory of its own.
    pub(super) fn prepare(
        installed: Installed,
        place: Place,
        properties: &Properties,
        environment: Properties,
        java: Vec<String>,
    ) -> Self {
        let mut text = PROPERTIES
            .replace("@DATA@", &place.data().to_string_lossy())
            .replace("@BROKER_PORT@", &place.port.to_string())
            .replace("@CONTROLLER_PORT@", &place.controller.to_string());
        // Of a property that stands there twice, the last one counts.
        for (name, value) in properties {
            text.extend(["\n", name, "=", value]);
        }
        fs::write(place.directory.join("server.properties"), text).expect("it is written");
        fs::create_dir_all(place.data()).expect("it can be created");
        for entry in fs::read_dir(&installed.template).expect("the template is there") {
            let entry = entry.expect("it can be read");
            let copy = place.data().join(entry.file_name());
            if entry.file_name() == "meta.properties" {
                let text = fs::read_to_string(entry.path()).expect("it can be read");
                fs::write(copy, identity(&text, place.node)).expect("it is written");
            } else {
                fs::copy(entry.path(), copy).expect("it is copied");
            }
        }
        Self { installed, place, environment, java, process: None }
    }

    fn log_file(&self) -> PathBuf {
        self.place.directory.join("kafka.log")
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Starts it; [`ready`](Self::ready) waits for it.
    pub(super) fn spawn(&mut self) {
        let Installed { java, libraries, logging, .. } = &self.installed;
        let output = File::create(self.log_file()).expect("a log");
        let mut command = mortal::command(java);
        command
            .args(["-Xms64m", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
            .arg("-XX:-UsePerfData")
            // What Java leaves behind when it is killed goes with the directory.
            .arg(format!("-Djava.io.tmpdir={}", self.place.directory.display()))
            .args(&self.java)
            .arg("-cp")
            .arg(libraries.join("*"))
            .arg("kafka.Kafka")
            .arg(self.place.directory.join("server.properties"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output);
        self.process = Some(mortal::spawn(command).expect("Java can be started"));
    }

    /// Returns when it accepts connections; false if another process has one of its ports.
    pub(super) async fn ready(&mut self) -> bool {
        let started = Instant::now();
        loop {
            let runs = self.runs();
            let log = self.log();
            if !runs {
                assert!(log.contains("Address already in use") || log.contains("BindException"), "it ended: {log}");
                return false;
            }
            if log.contains(READY) {
                return true;
            }
            assert!(started.elapsed() < PATIENCE, "broker {} does not start: {log}", self.place.node);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // It is no error that it has ended.
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The template's `meta.properties` for another node. Each data directory has an id of its own: a base64 of 16 bytes.
fn identity(text: &str, node: usize) -> String {
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={node}"),
        Some(("directory.id", id)) => {
            // Not its last character, of which only some bits count.
            let own = fastrand::alphanumeric();
            format!("directory.id={own}{node:x}{}", id.chars().skip(2).collect::<String>())
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
