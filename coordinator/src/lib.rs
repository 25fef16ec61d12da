//! The coordinator's shell: a tonic service, a driver that owns the machine of `cluster`, and what that machine asks of the object store. It decides nothing: [`pixfleet_cluster::lead::Lead`] does.
//!
//! It never sees a row or a tensor, and does not link torch.

mod dataset;
mod driver;
mod error;
mod fault;
mod identity;
mod metrics;
mod open;
mod orders;
mod serve;
mod service;
mod setup;
mod stage;
mod standby;
mod store;
mod view;

pub use dataset::{Dataset, open_dataset};
pub use error::CoordinatorError;
pub use serve::{Config, Doors, Ended, bind, serve};
