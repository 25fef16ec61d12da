//! The coordinator's shell: a tonic service, a driver that owns the run machine of `cluster`, the rendezvous store, and
//! the run's records in its object store. It decides nothing: [`pixfleet_cluster::run::Run`] does.
//!
//! It never sees a row or a tensor, and does not link torch.

mod dataset;
mod driver;
mod error;
mod identity;
mod ledger_writer;
mod manifests;
mod open;
mod rendezvous;
mod serve;
mod service;
mod view;

pub use dataset::{Dataset, open_dataset};
pub use error::CoordinatorError;
pub use serve::{Config, Ended, bind, serve};
