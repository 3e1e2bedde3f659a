//! The shell sessions of the README, in `bash`, with what the README says that they print.

use std::{net::TcpListener, path::Path, process::Stdio};

use tokio::process::Command;

/// Stands between the outputs of two commands.
const END: &str = "-- end of a command --";

/// `cargo run` is this program, and `cargo xtask` the one beside it. In a shell of its own it takes the shell's place, so that a signal
/// to the job reaches it.
const PRELUDE: &str = r#"
cargo() {
    if [ "$1" = xtask ]; then
        set -- "$(dirname "$ORDER_SERVICE")/$@" --program "$ORDER_SERVICE" --listen "$ORDER_SERVICE_LISTEN"
    else
        while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
        set -- "$ORDER_SERVICE" "${@:2}"
    fi
    [ $BASHPID = $$ ] || exec "$@"
    "$@"
}
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
"#;

/// A command, and what it prints.
struct Step {
    command: String,
    prints: Vec<String>,
}

/// The sessions under one heading, as one.
fn session(heading: &str) -> Vec<Step> {
    let readme = include_str!("../../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), prints: Vec::new() }),
            (None, Some(step)) if !is_whole(&step.command) => {
                step.command.push('\n');
                step.command.push_str(line);
            }
            (None, Some(step)) => step.prints.push(line.to_owned()),
            (None, None) => panic!("no command prints {line:?}"),
        }
    }
    assert!(!steps.is_empty(), "{heading}");
    steps
}

/// Whether the command does not go on in the next line.
fn is_whole(command: &str) -> bool {
    let checked = std::process::Command::new("bash").args(["-nc", command]).stderr(Stdio::null()).status();
    checked.unwrap().success()
}

/// What differs from run to run is left out: ids of orders, tokens, and the date.
fn stable(line: &str) -> String {
    let line = match line.split_once("\"token\":\"p") {
        Some((before, token)) => &format!("{before}…{}", token.trim_start_matches(|char: char| char.is_ascii_digit())),
        None => line,
    };
    let mut parts = line.split("ORD-");
    let first = parts.next().unwrap_or_default().to_owned();
    let line =
        parts.fold(first, |text, part| text + "ORD-…" + part.trim_start_matches(|char: char| char.is_ascii_hexdigit()));
    let is_date = |word: &str| word.trim_matches('"').parse::<chrono::NaiveDate>().is_ok();
    line.split(' ').map(|word| if is_date(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

async fn run(steps: &[Step], directory: &Path, environment: &[(&str, String)]) {
    // Bound both at once, so that they differ.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = listeners.map(|listener| listener.local_addr().unwrap().port().to_string());
    let end = format!("\necho '{END}'\n");
    let commands = steps.iter().flat_map(|step| [&*step.command, &*end]).collect::<String>();
    let commands = commands.replace("8080", &first).replace("8081", &second);
    // `timeout` ends all processes of the session, should one of its commands wait for ever.
    let output = Command::new("timeout")
        .args(["300", "bash", "-c", &format!("{PRELUDE}{commands}")])
        .current_dir(directory)
        .env("ORDER_SERVICE", env!("CARGO_BIN_EXE_order-service"))
        .env("ORDER_SERVICE_LISTEN", format!("127.0.0.1:{first}"))
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    // What ends without a line feed is followed by the end on the same line.
    let printed = printed.replace(END, &format!("\n{END}\n"));
    let mut printed = printed.split(END);
    for Step { command, prints } in steps {
        let got = printed.next().unwrap_or_default().lines().filter(|line| !line.is_empty()).map(stable);
        let expected = prints.iter().map(|line| stable(line));
        assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "$ {command}\n{errors}");
    }
}

#[tokio::test]
async fn the_walk() {
    let directory = tempfile::tempdir().unwrap();
    let mut steps = session("A walk");
    steps.extend(session("Step by step"));
    run(&steps, directory.path(), &[]).await;
}

#[tokio::test]
async fn what_can_fail() {
    let directory = tempfile::tempdir().unwrap();
    run(&session("What can fail"), directory.path(), &[]).await;
}

#[tokio::test]
async fn a_poison_event_is_parked_repaired_and_replayed_and_a_read_model_changes_without_downtime() {
    let directory = tempfile::tempdir().unwrap();
    let mut steps = session("A poison event");
    steps.extend(session("A read model changes"));
    run(&steps, directory.path(), &[]).await;
}

/// On the servers of the tests, in a schema and with topics of its own. The program `xtask` is there when it runs the tests.
#[cfg(feature = "kafka")]
#[tokio::test]
async fn a_shop_of_processes_with_a_payment_provider_is_scaled() {
    let server = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"));
    let directory = tempfile::tempdir().unwrap();
    let own = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
    let database = server("DATABASE_URL");
    let separator = if database.contains('?') { '&' } else { '?' };
    let environment = [
        ("DATABASE_URL", format!("{database}{separator}schema={own}")),
        ("KAFKA_BROKERS", server("KAFKA_BROKERS")),
        ("ORDER_SERVICE_TOPIC_PREFIX", format!("{own}-")),
        ("ORDER_SERVICE_PAYMENTS_TOPIC", format!("{own}-payments")),
        ("ORDER_SERVICE_MESSAGES", directory.path().join("messages.jsonl").display().to_string()),
    ];
    run(&session("A shop of processes"), directory.path(), &environment).await;
}
