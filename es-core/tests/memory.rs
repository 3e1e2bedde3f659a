//! The reference passes the suites that every backend must pass.

use es_core::MemoryStore;

mod ports {
    use super::MemoryStore;

    es_core::event_store_suite!(async { MemoryStore::new() });
    es_core::snapshot_store_suite!(async { MemoryStore::new() });
    es_core::read_model_store_suite!(async { MemoryStore::new() });
    es_core::engine_suite!(async { MemoryStore::new() });
}
