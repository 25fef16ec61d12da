//! One suite for every backend: what groups and reducers must do on 1 to 4 real processes, and what a rank learns when
//! a peer fails.

mod faults;
mod fleet;
mod operations;
mod tcp_store;
