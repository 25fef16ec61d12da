//! pixfleet-checkpoint
