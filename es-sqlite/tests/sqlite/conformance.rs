//! The suites that every backend passes.

use super::fixture::new_store;

mod event_store {
    es_core::event_store_suite!(super::new_store());
}

mod snapshot_store {
    es_core::snapshot_store_suite!(super::new_store());
}

mod read_model_store {
    es_core::read_model_store_suite!(super::new_store());
}

mod engines {
    es_core::engine_suite!(super::new_store());
}
