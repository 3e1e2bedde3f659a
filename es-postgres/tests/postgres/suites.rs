//! What every backend must do.

use super::server::store;

es_core::event_store_suite!(store());
es_core::snapshot_store_suite!(store());
es_core::read_model_store_suite!(store());
es_core::engine_suite!(store());
