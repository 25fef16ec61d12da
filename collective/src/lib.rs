//! pixfleet-collective
