//! A real Prometheus scrapes the order service, and answers what an operator asks.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use serde_json::{Value, json};

use crate::ground::{Ground, Process, server};

const PATIENCE: Duration = Duration::from_mins(1);

/// Starts the program and returns the text after `begin` in its output.
fn told(command: &mut Command, begin: &str) -> (Process, String) {
    let mut process = Process::of(command.stdout(Stdio::piped()));
    let found = found(process.stdout.take().expect("it is piped"), begin);
    (process, found)
}

/// The text after `begin` in a line of `output`. The rest is read and dropped, because a program may block if nothing reads its output.
fn found(output: impl Read + Send + 'static, begin: &str) -> String {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let found = lines.find_map(|line| line.split_once(begin).map(|(_, rest)| rest.to_owned()));
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("it ended before it said {begin:?}"))
}

struct Prometheus {
    _process: Process,
    url: String,
    client: Client,
}

impl Prometheus {
    /// One that scrapes the processes at `targets` each second.
    fn start(directory: &Path, targets: &[&str]) -> Self {
        let settings = json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [{ "job_name": "orders", "static_configs": [{ "targets": targets }] }],
        });
        let file = directory.join("prometheus.yml"); // JSON is YAML
        fs::write(&file, settings.to_string()).expect("it is written");
        let mut command = Command::new(server("PROMETHEUS"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        // It logs to stderr.
        let mut process = Process::of(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let address = found(process.stderr.take().expect("it is piped"), "msg=\"Listening on\" address=");
        let url = format!("http://{address}");
        Self { _process: process, url, client: Client::new() }
    }

    /// What the query `expression` is now, if there is exactly one such number.
    async fn ask(&self, expression: &str) -> Option<f64> {
        let url =
            Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", expression)]).expect("a URL");
        let answer: Value = self.client.get(url).send().await.ok()?.json().await.ok()?;
        assert_ne!(answer["status"], "error", "{answer}");
        let found = answer["data"]["result"].as_array()?;
        let [one] = &found[..] else { return None };
        one["value"][1].as_str()?.parse().ok()
    }

    /// Returns when `expression` holds (the answer is empty where a comparison does not).
    async fn holds(&self, expression: &str) {
        let begun = Instant::now();
        while self.ask(expression).await.is_none() {
            assert!(begun.elapsed() < PATIENCE, "{expression} does not hold");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// `host:port` of `url`.
fn target(url: &str) -> &str {
    let rest = url.strip_prefix("http://").expect("a URL");
    rest.split('/').next().expect("an address")
}

/// (Seen to fail where the broker was gone: nothing was processed.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_sees_what_was_processed_and_by_how_much_readers_lag() {
    let ground = Ground::new().await;
    let (_http, url) = told(&mut ground.command(&["serve", "--only-http", "--listen", "127.0.0.1:0"]), "listening on ");
    let worker = |role| told(&mut ground.command(&[role, "--metrics", "127.0.0.1:0"]), "metrics on ");
    let (_relay, relay) = worker("publish");
    let (_saga, saga) = worker("saga");
    let (project, projectors) = worker("project");
    let directory = tempfile::tempdir().expect("a directory");
    let targets = [&url, &relay, &saga, &projectors].map(|url| target(url));
    let prometheus = Prometheus::start(directory.path(), &targets);
    prometheus.holds("sum(up) == 4").await;

    let client = Client::new();
    let place = || async {
        let item = json!({ "productId": "PROD-456", "quantity": 2, "price": 49.99 });
        let order = json!({ "userId": "USR-123", "items": [item], "totalAmount": 99.98 });
        let placed =
            client.post(format!("{url}/api/orders?drive=manual")).json(&order).send().await.expect("an answer");
        assert_eq!(placed.status(), 201);
        placed.json::<Value>().await.expect("JSON")["orderId"].as_str().expect("an id").to_owned()
    };
    // A read model from Kafka serves once its topic is there.
    let received = client.post(format!("{url}/api/stock/PROD-456")).json(&json!({ "pieces": 1 })).send().await;
    assert_eq!(received.expect("an answer").status(), 200);
    for _ in 0..3 {
        let order = place().await;
        let paid = client.post(format!("{url}/api/orders/{order}/pay")).send().await.expect("an answer");
        assert_eq!(paid.status(), 200);
    }
    // Two events of the stock; three orders, three times paid, and of each the payment, a message and three steps of the saga.
    for expression in [
        r#"sum(events_processed_total{consumer="order-details",event_type="order.placed",status="ok"}) == 3"#,
        r#"sum(events_processed_total{consumer="audit-trail",status="ok"}) == 23"#,
        r#"sum(execute_duration_seconds_count{aggregate="order",outcome="written"}) == 3"#,
        r#"sum(execute_duration_seconds_count{aggregate="payment",outcome="written"}) == 3"#,
        r#"sum(append_duration_seconds_count{outcome="written"}) == 22"#,
        "sum(append_batch_events_sum) == 23",
        "sum(relay_published_events_total) == 23",
        "max(log_head_position) == 23",
        r#"histogram_quantile(0.5, sum by (le) (event_processing_duration_seconds_bucket{consumer="order-details"})) > 0"#,
        // Seven read models, the three parts of the saga and the relay have everything, and each runs.
        "count(max by (consumer) (reader_lag_events) == 0) == 11",
        "count(max by (consumer) (reader_lag_seconds) == 0) == 11",
        "count(max by (part) (part_running) == 1) == 11",
    ] {
        prometheus.holds(expression).await;
    }

    // Where the process is gone that keeps the read models, others tell that they lag.
    project.kill();
    place().await;
    for expression in [
        "sum(up) == 3",
        r#"max(reader_lag_events{consumer="order-details"}) == 1"#,
        r#"max(reader_lag_seconds{consumer="order-details"}) > 1"#,
        r#"max(reader_lag_events{consumer="fulfilment"}) == 0"#,
    ] {
        prometheus.holds(expression).await;
    }
}
