//! What every backend must do.

use super::server::store;

es_testing::event_store_suite!(store());
es_testing::snapshot_store_suite!(store());
es_testing::read_model_store_suite!(store());
es_testing::inspect_suite!(store());
es_testing::engine_suite!(store());
es_testing::service_suite!(store());
