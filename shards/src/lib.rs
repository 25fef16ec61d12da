//! pixfleet-shards
