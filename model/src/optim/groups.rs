//! Which parameter learns how fast: a pure function of its name and shape (method.md 2.9; names of 1.6).
//!
//! By name, never by the number of tensors in a group: AlphaCLIP's schedule found the alpha convolution by counting
//! and would miss PixCLIP's, which has a bias.

use pixfleet_cluster::spec::OptimizerSpec;

/// How one parameter learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay, to be multiplied by the learning rate.
    pub weight_decay: f64,
}

/// The rule of a parameter. `depth`: blocks of the vision tower ([`depth`]).
///
/// * the alpha convolution: `alpha_lr`;
/// * the text adapter (`text.*`): `text_lr`;
/// * the vision tower: `lr * layer_decay^(depth + 1 - layer)`, where patch embedding, class token and positions are
///   layer 0, block i is layer i + 1, final norm and head are layer depth + 1;
/// * everything else, the logit scale among it: `lr`.
#[must_use]
pub fn rule(name: &str, shape: &[i64], depth: u32, spec: &OptimizerSpec) -> Rule {
    let lr = if name.starts_with("visual.alpha_patch_embed.") {
        spec.alpha_lr
    } else if name.starts_with("text.") {
        spec.text_lr
    } else if let Some(layer) = layer(name, depth) {
        spec.lr * spec.layer_decay.powi((depth + 1 - layer) as i32)
    } else {
        spec.lr
    };
    Rule { lr, weight_decay: if decays(name, shape) { spec.weight_decay } else { 0.0 } }
}

/// The number of blocks that a model's parameter names show.
pub fn depth<'n>(names: impl Iterator<Item = &'n str>) -> u32 {
    names.filter_map(block).map(|i| i + 1).max().unwrap_or(0)
}

/// A parameter's layer, 0 (embedding) to depth + 1 (head), if it belongs to the vision tower.
fn layer(name: &str, depth: u32) -> Option<u32> {
    let within = name.strip_prefix("visual.")?;
    Some(match block(name) {
        Some(i) => i + 1,
        None if within.starts_with("norm.") || within.starts_with("head.") => depth + 1,
        None => 0,
    })
}

/// `i` of `visual.blocks.i.*`.
fn block(name: &str) -> Option<u32> {
    name.strip_prefix("visual.blocks.")?.split('.').next()?.parse().ok()
}

/// Whether weight decay acts: not on tensors of one dimension or none (biases, norms, the logit scale), class token
/// and positions.
fn decays(name: &str, shape: &[i64]) -> bool {
    shape.len() > 1 && !name.ends_with("cls_token") && !name.ends_with("pos_embed") && !name.ends_with("logit_scale")
}
