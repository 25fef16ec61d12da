//! One suite for every backend: what groups and reducers must do on 1 to 4 real processes, and what a rank learns when
//! a peer fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail where they unwrap, and children report by printing"
)]

mod counting;
mod faults;
mod fleet;
mod operations;
mod tcp_store;
