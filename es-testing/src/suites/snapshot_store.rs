//! Snapshot stores.

use bytes::Bytes;
use chrono::DateTime;
use es_core::{
    StreamId, Version,
    backend::{Ending, Snapshot, SnapshotStore},
};
use uuid::Uuid;

/// Tests a snapshot store: `snapshot_store_suite!(async { … })` with an expression that makes an
/// empty store which implements [`SnapshotStore`].
#[macro_export]
macro_rules! snapshot_store_suite {
    ($make:expr) => {
        $crate::__suite! { snapshot_store, $make,
            r8_a_missing_snapshot_is_none
            r8_a_snapshot_comes_back_as_it_was_saved
            r8_the_later_save_wins_with_any_version
        }
    };
}

fn snapshot(id: &str, version: u64, state: &str) -> Snapshot {
    let (event_id, recorded_at) = (Uuid::now_v7(), DateTime::from_timestamp_micros(1_700_000_000_123_456));
    let last = Ending { event_id, recorded_at: recorded_at.filter(|_| version % 2 == 1) };
    Snapshot {
        stream: StreamId::new("suite", id).expect("a valid name"),
        version: Version::new(version),
        last,
        state_version: 3,
        state: Bytes::from(state.to_owned()),
        checksum: 0xfedc_ba98,
    }
}

/// R8
pub async fn r8_a_missing_snapshot_is_none(store: &impl SnapshotStore) {
    store.save_snapshot(snapshot("other", 1, "{}")).await.expect("saved");
    assert_eq!(store.load_snapshot(&snapshot("a", 1, "").stream).await.expect("loaded"), None);
}

/// R8
pub async fn r8_a_snapshot_comes_back_as_it_was_saved(store: &impl SnapshotStore) {
    // The store does not check the state, not even whether it is JSON.
    for state in ["{\"a\": 1}", "not json", "", "ü🦀"] {
        let saved = snapshot("a", 7, state);
        store.save_snapshot(saved.clone()).await.expect("saved");
        assert_eq!(store.load_snapshot(&saved.stream).await.expect("loaded"), Some(saved));
    }
}

/// R8
pub async fn r8_the_later_save_wins_with_any_version(store: &impl SnapshotStore) {
    for version in [5, 9, 2] {
        let saved = snapshot("a", version, "{}");
        store.save_snapshot(saved.clone()).await.expect("saved");
        assert_eq!(store.load_snapshot(&saved.stream).await.expect("loaded"), Some(saved));
    }
}
