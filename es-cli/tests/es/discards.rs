//! That only the letters that were shown are discarded, and only if they were shown.

use std::{io::Read, process::Stdio, time::Duration};

use es_core::{
    Position,
    backend::{Changes, Checkpoint, NewLetter, Shard, Takeover},
};
use serde_json::json;
use uuid::Uuid;

use super::fixture::Place;

const DISCARD: [&str; 5] = ["dead-letters", "discard", "all", "k", "--yes"];
const WHY: [&str; 4] = ["--reason", "ticket 7", "--actor", "ada"];

/// The reader `all` parks the event at `position`.
fn park(place: &Place, position: u64, cause: Option<String>) {
    place.runtime.block_on(async {
        let store = place.store().await;
        let generation = store.generations("all").await.unwrap().serving.unwrap().generation;
        let (log, ttl) = (Shard::whole("log"), Duration::from_mins(1));
        let lease =
            store.acquire(&generation.reader, &log, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
        let event = store.read_log(Position::new(position - 1), 1).await.unwrap().remove(0);
        let checkpoint = Checkpoint { position: event.position, ..Checkpoint::default() };
        let letters = vec![NewLetter { key: "k".to_owned(), event, cause, attempts: 1 }];
        store.commit(&lease, Changes { checkpoint, letters, ..Changes::default() }).await.unwrap();
        store.release(&lease).await.unwrap();
        store.close().await.unwrap();
    });
}

fn letters(place: &Place) -> Vec<serde_json::Value> {
    let letters = place.es(&["dead-letters", "list", "all", "--json"]).json();
    letters.into_iter().map(|letter| letter["position"].clone()).collect()
}

/// Seen to fail where all letters of the key were discarded, also one that came later.
#[test]
fn r22_a_letter_that_was_not_shown_is_not_discarded() {
    let place = Place::on_a_file();
    place.fill();
    // More than a pipe holds: the program waits for its reader before it discards.
    park(&place, 5, Some("x".repeat(200_000)));
    let mut child = place.command().args(DISCARD).args(WHY).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = child.stdout.take().unwrap();
    shown.read_exact(&mut [0; 10]).unwrap();
    park(&place, 6, None);
    shown.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(letters(&place), [json!(6)]);
}

/// Seen to fail where it ended without a word, as if the letters were discarded.
#[test]
fn r22_letters_that_could_not_be_shown_are_not_discarded_and_that_is_told() {
    let place = Place::on_a_file();
    place.fill();
    park(&place, 5, Some("refused".to_owned()));
    let mut discard = place.command();
    let mut child = discard.args(DISCARD).args(WHY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), err.contains("the output cannot be written")), (Some(4), true), "{err}");
    assert_eq!(letters(&place), [json!(5)]);
}
