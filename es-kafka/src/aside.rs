//! Questions to brokers, which may take half a minute to be given up.

use es_core::error::BoxError;
use tokio::sync::oneshot;

/// Does `work` on a thread of its own, and gives its result; nothing comes if it panics or no thread can be started.
///
/// It is none of the runtime's threads for blocking work: a runtime waits for those when it is dropped, so that a process whose
/// service has ended would stay for as long as brokers do not answer (R16).
pub(crate) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (result, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka-aside".to_owned());
    // The caller may be gone by then.
    if let Err(error) = thread.spawn(move || drop(result.send(work()))) {
        tracing::warn!(error = &error as &dyn std::error::Error, "a thread that asks brokers cannot be started");
    }
    done
}

/// The same, for one that waits for the result.
///
/// # Cancel safety
/// Dropping the future does not interrupt the work.
pub(crate) async fn done<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BoxError> {
    begin(work).await.map_err(|_| "the thread that asks the brokers has ended without an answer".into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::{net::TcpListener, time::Instant};

    use es_core::{
        EventOrder, MemoryStore,
        backend::{Categories, EventSource, Leases, Split, Subscription},
    };

    use crate::{KafkaSource, KafkaSourceConfig, source::begin::PATIENCE};

    /// Seen to fail where questions are blocking tasks of the runtime.
    #[test]
    fn r16_a_runtime_does_not_wait_for_brokers_that_do_not_answer() {
        // It takes connections, since the system does, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let brokers = silent.local_addr().unwrap().to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (opened, asked) = runtime.block_on(async {
            let source = KafkaSource::new(KafkaSourceConfig::new(brokers, "orders"));
            let subscription = Subscription {
                reader: "ledger".to_owned(),
                store: MemoryStore::new().id().await.unwrap(),
                categories: Categories::All,
                order: EventOrder::PerStream,
                split: Split::NONE,
                forwards: false,
            };
            let opening = tokio::spawn(async move { source.open(&subscription).await.map(drop) });
            let asked = tokio::task::block_in_place(|| silent.accept());
            (opening, asked)
        });
        let ending = Instant::now();
        drop(runtime);
        assert!(ending.elapsed() < PATIENCE / 2, "it waited for {:?}", ending.elapsed());
        drop((opened, asked));
    }
}
