//! The towers of OpenAI's CLIP and what FG-CLIP adds to them (method.md 1.3, 4.1), under the names of their Hugging Face
//! checkpoints: `vision_model.*`, `visual_projection.weight`, `text_model.*`, `text_projection.weight`,
//! `text_filip_projection.weight`, at the root.
//!
//! As in the EVA02 tower, the residual stream is fp32 in both precisions and linears and attention run in the step's
//! arithmetic.

mod attention;
mod block;
mod config;
mod embed;
mod positions;
mod stack;
#[cfg(test)]
mod tests;
mod text;
mod token_ids;
mod vision;

pub use config::{ClipTextConfig, ClipVisionConfig, PositionStart};
pub use positions::{KEPT_POSITIONS, stretch_positions};
pub use text::{ClipText, TextPath};
pub use vision::ClipVision;

/// Epsilon of every layer norm in both towers.
const LN_EPS: f64 = 1e-5;
