//! End-to-end tests with real processes, and the rules of the house. `make test` builds the programs first.

mod annotate;
mod bad_input;
mod benchmarks;
mod elastic;
mod embedding;
mod equality;
mod evaluation;
mod evidence;
mod far_feed;
mod house;
mod hub;
mod ingest;
mod kill;
mod local_ranks;
mod object_storage;
mod resume;
mod strangers;
