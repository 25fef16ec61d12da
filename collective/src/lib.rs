//! pixfleet-collective: libtorch's own c10d (NCCL on GPUs, Gloo on CPUs) behind a small safe API, and the few tensor
//! operations that tch lacks.
//!
//! Invariants: `unsafe` stands in [`mod@ffi`] alone, in this workspace; no C++ exception and no Rust panic crosses the
//! boundary; every failure is a typed [`CollectiveError`] whose class says whether the generation is over. A
//! [`Group`] and its [`Reducer`] live for one generation and are dropped with it; forming the next one in the same
//! process is what makes a run elastic.

mod abort;
pub mod autocast;
pub mod device;
mod error;
mod ffi;
mod forming;
mod group;
pub mod optim;
mod reducer;
mod store;
#[cfg(test)]
mod tests;

pub use abort::AbortHandle;
pub use error::{CollectiveError, StoreError, TorchError, classify};
pub use group::{Backend, Group, GroupConfig};
pub use reducer::Reducer;
pub use store::{HashStore, RendezvousStore};
