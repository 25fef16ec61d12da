//! pixfleet-model: towers, losses and optimizer on libtorch. No network, no thread that outlives a call; tensors stay
//! on the thread that made them.
//!
//! A model is two things apart: *structure* ([`vision::Vision`], [`text_proj::TextProj`]: configuration and parameter
//! ids) and *numbers* ([`params::Params`]: ordered named fp32 tensors). Every forward takes the numbers as an argument,
//! so a teacher (EMA or frozen) is the same structure over another set.

pub mod error;
pub mod params;
pub mod testing;
pub mod towers;

pub use error::ModelError;
pub use params::{Compute, ParamId, Params, Weights};
pub use towers::{Features, Inputs, Model};
