//! How far Kafka was compared with the log.

use es_core::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    offsets::{Offsets, PerPartition},
    progress::Progress,
};

/// Up to where everything was compared and found equal: the next run continues there. Keep it as JSON.
///
/// It says nothing of other topics: where the topics were filled again, it is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The filling of the topics that was compared.
    pub incarnation: Uuid,
    /// The last position that was compared.
    pub position: Position,
    /// The offset after the last record that was compared, for each partition.
    pub offsets: Offsets,
    /// The position of that record.
    pub positions: PerPartition<Position>,
}

impl Cursor {
    /// Whether a run that compares up to `progress` may continue here.
    pub(super) fn fits(&self, progress: &Progress) -> bool {
        let ahead = |(topic, partition, next): (&str, i32, i64)| next > progress.offsets.next(topic, partition);
        self.incarnation == progress.incarnation
            && self.position <= progress.position
            && !self.offsets.iter().any(ahead)
    }
}
