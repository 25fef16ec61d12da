//! The machine of a worker's control side: what it keeps until a coordinator has made it durable, what it says to a
//! coordinator that it reconnects to, and what its trainer is told.
//!
//! A healthy step waits for nothing in here. Without a coordinator the trainer goes on; reports are kept, and told to
//! the next one. Orders of a leader lower than any seen are not obeyed.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::{Peer, PeerEffect, PeerEvent, Word};
