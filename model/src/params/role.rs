//! What a parameter is to the optimizer. It is told where the parameter is registered; nobody parses names.

/// Which learning rate a parameter follows (method.md 2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamGroup {
    /// Of the vision tower, `above` layers below its top: 0 for final norm and head, 1 for the last block, depth + 1 for
    /// patch embedding, class token and positions.
    Vision {
        /// Layers above it.
        above: u32,
    },
    /// The alpha convolution.
    Alpha,
    /// The text tower.
    Text,
    /// A temperature.
    Temperature,
}

/// A parameter's registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Its learning rate.
    pub group: ParamGroup,
    /// Whether weight decay acts on it.
    pub decays: bool,
}

impl Role {
    /// As most tensors are: decay acts where there is more than one dimension.
    #[must_use]
    pub fn plain(group: ParamGroup, shape: &[i64]) -> Self {
        Self { group, decays: shape.len() > 1 }
    }
}
