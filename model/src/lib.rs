//! pixfleet-model: towers, losses and optimizer on libtorch. No network, no thread that outlives a call; tensors stay
//! on the thread that made them.
//!
//! A model is two things apart: *structure* ([`VisionTower`], [`TextTower`]: configuration and parameter ids) and *numbers* ([`params::Params`]: ordered named fp32 tensors). Every forward takes the numbers as an argument,
//! so a teacher (EMA or frozen) is the same structure over another set.

pub mod bert;
pub mod clip;
pub mod error;
pub mod flops;
mod fused;
pub mod host;
pub mod items;
mod layers;
pub mod llm;
pub mod loss;
pub mod objective;
pub mod optim;
mod packing;
pub mod params;
pub mod roi_align;
pub mod step;
pub mod testing;
pub mod text_proj;
pub mod towers;
pub mod vision;

pub use error::ModelError;
pub use flops::Flops;
pub use items::{BySet, Features, Inputs, Items, Slots, TextItems, TokenIds};
pub use layers::{LayerNorm, Linear, l2_normalize};
pub use params::{Compute, ParamId, Params, Weights};
pub use towers::{CastModel, Model, TextTower, VisionSizes, VisionTower};
