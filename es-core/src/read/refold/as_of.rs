//! A document as of a moment.

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{PAGE, Refold, RefoldError, exceptions_of};
use crate::{
    counted::counted,
    event::{Categories, EventSet, RecordedEvent},
    read::{
        projection::{EventOrder, Projection},
        read_model::ReadModelStore,
    },
    stream::{Position, StreamId, Version},
    write::store::{EventStore, is_last_page},
};

/// A moment in the history of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The end of the log.
    Now,
    /// After the event at this position of the log.
    Position(Position),
    /// After the event with this version, of the one stream that feeds the document
    /// ([`EventOrder::PerStream`]).
    Version(Version),
    /// Before the first event that was recorded after this time, by the clock of the store.
    Time(DateTime<Utc>),
}

impl Moment {
    pub(crate) fn holds(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Now => true,
            Self::Position(position) => event.position <= position,
            Self::Version(version) => event.version <= version,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

/// A document as of a moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DocumentAsOf {
    /// Its JSON; `None` if there was no document then.
    pub document: Option<Bytes>,
    /// Of how many events it is the fold.
    pub events: u64,
    /// The position of the last of these.
    pub position: Position,
    /// Its first event up to the moment that waits: from there on its key is parked, or the reader has stopped.
    pub waits_at: Option<Position>,
}

impl fmt::Debug for DocumentAsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A document may be large, or hold personal data.
        write!(f, "{} up to position {}", counted(self.events, "event"), self.position)
    }
}

/// The document under `key` as of `moment`, as its reader folds it. In per-stream order it reads only the stream, otherwise the whole log.
pub(crate) async fn as_of<P: Projection>(
    projection: &P,
    log: &dyn EventStore,
    store: &dyn ReadModelStore,
    key: &str,
    moment: Moment,
) -> Result<DocumentAsOf, RefoldError> {
    let stream = match (P::ORDER, P::Event::categories()) {
        (EventOrder::PerStream, Categories::Only(names)) if names.len() == 1 => match StreamId::new(names[0], key) {
            Ok(stream) => Some(stream),
            Err(_) => return Ok(DocumentAsOf::default()),
        },
        _ if matches!(moment, Moment::Version(_)) => return Err(RefoldError::NoVersions { name: P::NAME }),
        _ => None,
    };
    if let Moment::Position(position) = moment {
        let head = log.head().await?;
        if position > head {
            return Err(RefoldError::NoSuchPosition { position, head });
        }
    }
    let exceptions = exceptions_of::<P>(store).await?;
    let mut refold = Refold::new(projection, log, |found| found == key).with(exceptions);
    let (mut at, mut version) = (Position::ZERO, Version::ZERO);
    let mut found = DocumentAsOf::default();
    loop {
        let events = match &stream {
            Some(stream) => log.read_stream(stream, version, PAGE).await?,
            None => log.read_log(at, PAGE).await?,
        };
        let ends = events.iter().position(|event| !moment.holds(event));
        for event in &events[..ends.unwrap_or(events.len())] {
            let mut count = 0;
            refold.fold(event, &mut |_, _| count += 1)?;
            if count > 0 {
                (found.events, found.position) = (found.events + count, event.position);
            }
            (at, version) = (event.position, event.version);
        }
        if ends.is_some() || is_last_page(&events, PAGE) {
            break;
        }
        tokio::task::yield_now().await;
    }
    if let Moment::Version(wanted) = moment
        && version < wanted
    {
        let (key, version, found) = (key.to_owned(), wanted.get(), version.get());
        return Err(RefoldError::NoSuchVersion { key, version, found });
    }
    found.document = refold.encoded(key)?;
    found.waits_at = refold.waiting.get(key).copied();
    Ok(found)
}
