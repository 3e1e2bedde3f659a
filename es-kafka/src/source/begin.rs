//! Where reading a partition begins.

use std::time::{Duration, Instant};

use es_core::{Position, backend::SourceError};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    client::{Quiet, unavailable},
    record::place_of,
    source::mark::{Mark, Written},
};

/// How long a question to the broker may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where a partition is read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    /// The first offset.
    pub(crate) offset: i64,
    /// Below this offset lies what is known, and with it records that need not be readable: they are
    /// passed until the first event that is new.
    pub(crate) search_until: i64,
    /// Whether the records before `offset` are deleted.
    pub(crate) truncated: bool,
    /// What lies below this offset need not be read again: the checkpoint's cursor.
    pub(crate) floor: i64,
}

/// Where to read everything after `mark`, checked against what the partition holds.
///
/// With a cursor (an offset of this filling of the topic) it is one record early, to see which event is
/// there. Without one, as after a rebuild from the log, reading begins after the relay's last event where
/// that is known already, and else at the first record: what is known is passed by its position.
///
/// `observer` makes a client beside `consumer`, which looks at what is not decided yet.
pub(crate) fn begin<C: ConsumerContext>(
    (consumer, observer): (&BaseConsumer<C>, &ClientConfig),
    (topic, partition): (&str, i32),
    cursor: Option<i64>,
    mark: Mark,
    written: Written,
) -> Result<Begin, SourceError> {
    let needed = cursor.unwrap_or(0).max(written.next.unwrap_or(0));
    let (low, high) = watermarks(consumer, topic, partition, needed)?;
    if needed > high {
        if needed <= end(observer, topic, partition)? {
            // It is all there. A coordinator that failed has not told this partition yet what became of a
            // transaction, or another writer's transaction is open.
            let place = place_of(topic, partition, high);
            return Err(SourceError::Unavailable(format!("a transaction is undecided at {place}").into()));
        }
        // Shorter than what was read from it or written to it: it was deleted and created again.
        let place = place_of(topic, partition, high);
        return Err(SourceError::Missing {
            place,
            reason: format!("the partition ends here, and not at offset {needed}"),
        });
    }
    let known = written.next.filter(|next| *next > 0 && written.last <= mark.position);
    let (wanted, search_until) = match (cursor, known) {
        (Some(cursor), _) => (cursor - 1, cursor),
        (None, Some(next)) => (next - 1, high),
        (None, None) => (0, if mark.position == Position::ZERO { 0 } else { high }),
    };
    Ok(Begin { offset: wanted.max(low), search_until, truncated: low > 0 && wanted < low, floor: cursor.unwrap_or(0) })
}

/// A partition was asked for an offset that it did not hold, and now it does. librdkafka has stopped
/// reading that partition nevertheless: only a new consumer continues.
pub(crate) fn was_out_of_range() -> SourceError {
    SourceError::Unavailable("a partition did not hold the offset that was asked for, and holds it now".into())
}

/// The offset after the last record, committed or not.
pub(crate) fn end(observer: &ClientConfig, topic: &str, partition: i32) -> Result<i64, SourceError> {
    let mut config = observer.clone();
    let client: BaseConsumer<Quiet> =
        config.set("isolation.level", "read_uncommitted").create_with_context(Quiet).map_err(unavailable)?;
    Ok(client.fetch_watermarks(topic, partition, PATIENCE).map_err(unavailable)?.1)
}

/// The first offset, and the one after the last committed record. That may lie before `needed` for a
/// moment: the markers of one transaction reach its partitions at different times.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    needed: i64,
) -> Result<(i64, i64), SourceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok((_, high)) if high < needed && Instant::now() < deadline => {}
            Ok(watermarks) => return Ok(watermarks),
            // Not every broker knows a new topic at once.
            Err(error) if is_unknown(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(unavailable(error)),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::LeaderNotAvailable)
    )
}
