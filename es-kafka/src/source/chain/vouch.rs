//! What was read is compared with what the relay says that it has written.

use std::time::{Duration, Instant};

use es_core::backend::SourceError;

use super::Chain;
use crate::{
    progress::Progress,
    source::mark::{Mark, Written},
};

/// How long an event of which no progress speaks yet may wait for one before the progress is looked up.
const UNCOVERED: Duration = Duration::from_secs(2);

impl Chain {
    /// Compares what was read with what the relay says that it has written.
    pub(crate) fn check(&mut self, written: Written) -> Result<(), SourceError> {
        let Some(next) = written.next else { return Ok(()) };
        if let (Some(tip), Some((offset, _))) = (self.tip, self.buffer.back()) {
            let offset = *offset;
            if offset + 1 == next && tip.position == written.last {
                (self.mark, self.tip, self.uncovered_since) = (tip, None, None);
                self.begin.search_until = 0;
            } else if offset + 1 == next || (offset >= next && tip.position <= written.published.position) {
                let (position, last) = (tip.position, written.last);
                self.refuse_tip(offset, format!("it claims position {position}, and the last one is {last}"))?;
            } else if offset >= next {
                self.uncovered_since.get_or_insert_with(Instant::now);
            }
        }
        let reached = self.tip.unwrap_or(self.mark).position;
        if self.next >= next && written.last > reached {
            let reason = format!("the relay's last event there has position {}, and {reached} was read", written.last);
            let place = self.place(next);
            let missing = if self.begin.truncated && self.seen.is_none() {
                SourceError::Expired { place }
            } else {
                SourceError::Missing { place, reason }
            };
            return Err(self.doubt.take().map_or(missing, |(_, error)| error));
        }
        Ok(())
    }

    /// The offset of an event that has waited for a while for a progress that speaks of it.
    pub(crate) fn uncovered(&self) -> Option<i64> {
        let since = self.uncovered_since?;
        let (offset, _) = self.buffer.back()?;
        (since.elapsed() >= UNCOVERED).then_some(*offset)
    }

    /// The progress was looked up: it speaks of the event, or the event is foreign.
    pub(crate) fn cover(&mut self, offset: i64, progress: Option<&Progress>) -> Result<(), SourceError> {
        if Written::of(progress, true, &self.topic, self.partition).next.is_some_and(|next| next > offset) {
            self.uncovered_since = None;
            return Ok(());
        }
        let position = progress.map(|progress| progress.position).unwrap_or_default();
        self.refuse_tip(offset, format!("it lies beyond the relay's progress, which is position {position}"))
    }

    /// The relay did not write the last event. Among what is known that is no matter.
    fn refuse_tip(&mut self, offset: i64, reason: String) -> Result<(), SourceError> {
        if offset < self.begin.search_until {
            self.reject_tip();
            return Ok(());
        }
        Err(self.foreign(offset, reason))
    }

    /// Whether everything that the relay has written to the partition is read, its last event too: a foreign
    /// record may have taken the place of that one.
    pub(crate) fn is_complete(&self, written: Written) -> bool {
        let has_last = written.last <= self.mark.position || self.tip.is_some_and(|tip| tip.position == written.last);
        has_last && written.next.is_some_and(|next| self.next >= next)
    }

    /// Up to where nothing of this partition is missing: the last event for which the relay has vouched, or
    /// everything that it has published, when all that it wrote to this partition is read.
    pub(crate) fn complete(&self, written: Written) -> Mark {
        if self.is_complete(written) { written.published } else { self.mark }
    }

    /// How many events may be handed on: the relay has vouched for them, and its progress speaks of them.
    pub(crate) fn ready(&self, written: Written) -> usize {
        let Some(next) = written.next else { return 0 };
        let covered = self.buffer.partition_point(|(offset, _)| *offset < next);
        covered.min(self.buffer.len() - usize::from(self.tip.is_some()))
    }
}
