//! How a store reports loads that share a statement.

use std::sync::OnceLock;

use metrics::Gauge;

use super::{LOAD_QUEUE, appends::Awaited};

/// What a store reports of loads, or of reads of decisions, that share a statement. A store has one for each.
#[derive(Debug, Default)]
pub struct LoadMeter(OnceLock<Gauge>);

impl LoadMeter {
    /// The outcome of `load`, which is reported as waiting meanwhile.
    ///
    /// # Cancel safety
    /// That of `load`.
    pub async fn waiting<T>(&self, load: impl Future<Output = T>) -> T {
        let _awaited = Awaited::among(self.0.get_or_init(|| LOAD_QUEUE.gauge([])));
        load.await
    }
}
