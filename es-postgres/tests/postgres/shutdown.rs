//! Closing a store (R16).

use std::time::Duration;

use es_core::{AppendError, EventStore, Position};
use es_postgres::CloseError;
use futures_util::future::join_all;

use super::server::{Schema, append, exact, log, soon};

#[tokio::test(flavor = "multi_thread")]
async fn r16_close_finishes_what_is_queued_and_closes_all_connections() {
    let schema = Schema::new();
    let store = schema.options().batch_appends(4).connect().await.unwrap();
    log(&store).await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let appends = (0..10).map(|number| store.append(append(&format!("n{number}"), exact(0), 1)));
    let mut queued = Box::pin(join_all(appends));
    tokio::select! { biased; _ = &mut queued => panic!("the append lock is held"), () = watcher.until_blocked(&schema, 1) => {} }
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    // From some moment on no append is accepted; before that, a caller who goes at once leaves nothing.
    soon(async {
        loop {
            tokio::select! {
                biased;
                outcome = store.append(append("late", exact(0), 1)) => {
                    assert!(matches!(outcome, Err(AppendError::Closed)), "{outcome:?}");
                    break;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    holder.run("COMMIT").await;
    for outcome in soon(queued).await {
        outcome.unwrap();
    }
    soon(closing).await.unwrap().unwrap();
    soon(store.close()).await.unwrap();
    assert!(matches!(store.append(append("late", exact(0), 1)).await, Err(AppendError::Closed)));
    assert!(store.head().await.is_err());
    let gone =
        format!("SELECT (count(*) = 0)::int::bigint FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
    watcher.until(&gone, 1).await;
    assert_eq!(log(&schema.store().await).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_close_ends_in_bounded_time_although_the_append_lock_is_held() {
    let schema = Schema::new();
    let store = schema.options().close_within(Duration::from_millis(100)).connect().await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let mut stuck = Box::pin(store.append(append("stuck", exact(0), 1)));
    tokio::select! { biased; _ = &mut stuck => panic!("the append lock is held"), () = watcher.until_blocked(&schema, 1) => {} }
    assert_eq!(soon(store.close()).await, Err(CloseError::Unfinished));
    assert_eq!(soon(store.close()).await, Ok(()), "closing again does nothing");
    assert!(matches!(soon(stuck).await, Err(AppendError::Store(_))), "its outcome is unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_dropped_store_finishes_what_is_queued() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let mut sent = Box::pin(async move { store.append(append("sent", exact(0), 1)).await });
    tokio::select! { biased; _ = &mut sent => panic!("the append lock is held"), () = watcher.until_blocked(&schema, 1) => {} }
    drop(sent);
    holder.run("COMMIT").await;
    let other = schema.store().await;
    soon(other.wait_past(Position::ZERO)).await.unwrap();
    assert_eq!(log(&other).await, [(1, "sent".into())]);
}
