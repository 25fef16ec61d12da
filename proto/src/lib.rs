//! pixfleet-proto
