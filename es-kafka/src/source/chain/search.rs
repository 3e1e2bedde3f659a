//! Among what is known: the first event that is new is looked for.

use es_core::backend::SourceError;
use rdkafka::Message;

use super::Chain;
use crate::{record::Heading, source::mark::Mark, weight::weight};

impl Chain {
    pub(super) fn is_searching(&self) -> bool {
        self.begin.search_until > 0
    }

    /// Among what is known: looks for the first event that is new. A record that cannot be read, or does
    /// not fit, does not matter as long as a later record has a known predecessor.
    pub(super) fn search(
        &mut self,
        record: &impl Message,
        heading: Result<Heading, String>,
    ) -> Result<(), SourceError> {
        let offset = record.offset();
        let heading = match heading {
            Ok(heading) => heading,
            Err(reason) => {
                let place = self.place(offset);
                self.doubt.get_or_insert((None, SourceError::Damaged { place, reason }));
                return Ok(());
            }
        };
        if self.tip.is_some_and(|tip| tip.position == heading.previous) {
            self.begin.search_until = 0;
            let event = self.accept(record, heading).map_err(|error| self.withhold(offset, error))?;
            self.keep(offset, event);
        } else if heading.position <= self.mark.position || heading.previous <= self.mark.position {
            self.reject_tip();
            self.doubt = None;
            match self.accept(record, heading) {
                Ok(event) => self.keep(offset, event),
                // A payload that cannot be had may be that of a foreign record.
                Err(error @ (SourceError::Damaged { .. } | SourceError::Refused { .. })) => {
                    self.doubt = Some((Some(heading.position), error));
                }
                Err(error) => return Err(error),
            }
        } else {
            let continued = self.doubt.as_ref().is_some_and(|(doubted, _)| *doubted == Some(heading.previous));
            let gap = self.gap(offset, heading);
            let (_, error) = self.doubt.take().unwrap_or((None, gap));
            if continued {
                return Err(error);
            }
            self.doubt = Some((Some(heading.position), error));
        }
        Ok(())
    }

    /// Whether a record names an event that is known as the one before it, and not `tip`.
    pub(super) fn passes_over(&self, tip: Mark, heading: &Heading) -> bool {
        tip.position != heading.previous && heading.previous <= self.mark.position
    }

    /// Whether it has read more of what is known since the last call. Nothing is handed on meanwhile, which
    /// may take long, and yet the partition does not stand still.
    pub(crate) fn passes(&mut self) -> bool {
        let before = std::mem::replace(&mut self.passed, self.next);
        self.is_searching() && self.next > before
    }

    /// Forgets the last event: the record after it shows that the relay did not write it.
    pub(super) fn reject_tip(&mut self) {
        if self.tip.take().is_some()
            && let Some((offset, event)) = self.buffer.pop_back()
        {
            self.bytes -= weight(&event);
            self.uncovered_since = None;
            tracing::warn!(place = self.place(offset), position = %event.position, "passed a foreign record");
        }
    }
}
