//! Pages of the log that the readers of a source share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::OnceCell;

use crate::{
    event::RecordedEvent,
    stream::Position,
    write::store::{EventStore, ReadError, is_last_page},
};

/// How many pages are kept for readers that are a little behind. A page has at most 8 MiB of payload, and in most logs a
/// fraction of that.
const KEPT: usize = 4;

/// The log, read in pages. Where several readers ask for the same page at about the same time, it is read once.
///
/// The end of the log is not kept: the next reader may find more there.
#[derive(Debug)]
pub(super) struct Pages {
    store: Arc<dyn EventStore>,
    readers: AtomicUsize,
    kept: Mutex<VecDeque<Page>>,
}

#[derive(Debug, Clone)]
struct Page {
    after: Position,
    limit: usize,
    /// Empty while a first reader reads it; the others wait for that.
    events: Arc<OnceCell<Arc<[RecordedEvent]>>>,
}

impl Pages {
    pub(super) fn of(store: Arc<dyn EventStore>) -> Self {
        Self { store, readers: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Adds a reader, until it is dropped.
    pub(super) fn join(pages: &Arc<Self>) -> Sharer {
        pages.readers.fetch_add(1, Ordering::Relaxed);
        Sharer(pages.clone())
    }

    /// As [`EventStore::read_log`].
    pub(super) async fn read(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        if self.readers.load(Ordering::Relaxed) <= 1 {
            return self.store.read_log(after, limit).await;
        }
        let page = self.page(after, limit);
        let read = async || self.store.read_log(after, limit).await.map(Arc::from);
        let events = page.events.get_or_try_init(read).await?.clone();
        if is_last_page(&events, limit) {
            self.kept().retain(|kept| !Arc::ptr_eq(&kept.events, &page.events));
        }
        Ok(events.to_vec())
    }

    fn page(&self, after: Position, limit: usize) -> Page {
        let mut kept = self.kept();
        if let Some(page) = kept.iter().find(|page| (page.after, page.limit) == (after, limit)) {
            return page.clone();
        }
        let page = Page { after, limit, events: Arc::default() };
        kept.truncate(KEPT - 1);
        kept.push_front(page.clone());
        page
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Page>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the readers that share the pages.
#[derive(Debug)]
pub(super) struct Sharer(Arc<Pages>);

impl Sharer {
    pub(super) fn pages(&self) -> Arc<Pages> {
        self.0.clone()
    }

    pub(super) fn store(&self) -> &dyn EventStore {
        &*self.0.store
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::Relaxed) <= 2 {
            self.0.kept().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[test]
    fn a_few_pages_are_kept_while_they_are_shared() {
        let pages = Arc::new(Pages::of(Arc::new(MemoryStore::new())));
        let mut readers: Vec<_> = (0..3).map(|_| Pages::join(&pages)).collect();
        for after in 0..10 {
            pages.page(Position::new(after), 100);
        }
        let kept = || pages.kept().iter().map(|page| page.after.get()).collect::<Vec<_>>();
        assert_eq!(kept(), [9, 8, 7, 6], "the last ones");
        readers.pop();
        assert_eq!(kept().len(), KEPT, "two readers share them");
        readers.pop();
        assert!(kept().is_empty(), "one reader alone shares with none");
    }
}
