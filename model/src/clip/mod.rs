//! The towers of OpenAI's CLIP and what FG-CLIP adds to them (method.md 1.3, 4.1), under the names of their Hugging Face
//! checkpoints: `vision_model.*`, `visual_projection.weight`, `text_model.*`, `text_projection.weight`,
//! `text_filip_projection.weight`, at the root.
//!
//! As in the EVA02 tower, the residual stream is fp32 in both precisions and linears and attention run in the step's
//! arithmetic.

pub mod attention;
pub mod block;
pub mod config;
pub mod embed;
pub mod positions;
pub mod stack;
#[cfg(test)]
mod tests;
pub mod text;
mod token_ids;
pub mod vision;

pub use config::{ClipTextConfig, ClipVisionConfig};
pub use positions::stretch_positions;
pub use text::{ClipText, TextPath};
pub use vision::ClipVision;

/// Epsilon of every layer norm in both towers.
pub(crate) const LN_EPS: f64 = 1e-5;
