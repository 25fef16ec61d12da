//! Tests of the dataset format through its public interface, on `file://` and in memory alike.

mod adopted;
mod bad_input;
mod copies;
mod embed;
mod fetching;
mod hard_negatives;
mod reading;
mod stores;
mod support;
mod tokens;
mod verify;
