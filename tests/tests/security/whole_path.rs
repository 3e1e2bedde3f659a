//! The order service in processes that each have an account of their own, with the rights that the document lists and no others.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    broker::{Broker, Listener, Mechanism, password},
    rights::{PAYMENTS, PREFIX, Role, tell_payment},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// A process that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Ground {
    directory: tempfile::TempDir,
    broker: Broker,
}

impl Ground {
    /// The order service in this role, with the account of the other.
    fn command(&self, role: &[&str], account: Role, mechanism: Mechanism) -> Command {
        let directory = self.directory.path();
        // Each process has a file of its own: one that starts may read while the next one's is written.
        let file = self.log(role).with_extension("properties");
        let lines = [
            format!("bootstrap.servers={}", self.broker.address(Listener::Good)),
            "security.protocol=SASL_SSL".to_owned(),
            format!("sasl.mechanism={}", mechanism.name()),
            format!("sasl.username={}", account.account()),
            format!("ssl.ca.location={}", self.broker.authority()),
        ];
        fs::write(&file, lines.join("\n")).expect("the directory is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .args(role)
            .args(["--topic-prefix", PREFIX, "--payments-topic", PAYMENTS])
            .arg("--db")
            .arg(directory.join("orders.db"))
            .arg("--kafka-settings")
            .arg(file)
            .env("ORDER_SERVICE_KAFKA_SASL_PASSWORD", password(account.account()))
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(File::create(self.log(role)).expect("the directory is ours"));
        command
    }

    fn log(&self, role: &[&str]) -> PathBuf {
        self.directory.path().join(format!("{}.log", role.join("-").replace('/', "")))
    }

    fn spawn(&self, role: &[&str], account: Role, mechanism: Mechanism) -> Process {
        let mut command = self.command(role, account, mechanism);
        Process(command.stdout(Stdio::null()).spawn().expect("the program can be started"))
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Option<Value> {
    let found = client.get(url).send().await.ok()?.error_for_status().ok()?;
    serde_json::from_str(&found.text().await.ok()?).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path_works_with_the_rights_that_are_listed() {
    let scram = [("relay", Mechanism::Scram512), ("reader", Mechanism::Scram256)];
    let Some(broker) = Broker::start(&Role::ALL.map(Role::account), &scram).await else { return };
    for role in Role::ALL {
        broker.grant(role.rights().into_iter().map(|right| (role.account().to_owned(), right)));
    }
    broker.create_topic(PAYMENTS, &[("retention.ms", "-1")]).await;
    let ground = Ground { directory: tempfile::tempdir().expect("a directory"), broker };

    // It writes, and reads read models: Kafka does not see it.
    let mut command =
        ground.command(&["serve", "--only-http", "--listen", "127.0.0.1:0"], Role::Reader, Mechanism::Plain);
    let mut serving = Process(command.stdout(Stdio::piped()).spawn().expect("the program can be started"));
    let mut lines = BufReader::new(serving.0.stdout.take().expect("it is piped")).lines();
    let first = lines.next().expect("it says where").expect("text");
    let url = first.strip_prefix("listening on ").expect("it says where").to_owned();

    let _relay = ground.spawn(&["publish"], Role::Relay, Mechanism::Scram512);
    let _projectors = ground.spawn(&["project"], Role::Reader, Mechanism::Scram256);
    let _saga = ground.spawn(&["saga"], Role::Reader, Mechanism::Scram256);
    let _consumer = ground.spawn(&["consume"], Role::Consumer, Mechanism::Plain);

    let client = reqwest::Client::new();
    let item = json!({ "productId": "PROD-1", "quantity": 1, "price": 5 });
    let order = json!({ "userId": "USR-1", "items": [item], "totalAmount": 5 });
    let placed = client.post(format!("{url}/api/orders?drive=manual")).header("content-type", "application/json");
    let placed = placed.body(order.to_string()).send().await.expect("it answers").text().await.expect("text");
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    let id = placed["orderId"].as_str().expect("it is placed").to_owned();
    tell_payment(&ground.broker, "E-1", &id);

    let began = Instant::now();
    let order = format!("{url}/api/orders/{id}");
    loop {
        let found = get(&client, &order).await.unwrap_or_default();
        let revenue = get(&client, &format!("{url}/api/revenue")).await.unwrap_or_default();
        if found["status"] == "PAYMENT_OK" && revenue["days"][0]["captured"].as_f64() == Some(5.0) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found} {revenue}: see {}", logs(ground.directory.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for command in [["relay", "status"], ["relay", "reconcile"]] {
        let run = ground.command(&command, Role::Operator, Mechanism::Plain).output().expect("it runs");
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(run.status.code(), Some(0), "{told} {}", logs(ground.directory.path()));
    }
    let logs = logs(ground.directory.path());
    assert!(logs.contains("relay publishes") && !logs.contains("geheim"), "{logs}");
}

fn logs(directory: &Path) -> String {
    let files = fs::read_dir(directory).expect("it is ours").map(|file| file.expect("a file").path());
    let logs = files.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    let logs = logs.map(|log| format!("{}:\n{}", log.display(), fs::read_to_string(&log).unwrap_or_default()));
    logs.collect::<Vec<_>>().concat()
}
