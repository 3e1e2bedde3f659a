//! The program as a child process, and a client for it.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// The program with `arguments` on the file in `directory`.
pub(crate) fn program(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-service"));
    command.args(arguments).arg("--db").arg(directory.join("orders.db"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// A process that serves. It is killed when it is dropped.
pub(crate) struct Service {
    pub(crate) directory: TempDir,
    url: String,
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    client: reqwest::Client,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[]).await
    }

    pub(crate) async fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, |_| {}).await
    }

    pub(crate) async fn start_with(directory: TempDir, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = program(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
        change(command.args(arguments));
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        Self { directory, url, process, lines, client: reqwest::Client::new() }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("{}{path}", self.url))
    }

    /// Places an order whose steps a test takes, and returns the answer.
    pub(crate) async fn place(&self, customer: &str) -> Value {
        let placed = self.post("/api/orders?drive=manual").json(&order(customer, 2)).send().await.unwrap();
        answer(placed, StatusCode::CREATED).await
    }

    /// Drives the order and returns the last answer.
    pub(crate) async fn drive(&self, id: &str, steps: &[&str]) -> Value {
        let mut last = Value::Null;
        for step in steps {
            let taken = self.post(&format!("/api/orders/{id}/{step}")).send().await.unwrap();
            last = answer(taken, StatusCode::OK).await;
        }
        last
    }

    /// Returns when `path` shows what `is_so`.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            // A read model may not know yet what it is asked for.
            let response = self.get(path).send().await.unwrap();
            let is_found = response.status() == StatusCode::OK;
            let found: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            if is_found && is_so(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "not so: {found}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns when `event` has happened to the order `id`, its payment or its shipment.
    pub(crate) async fn happened(&self, id: &str, event: &str) {
        self.until(&format!("/api/orders/{id}/timeline"), |timeline| timeline.to_string().contains(event)).await;
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        answer(self.get(path).send().await.unwrap(), StatusCode::OK).await
    }

    /// What `/readyz` says, whether it is ready or not.
    pub(crate) async fn readyz(&self) -> Value {
        let response = self.get("/readyz").send().await.unwrap();
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// Returns when all readers have reached the head of the log, by the positions of `/readyz`.
    pub(crate) async fn settle(&self) {
        let begun = Instant::now();
        let mut before = Value::Null;
        loop {
            let ready = self.readyz().await;
            let reached: Vec<_> = ready["reached"].as_object().unwrap().values().collect();
            // Twice, since the saga may just have written what it has not yet checkpointed.
            if reached.iter().all(|reached| **reached == ready["head"]) && before == ready {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "not settled: {ready}");
            before = ready;
        }
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    /// The next line that the program prints and that is `text`.
    pub(crate) async fn says(&mut self, text: &str) {
        while self.lines.next_line().await.unwrap().unwrap() != text {}
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(mut self) -> (ExitStatus, TempDir) {
        let status = timeout(Duration::from_secs(15), self.process.wait()).await.unwrap().unwrap();
        (status, self.directory)
    }

    /// Ends the process as Ctrl-C does, and returns its directory.
    pub(crate) async fn interrupt(self) -> TempDir {
        self.signal("-INT").await;
        let (status, directory) = self.ended().await;
        assert_eq!(status.code(), Some(0));
        directory
    }
}

/// An order of `quantity` lamps.
pub(crate) fn order(customer: &str, quantity: u32) -> Value {
    let cents = quantity * 4_999;
    let total: Value = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
    let item = json!({ "productId": "PROD-456", "quantity": quantity, "price": 49.99 });
    json!({ "userId": customer, "items": [item], "totalAmount": total })
}

/// The JSON of a response, whose status is checked.
pub(crate) async fn answer(response: Response, status: StatusCode) -> Value {
    let got = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Checks a problem and returns it.
pub(crate) async fn problem(request: RequestBuilder, status: u16, field: Option<&str>) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem = answer(response, StatusCode::from_u16(status).unwrap()).await;
    assert_eq!(problem["status"], status);
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.starts_with("urn:order-service:") || kind.starts_with("urn:evenfold:"), "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    assert_eq!(problem["errors"][0]["field"].as_str(), field, "{problem}");
    problem
}
