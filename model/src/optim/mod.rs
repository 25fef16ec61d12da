//! AdamW with groups by role, clipping by the global norm, and the state that a checkpoint holds.

pub mod adamw;
pub mod groups;
pub mod state;

#[cfg(test)]
mod tests;

pub use adamw::{AdamW, OptimizerStep, Slot, global_norm};
pub use groups::Rule;
pub use state::State;

use pixfleet_cluster::spec::LogitScaleSpec;
use tch::{Tensor, no_grad};

use crate::ModelError;

/// Puts the logit scale's parameter back into `[0, max]`, after each step (method.md 1.5).
///
/// # Errors
/// [`ModelError::Torch`].
pub fn clamp_logit_scale(parameter: &Tensor, spec: &LogitScaleSpec) -> Result<(), ModelError> {
    let mut parameter = parameter.shallow_clone();
    let _ = no_grad(|| parameter.f_clamp_(0.0, spec.max))?;
    Ok(())
}
