//! pixfleet-collective: process groups and reducers of one generation, over libtorch's own c10d (NCCL on GPUs, Gloo on
//! CPUs) as `pixfleet-shim` offers it.
//!
//! Invariants: this is safe code; every failure is a typed [`CollectiveError`] whose class says whether the generation is
//! over. A [`Group`] and its [`Reducer`] live for one generation and are dropped with it; forming the next one in the
//! same process is what makes a run elastic.

mod abort;
mod addresses;
mod bridge;
mod error;
mod forming;
mod group;
mod live;
mod reducer;
mod store;
mod watch;

pub use abort::AbortHandle;
pub use error::{CollectiveError, StoreError};
pub use group::{Backend, Group, GroupConfig};
pub use reducer::Reducer;
pub use store::{HashStore, RendezvousStore};
