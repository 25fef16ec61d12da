//! pixfleet-coordinator
