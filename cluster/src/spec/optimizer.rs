//! `[optimizer]` and `[schedule]` (method.md 2.9).

use serde::{Deserialize, Serialize};

/// `[optimizer]`: AdamW with groups by parameter name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimizerSpec {
    /// Peak learning rate of the vision tower's last layer and head.
    pub lr: f64,
    /// Peak learning rate of the alpha convolution.
    pub alpha_lr: f64,
    /// Peak learning rate of the text adapter.
    pub text_lr: f64,
    /// Learning rate of block i is `lr * layer_decay^(depth - i)`.
    pub layer_decay: f64,
    /// Decoupled weight decay; 0 for 1-D tensors, biases, class token, positions and the logit scale.
    pub weight_decay: f64,
    /// First moment's decay.
    pub beta1: f64,
    /// Second moment's decay.
    pub beta2: f64,
    /// Denominator's floor.
    pub eps: f64,
    /// Gradients are clipped to this global norm; 0: never.
    pub clip_norm: f64,
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        Self {
            lr: 1e-5,
            alpha_lr: 1e-4,
            text_lr: 1e-5,
            layer_decay: 0.85,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            clip_norm: 5.0,
        }
    }
}

/// `[schedule]`: linear warm-up, then cosine to `final_fraction`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleSpec {
    /// Optimizer steps in all.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Learning rate at the end, as a fraction of the peak.
    pub final_fraction: f64,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self { steps: 0, warmup: 800, final_fraction: 0.0 }
    }
}

impl ScheduleSpec {
    /// Factor on every group's peak learning rate at `step` (0-based).
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let span = (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        let t = ((step - self.warmup) as f64 / span).min(1.0);
        self.final_fraction + (1.0 - self.final_fraction) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}
