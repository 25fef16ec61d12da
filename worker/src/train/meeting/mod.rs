//! Where the ranks of a generation find each other: at its rank 0. Nobody else is asked, so a generation lives and dies with its
//! own members.

mod host;
mod keys;
mod store;

pub(crate) use host::serve;
pub(crate) use keys::KeyStore;
pub(crate) use store::FleetStore;
