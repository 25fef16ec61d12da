//! The whole coordinator in this process, over real tonic on a free port, with fake workers.

mod fleet;
mod membership;
mod people;
mod refusals;
mod standby;
mod support;
mod takeover;
