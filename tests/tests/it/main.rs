//! End-to-end tests with real processes, and the rules of the house. `make test` builds the programs first.

mod bad_input;
mod elastic;
mod equality;
mod evaluation;
mod far_feed;
mod house;
mod kill;
mod local_ranks;
mod object_storage;
mod resume;
