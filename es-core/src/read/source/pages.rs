//! Pages of the log that the readers of a source share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::OnceCell;

use super::events::Page;
use crate::{
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
    kept: Mutex<VecDeque<Kept>>,
}

/// A page that several readers may ask for.
#[derive(Debug, Clone)]
struct Kept {
    after: Position,
    limit: usize,
    /// Empty while a first reader reads it; the others wait for that.
    page: Arc<OnceCell<Arc<Page>>>,
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
    pub(super) async fn read(&self, after: Position, limit: usize) -> Result<Arc<Page>, ReadError> {
        if self.readers.load(Ordering::Relaxed) <= 1 {
            return Ok(Page::new(self.store.read_log(after, limit).await?, false));
        }
        let shared = self.shared(after, limit);
        let read = async || self.store.read_log(after, limit).await.map(|events| Page::new(events, true));
        let page = shared.page.get_or_try_init(read).await?.clone();
        if is_last_page(page.events(), limit) {
            self.kept().retain(|kept| !Arc::ptr_eq(&kept.page, &shared.page));
        }
        Ok(page)
    }

    fn shared(&self, after: Position, limit: usize) -> Kept {
        let mut kept = self.kept();
        if let Some(known) = kept.iter().find(|kept| (kept.after, kept.limit) == (after, limit)) {
            return known.clone();
        }
        let new = Kept { after, limit, page: Arc::default() };
        kept.truncate(KEPT - 1);
        kept.push_front(new.clone());
        new
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
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
            pages.shared(Position::new(after), 100);
        }
        let kept = || pages.kept().iter().map(|page| page.after.get()).collect::<Vec<_>>();
        assert_eq!(kept(), [9, 8, 7, 6], "the last ones");
        readers.pop();
        assert_eq!(kept().len(), KEPT, "two readers share them");
        readers.pop();
        assert!(kept().is_empty(), "one reader alone shares with none");
    }
}
