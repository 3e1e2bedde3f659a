//! The suites that every backend passes.

use super::fixture::new_store;

mod event_store {
    es_testing::event_store_suite!(super::new_store());
}

mod snapshot_store {
    es_testing::snapshot_store_suite!(super::new_store());
}

mod read_model_store {
    es_testing::read_model_store_suite!(super::new_store());
}

mod inspect {
    es_testing::inspect_suite!(super::new_store());
}

mod engines {
    es_testing::engine_suite!(super::new_store());
}

mod service {
    es_testing::service_suite!(super::new_store());
}
