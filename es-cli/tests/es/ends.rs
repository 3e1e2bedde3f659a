//! How the program ends: exit codes, pipes, wrong arguments.

use std::{io::Read, process::Stdio};

use super::fixture::{Place, es, run};

#[test]
fn wrong_arguments_are_told_and_the_exit_code_is_2() {
    let [place, server] = Place::filled();
    for arguments in [
        &[][..],
        &["stream", "show", "order"],
        &["stream", "show", "Order-1"],
        &["stream", "at", "order-1"],
        &["stream", "at", "order-1", "--version", "1", "--position", "1"],
        &["stream", "at", "order-1", "--time", "yesterday"],
        &["stream", "at", "order-1", "--version", "-1"],
        &["streams", "--category", "Order"],
        &["streams", "--prefix", "a", "--category", "b"],
        &["log", "tail", "--from", "1", "-n", "1"],
        &["rebuild"],
        &["completions", "brainfuck"],
    ] {
        let run = place.es(arguments);
        assert_eq!((run.code, run.err.is_empty()), (2, false), "{arguments:?}: {}", run.err);
    }
    // It would fail with "the id is empty".
    let stream = place.es(&["stream", "show", "order"]);
    assert!(stream.err.contains("<category>-<id>, for example order-17"), "{}", stream.err);
    for (url, says) in [
        ("orders.db", "sqlite:path"),
        ("mysql://host/db", "sqlite:path"),
        ("sqlite:", "sqlite:path"),
        ("sqlite:a.db?mode=rw", "without parameters"),
        ("postgres://host:port/db", "postgres://user@host/database"),
    ] {
        let run = run(es().args(["readers", "--url", url]));
        assert_eq!((run.code, run.err.contains(says)), (2, true), "{url}: {}", run.err);
    }
    let none = run(es().arg("readers"));
    assert_eq!((none.code, none.err.contains("ES_URL")), (2, true), "{}", none.err);
    let schema = run(place.command().args(["readers", "--schema", "a"]));
    assert_eq!((schema.code, schema.err.contains("--schema")), (2, true), "{}", schema.err);
    let schema = run(server.command().args(["readers", "--schema", "No good"]));
    assert_eq!(schema.code, 2, "{}", schema.err);
}

#[test]
fn a_store_that_cannot_be_reached_is_told_and_the_exit_code_is_3() {
    let file = Place::on_a_file();
    let refused = "postgres://ada:geheim@127.0.0.1:1/db";
    let urls = [&*file.url, "sqlite:/missing/directory/events.db", refused];
    for url in urls {
        for command in ["readers", "doctor"] {
            let run = run(es().args([command, "--url", url]));
            assert_eq!((run.code, run.err.contains("what to do: ")), (3, true), "{url}: {}", run.err);
            assert!(!run.err.contains("geheim"), "{}", run.err);
        }
    }
    assert!(!file.directory.path().join("events.db").exists(), "looking creates no file");
}

#[test]
fn a_store_that_does_not_fit_is_told_and_the_exit_code_is_4() {
    let file = Place::on_a_file();
    std::fs::write(file.directory.path().join("events.db"), "once upon a time ".repeat(100)).unwrap();
    for place in [file, Place::on_a_server()] {
        let run = place.es(&["streams"]);
        assert_eq!((run.code, run.err.contains("what to do: ")), (4, true), "{}", run.err);
    }
}

#[test]
fn migrate_creates_what_is_missing_and_changes_nothing_again() {
    for place in [Place::on_a_file(), Place::on_a_server()] {
        let first = place.es(&["migrate", "--json"]).json();
        assert!(first[0]["created"] == true || first[0]["applied"][0] == 1, "{first:?}");
        assert_eq!(place.es(&["migrate", "--json"]).json()[0], serde_json::json!({"created": false, "applied": []}));
        assert!(place.es(&["migrate"]).out.contains("up to date"));
        assert_eq!(place.es(&["streams", "--json"]).json(), [0; 0]);
    }
}

/// `head` closes its end of the pipe when it has enough.
#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let [place, _] = Place::filled();
    place.runtime.block_on(async {
        let store = place.store().await;
        // More than a pipe holds, and than is printed at once.
        let data = es_core::EventData {
            name: "order.noted".into(),
            schema_version: 1,
            payload: format!("\"{}\"", "x".repeat(100_000)).into(),
        };
        for _ in 0..30 {
            let events = vec![es_core::NewEvent::new(data.clone())];
            let append = es_core::Append::new("order-1".parse().unwrap(), es_core::Expected::Any, events);
            store.append(append).await.unwrap();
        }
        store.close().await.unwrap();
    });
    for arguments in [&["log", "tail", "--from", "1", "--data"][..], &["stream", "show", "order-1", "--data", "--json"]]
    {
        let mut child = place.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut [0; 10]).unwrap();
        drop(pipe);
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), &*String::from_utf8_lossy(&ended.stderr)), (Some(0), ""), "{arguments:?}");
    }
    // The other programs of the shell may be gone before the first byte.
    for arguments in [&["--help"][..], &["completions", "bash"], &["man"], &["readers"]] {
        let mut child = place.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), &*String::from_utf8_lossy(&ended.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

/// What cannot be written for another reason is an error.
#[test]
#[cfg(target_os = "linux")]
fn an_output_that_cannot_be_written_is_told_and_the_exit_code_is_4() {
    let [place, _] = Place::filled();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = place.command().arg("streams").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), err.contains("the output cannot be written")), (Some(4), true), "{err}");
}
