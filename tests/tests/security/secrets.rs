//! No password of a database or of Kafka is printed: with every line of every log, whatever fails.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

/// Every password of these tests.
const SECRET: &str = "geheim";

/// The order service in `directory`, which logs everything.
fn program(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(arguments).current_dir(directory).env("RUST_LOG", "trace").stdin(Stdio::null());
    command
}

fn told(output: &Output) -> String {
    let told = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(!told.contains(SECRET), "{told}");
    told
}

fn properties(directory: &Path, lines: &str) -> String {
    let file = directory.join("client.properties");
    fs::write(&file, lines).expect("the directory is ours");
    file.to_string_lossy().into_owned()
}

/// The driver logs each parameter that it does not know with its value: `sslpassword` is one.
#[test]
fn r14_no_log_and_no_error_shows_the_password_of_a_database() {
    let directory = tempfile::tempdir().expect("a directory");
    for (url, says) in [
        ("postgres://orders:geheim@127.0.0.1:1/shop?sslpassword=geheim", "cannot connect"),
        ("postgres://orders:geheim@127.0.0.1:port/shop", "is not understood"),
        ("postgres://orders:gehe/geheim@127.0.0.1/shop", "is not understood"),
        ("postgres://orders:1#geheim@127.0.0.1/shop", "cannot connect"),
        ("postgres://orders:1?geheim@127.0.0.1/shop", "cannot connect"),
        ("geheim", "is not understood"),
    ] {
        let run = program(directory.path(), &["readers"]).env("ORDER_SERVICE_STORE", url).output().expect("it runs");
        assert!(!run.status.success());
        let told = told(&run);
        assert!(told.contains(says), "{url}: {told}");
    }
}

#[test]
fn r14_no_error_shows_the_properties_of_kafka_clients() {
    let directory = tempfile::tempdir().expect("a directory");
    for (lines, says) in [
        ("bootstrap.servers=127.0.0.1:1\nsasl.password geheim\n", "line 2 is no property"),
        ("sasl.password=geheim\n", "there is no Kafka"),
        ("bootstrap.servers=127.0.0.1:1\nsasl.pasword=geheim\n", "sasl.pasword"),
        // As the clients of Java have it.
        (
            "bootstrap.servers=127.0.0.1:1\nsasl.jaas.config=…PlainLoginModule required password=\"geheim\";\n",
            "sasl.jaas.config",
        ),
        ("bootstrap.servers=127.0.0.1:1\nsecurity.protocol=SSL\nssl.key.pem=geheim\n", "ssl.key.pem"),
        ("bootstrap.servers=127.0.0.1:1\nsecurity.protocol=geheim_\n", "security.protocol"),
    ] {
        let file = properties(directory.path(), lines);
        let run = program(directory.path(), &["publish", "--kafka-settings", &file]).output().expect("it runs");
        assert!(!run.status.success());
        let told = told(&run);
        assert!(told.contains(says), "{lines}: {told}");
    }
}

#[test]
fn r14_no_log_shows_the_properties_of_kafka_clients() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = properties(
        directory.path(),
        "bootstrap.servers=127.0.0.1:1\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=orders\ndebug=all\n",
    );
    let mut program = program(directory.path(), &["publish", "--kafka-settings", &file]);
    let variables = [("ORDER_SERVICE_KAFKA_SASL_PASSWORD", SECRET), ("ORDER_SERVICE_KAFKA_SSL_KEY_PASSWORD", SECRET)];
    let mut running = program.envs(variables).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(running.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut errors = 0;
    for line in lines {
        assert!(!line.contains(SECRET), "{line}");
        errors += usize::from(line.contains("relay starts again"));
        if errors == 1 {
            break;
        }
    }
    running.kill().expect("it is ours");
    running.wait().expect("it is ours");
    assert_eq!(errors, 1, "it has tried and failed");
}
