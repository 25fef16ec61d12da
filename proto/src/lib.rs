//! The wire of the control plane: generated messages, their conversion to and from `cluster`'s types, errors that
//! keep their type across gRPC, and a client that says plainly when no coordinator answers.
//!
//! Nothing outside this crate handles a generated session message: [`Session`] speaks `cluster::run`'s types.

mod client;
mod colour;
mod convert;
mod error;
mod limits;
mod meeting;
mod open_files;
mod parent;
mod runs;

pub mod pb;

#[cfg(test)]
mod tests;

pub use client::{Client, Keepalive, Patience, Reports, Session, connect, connect_watchful};
pub use colour::takes_colours;
pub use error::{FleetError, Malformed};
pub use limits::{
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX, client,
    meeting_server, server,
};
pub use meeting::StoreClient;
pub use open_files::raise_open_files;
pub use parent::{PARENT, is_orphan};
