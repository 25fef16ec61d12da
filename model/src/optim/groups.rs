//! How a parameter learns, by the role that it was registered with (method.md 2.9).
//!
//! By role, never by the number of tensors in a group: AlphaCLIP's schedule found the alpha convolution by counting and
//! would miss PixCLIP's, which has a bias.

use pixfleet_cluster::spec::OptimizerSpec;

use crate::params::{ParamGroup, Role};

/// How one parameter learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay, to be multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Rule {
    /// The rule of a role. The vision tower learns at `lr * layer_decay^(layers above)`; temperatures at `lr`.
    #[must_use]
    pub fn of(role: Role, spec: &OptimizerSpec) -> Self {
        let lr = match role.group {
            ParamGroup::Vision { above } => spec.lr * spec.layer_decay.powi(above as i32),
            ParamGroup::Alpha => spec.alpha_lr,
            ParamGroup::Text => spec.text_lr,
            ParamGroup::Temperature => spec.lr,
        };
        Self { lr, weight_decay: if role.decays { spec.weight_decay } else { 0.0 } }
    }
}
