//! The whole coordinator in this process, over real tonic on a free port, with fake workers.

mod fleet;
mod membership;
mod people;
mod refusals;
mod support;
mod takeover;
