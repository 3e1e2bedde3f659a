//! Where reading a partition of another system begins.

use es_core::backend::{Checkpoint, SourceError};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
};

use super::declared::{Declared, TopicStart};
use crate::{
    client::unavailable,
    record::place_of,
    source::begin::{PATIENCE, end, watermarks},
};

/// The offset after `checkpoint`, or the declared one if there is none. A partition that `is_added` since the consumer began is read
/// from its first record, and so is a retry topic.
pub(super) fn begin<C: ConsumerContext>(
    (consumer, observer): (&BaseConsumer<C>, &ClientConfig),
    declared: &Declared,
    (topic, partition): (&str, i32),
    checkpoint: &Checkpoint,
    (is_added, is_retry): (bool, bool),
) -> Result<i64, SourceError> {
    let position = i64::try_from(checkpoint.position.get()).unwrap_or(i64::MAX);
    let unfit = |reason| SourceError::Unfit { place: format!("{topic}/{partition}"), reason };
    let Some(cursor) = &checkpoint.cursor else {
        if position > 0 {
            return Err(unfit("the checkpoint is that of another source: give the consumer another name".to_owned()));
        }
        let (low, high) = watermarks(consumer, topic, partition, 0)?;
        if is_retry && low > 0 {
            // As for a consumer that is new. Another one has its checkpoint from before it forwards anything.
            tracing::warn!(
                topic,
                partition,
                to = low,
                "records were deleted before this consumer began to read the topic"
            );
        }
        return match declared.start {
            _ if is_retry => Ok(low),
            TopicStart::End if !is_added => Ok(high),
            TopicStart::Since(time) => {
                let mut times = TopicPartitionList::new();
                let millis = time.timestamp_millis().max(0);
                times.add_partition_offset(topic, partition, Offset::Offset(millis)).map_err(unavailable)?;
                let found = consumer.offsets_for_times(times, PATIENCE).map_err(unavailable)?;
                let found = found.find_partition(topic, partition).map(|found| found.offset());
                Ok(if let Some(Offset::Offset(offset)) = found { offset } else { high })
            }
            _ => Ok(low),
        };
    };
    let cursor: i64 = cursor.parse().map_err(|_| unfit("the cursor of its checkpoint is no offset".to_owned()))?;
    // Within a batch the position goes ahead of the cursor.
    let next = cursor.max(position);
    let (low, high) = watermarks(consumer, topic, partition, next)?;
    if next > high {
        if next <= end(observer, topic, partition)? {
            let place = place_of(topic, partition, high);
            return Err(SourceError::Unavailable(format!("a transaction is undecided at {place}").into()));
        }
        let reason = format!(
            "the partition ends at offset {high}, before the checkpoint at {next}: if it was deleted and created again, give the \
             consumer another name"
        );
        return Err(unfit(reason));
    }
    if next < low {
        if !declared.passes_lost {
            return Err(SourceError::Expired { place: place_of(topic, partition, next) });
        }
        tracing::error!(topic, partition, from = next, to = low, "records were deleted before they were read");
        return Ok(low);
    }
    Ok(next)
}
