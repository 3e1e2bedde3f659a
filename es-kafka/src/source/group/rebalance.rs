//! Partitions come and go, within the consumer's callback.

use std::time::Duration;

use es_core::backend::{Checkpoint, Shard, SourceError};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use super::{Group, Partitions, published::Published};
use crate::{
    client::{self, unavailable},
    source::{
        begin::{self, begin},
        mark::{Mark, Written},
    },
    topics::shard,
};

/// Partitions that are read from now on.
type Placed<M> = Vec<(String, i32, M)>;

impl<P: Partitions> Group<P> {
    /// New partitions. The group waits for an answer also when there are none of them, and also when
    /// they cannot be started: then the feed ends, and its consumer could not leave otherwise.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let outcome = self.place(consumer, list).and_then(|(members, offsets)| {
            consumer.incremental_assign(&offsets).map_err(unavailable)?;
            Ok(members)
        });
        match outcome {
            Ok(members) => {
                for (topic, partition, member) in members {
                    self.members().entry(topic).or_default().insert(partition, member);
                }
                Ok(())
            }
            Err(failure) => {
                if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                    tracing::warn!(%error, "the group gets no answer to an assignment");
                }
                Err(failure)
            }
        }
    }

    /// The reader takes the leases of new partitions and says where each starts. Until it has done so
    /// the thread waits, since only within the callback a partition can be given its offset.
    fn place(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Result<(Placed<P::Member>, TopicPartitionList), SourceError> {
        self.outbox.set_shards(self.of.list(consumer)?);
        let partitions: Vec<_> = list
            .elements()
            .iter()
            .filter(|element| self.of.reads(element.topic()))
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let shards: Vec<_> = partitions.iter().map(|(topic, partition)| shard(topic, *partition)).collect();
        self.outbox.assigned(shards.clone());
        let checkpoints = self.outbox.wait_for_starts(&shards).unwrap_or_default();
        let mut members = Vec::with_capacity(partitions.len());
        let mut offsets = TopicPartitionList::with_capacity(partitions.len());
        for ((topic, partition), checkpoint) in partitions.into_iter().zip(checkpoints) {
            let (member, begin) = self.of.start(consumer, (&topic, partition), &checkpoint)?;
            offsets.add_partition_offset(&topic, partition, Offset::Offset(begin)).map_err(unavailable)?;
            members.push((topic, partition, member));
        }
        Ok((members, offsets))
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let mut members = self.members();
        let (mut shards, mut held) = (Vec::new(), TopicPartitionList::new());
        for element in list.elements().iter().filter(|element| self.of.reads(element.topic())) {
            let (topic, partition) = (element.topic(), element.partition());
            let removed = members.get_mut(topic).and_then(|partitions| partitions.remove(&partition));
            if removed.is_some() {
                // Only these: a partition that could not be started is not assigned, and a list with
                // it would be refused as a whole.
                held.add_partition(topic, partition);
            }
            shards.push(shard(topic, partition));
        }
        self.outbox.revoked(shards);
        consumer.incremental_unassign(&held).map_err(unavailable)
    }

    /// The reader goes back to a checkpoint of a shard that it had started already.
    pub(crate) fn restart(
        &self,
        consumer: &BaseConsumer<Self>,
        restarted: &Shard,
        checkpoint: &Checkpoint,
    ) -> Result<(), SourceError> {
        let mut members = self.members();
        for (topic, partitions) in members.iter_mut() {
            for (partition, member) in partitions {
                if shard(topic, *partition) == *restarted {
                    let (started, begin) = self.of.start(consumer, (topic, *partition), checkpoint)?;
                    *member = started;
                    return consumer
                        .seek(topic, *partition, Offset::Offset(begin), Duration::from_secs(10))
                        .map_err(unavailable);
                }
            }
        }
        Ok(())
    }
}

impl Group<Published> {
    /// librdkafka does not say which partition is too short.
    pub(super) fn out_of_range(&self, consumer: &BaseConsumer<Self>) -> SourceError {
        for (topic, partitions) in self.members().iter() {
            for (partition, member) in partitions {
                let next = member.chain.next();
                let clients = (consumer, &self.of.observer);
                match begin(clients, (topic, *partition), Some(next), Mark::default(), Written::default()) {
                    Ok(begin) if begin.offset > next => return member.chain.expired(),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        }
        begin::was_out_of_range()
    }
}

impl<P: Partitions> ClientContext for Group<P> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl<P: Partitions> ConsumerContext for Group<P> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, list),
            other => {
                tracing::warn!(?other, "rebalance");
                Ok(())
            }
        };
        if let Err(failure) = outcome {
            self.failure().get_or_insert(failure);
        }
    }
}
