//! A Postgres server of one test, for settings that the others must not meet and for crashes.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::{
    process::{self, Process, unprivileged},
    server::{Schema, soon},
};

/// It ends, and its data are deleted, when this is dropped.
pub(crate) struct OwnServer {
    programs: PathBuf,
    port: u16,
    process: Option<Process>,
    directory: TempDir,
}

impl OwnServer {
    /// An empty cluster, made with the programs of the server at `DATABASE_URL`; `None` if that runs on another machine.
    pub(crate) async fn new() -> Option<Self> {
        let mut session = Schema::new().session().await;
        let programs = PathBuf::from(session.text("SELECT setting FROM pg_config WHERE name = 'BINDIR'").await);
        let initdb = programs.join("initdb");
        if !initdb.exists() {
            eprintln!("left out: the programs of the server at DATABASE_URL are not on this machine");
            return None;
        }
        let directory = process::directory();
        let mut command = unprivileged(&initdb.to_string_lossy());
        command.arg("-D").arg(directory.path().join("data")).args(["-U", "postgres", "-A", "trust"]);
        command.args(["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
        Some(Self { programs, port: process::free_port(), process: None, directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file that only the server may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let path = self.directory().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(self.directory().join("data")).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }

    /// Starts it with `settings` (`name=value`) and waits until it lets `parameters` in.
    pub(crate) async fn start(&mut self, settings: &[String], parameters: &str) {
        let (data, port) = (self.directory().join("data"), self.port.to_string());
        let mut arguments = vec!["-D", data.to_str().unwrap(), "-p", &port];
        arguments.extend(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        arguments.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let log = self.directory().join("postgres.log");
        self.process = Some(Process::start(&self.programs.join("postgres"), &arguments, "QUIT", &log));
        soon(async {
            while let Err(cause) = PgConnection::connect(&self.url(parameters)).await {
                assert!(!matches!(cause, sqlx::Error::Tls(_)), "{cause}");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn url(&self, parameters: &str) -> String {
        self.url_at("127.0.0.1", parameters)
    }

    pub(crate) fn url_at(&self, host: &str, parameters: &str) -> String {
        format!("postgres://postgres@{host}:{}/postgres?{parameters}", self.port)
    }
}
