//! Messages of other systems that readers have handled.

use std::time::Duration;

use chrono::Utc;
use es_core::backend::{INBOX_FORGETS, Inbox};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::{log::rows_limit, packed::json};

/// Those of `messages` that `reader` has handled.
pub(crate) async fn handled(
    connection: &mut SqliteConnection,
    reader: i64,
    messages: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/handled.sql")).bind(reader).bind(json(&hex(messages)));
    query.fetch_all(connection).await
}

/// Notes what was handled and forgets what is too old; returns whether none of it was known. The caller's transaction also moves the
/// checkpoint.
pub(crate) async fn note(
    connection: &mut SqliteConnection,
    reader: i64,
    Inbox { handled, keep_for }: &Inbox,
) -> Result<bool, sqlx::Error> {
    let now = Utc::now().timestamp_micros();
    let keep_for = i64::try_from(Duration::as_micros(keep_for)).unwrap_or(i64::MAX);
    let query = sqlx::query(include_str!("sql/forget_handled.sql")).bind(reader);
    let query = query.bind(now.saturating_sub(keep_for)).bind(rows_limit(INBOX_FORGETS));
    query.execute(&mut *connection).await?;
    let query = sqlx::query(include_str!("sql/add_handled.sql")).bind(reader).bind(json(&hex(handled))).bind(now);
    let added = query.execute(connection).await?.rows_affected();
    Ok(usize::try_from(added) == Ok(handled.len()))
}

fn hex(messages: &[Uuid]) -> Vec<String> {
    messages.iter().map(|message| message.simple().to_string()).collect()
}
