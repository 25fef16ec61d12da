//! Tests of the dataset format through its public interface, on `file://` and in memory alike.

mod bad_input;
mod embed;
mod fetching;
mod hard_negatives;
mod reading;
mod stores;
mod support;
mod tokens;
mod verify;
