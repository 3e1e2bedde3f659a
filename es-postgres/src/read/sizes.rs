//! How large the events of the log are, as far as this process has read them.

use std::sync::atomic::{AtomicUsize, Ordering};

use es_core::backend::PAGE_BYTES;

/// What the pages that were read last tell of the next one.
#[derive(Debug, Default)]
pub(crate) struct Sizes(AtomicUsize);

/// About how many bytes the payload of an event has, but not less than it was; 0 where that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size(usize);

impl Sizes {
    /// Until it is [put](Self::put) back it is not known: if a read fails because the events are larger, the next one knows nothing.
    pub(crate) fn take(&self) -> Size {
        Size(self.0.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn put(&self, Size(bytes): Size) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl Size {
    /// Whether so many events are far from filling a page.
    pub(crate) fn are_small(self, events: usize) -> bool {
        self.0 > 0 && self.0.saturating_mul(events) <= PAGE_BYTES / 2
    }

    /// After a page of so many events, whose payloads have so many bytes. Large ones are remembered for some pages.
    pub(crate) fn after(self, events: usize, bytes: usize) -> Self {
        bytes.checked_div(events).map_or(self, |mean| Self((mean + 1).max(self.0 - self.0 / 8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_small_where_the_last_pages_have_shown_that() {
        let sizes = Sizes::default();
        assert!(!sizes.take().are_small(1), "nothing is known");
        sizes.put(Size::default().after(100, 20_000));
        let size = sizes.take();
        assert!(size.are_small(4_000) && !size.are_small(50_000));
        assert!(!sizes.take().are_small(1), "a read that has failed puts nothing back");
        let large = size.after(10, 10 * 8_000);
        assert!(!large.after(100, 20_000).are_small(4_000), "large ones are remembered");
        let later = (0..20).fold(large, |size, _| size.after(100, 20_000));
        assert!(later.are_small(4_000), "for some pages");
        assert_eq!(later.after(0, 0), later, "an empty page tells nothing");
    }
}
