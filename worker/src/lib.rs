//! pixfleet-worker
