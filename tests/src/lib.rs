//! pixfleet-tests
