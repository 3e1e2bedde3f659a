//! The chunks of an import, one after the other.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    chunk::Chunk,
    outcome::{ImportFailure, ImportProgress},
    streams::Versions,
};
use crate::store::Inner;

/// Writes the chunks that come through `full` and sends them back empty, until there are no more; tells
/// how far it came in any case.
pub(super) async fn write_all(
    inner: Arc<Inner>,
    name: String,
    mut progress: ImportProgress,
    mut full: mpsc::Receiver<Chunk>,
    empty: mpsc::Sender<Chunk>,
) -> (ImportProgress, Result<(), ImportFailure>) {
    let mut outcome = Ok(());
    let mut versions = Versions::default();
    while let Some(mut chunk) = full.recv().await {
        match inner.imports.write(&name, &progress, &mut chunk, &mut versions).await {
            Ok(position) => {
                progress.events += chunk.events() as u64;
                progress.position = position;
                progress.last = chunk.last();
                // Projectors of this process wake at once.
                inner.head.known.raise(position);
                // Where the history has ended the chunk is not taken.
                let _ = empty.send(chunk).await;
            }
            Err(failure) => {
                outcome = Err(failure);
                break;
            }
        }
    }
    inner.imports.rest().await;
    (progress, outcome)
}
