//! pixfleet-model
