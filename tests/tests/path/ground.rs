//! What each test has of its own: a schema, a topic prefix, and processes that end with the test.

use std::{
    env,
    ops::{Deref, DerefMut},
    process::{Child, Command, Stdio},
};

use es_core::{Service, service};
use order_service::{app::App, cli::Parts, http::router, rules::Rules, service::builder};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

pub(crate) fn server(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask test`"))
}

/// The schema, the topics and the service of one test.
pub(crate) struct Ground {
    pub(crate) parts: Parts,
    /// Has the messages to customers.
    _directory: TempDir,
    /// Runs no parts.
    pub(crate) service: Service,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let name = format!("t{}", &Uuid::now_v7().simple().to_string()[20..]);
        let url = server("DATABASE_URL");
        let separator = if url.contains('?') { '&' } else { '?' };
        let directory = tempfile::tempdir().expect("a directory");
        let parts = Parts {
            messages: Some(directory.path().join("messages.jsonl")),
            store: Some(format!("{url}{separator}schema={name}")),
            kafka: Some(server("KAFKA_BROKERS")),
            topic_prefix: format!("{name}-"),
            ..Parts::default()
        };
        let service = start(&parts, service::Parts::None).await;
        Self { parts, _directory: directory, service }
    }

    /// Starts the service's HTTP side in this process; returns its base URL.
    pub(crate) async fn serve(&self) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let app = App::new(&self.service, &Rules::default());
        let serving = tokio::spawn(async move { axum::serve(listener, router(app)).await.expect("it serves") });
        (url, serving)
    }

    /// Starts the parts of these names in this process.
    pub(crate) async fn start(&self, names: impl IntoIterator<Item = &str>) -> Service {
        start(&self.parts, service::Parts::named(names)).await
    }

    /// Starts the order service in a process of its own.
    pub(crate) fn spawn(&self, role: &[&str]) -> Process {
        Process::of(self.command(role).stdout(Stdio::null()))
    }

    /// The order service with this role, as a command.
    pub(crate) fn command(&self, role: &[&str]) -> Command {
        let Parts { store, kafka, topic_prefix, messages, .. } = &self.parts;
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .args(role)
            .args(["--store", store.as_deref().expect("it is set"), "--kafka", kafka.as_deref().expect("it is set")])
            .args(["--topic-prefix", topic_prefix])
            .arg("--messages")
            .arg(messages.as_deref().expect("it is set"))
            .stdin(Stdio::null());
        command
    }
}

async fn start(parts: &Parts, here: service::Parts) -> Service {
    let builder = builder(parts, &Rules::default()).await.expect("the servers are up");
    builder.parts(here).start().await.expect("the parts are known")
}

/// A process that is killed (-9) when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program can be started"))
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }

    /// Stops it in the middle of its work (`STOP`), or continues it (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("there is a kill command").success());
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
