//! What a vision tower is, read from shapes: for the message when a file belongs to another one.

use std::fmt::{self, Display};

/// The two towers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// OpenAI's CLIP.
    Clip,
    /// EVA02-CLIP.
    Eva02,
}

/// A tower's sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tower {
    pub(super) kind: Kind,
    width: i64,
    depth: usize,
    patch: i64,
    grid: i64,
}

impl Tower {
    /// By the shapes of tensors under pixfleet's names; `None` if there is no vision tower among them.
    pub(super) fn of(shape: impl Fn(&str) -> Option<Vec<i64>>) -> Option<Self> {
        let kinds = [
            (
                Kind::Clip,
                "vision_model.embeddings.patch_embedding.weight",
                "vision_model.embeddings.position_embedding.weight",
                "vision_model.encoder.layers.#.layer_norm1.weight",
            ),
            (Kind::Eva02, "visual.patch_embed.proj.weight", "visual.pos_embed", "visual.blocks.#.norm1.weight"),
        ];
        kinds.into_iter().find_map(|(kind, patches, positions, block)| {
            let patches = shape(patches)?;
            let (&width, &patch) = patches.first().zip(patches.last())?;
            let positions = shape(positions).map_or(0, |s| s.iter().rev().nth(1).copied().unwrap_or(0));
            let depth = (0..).take_while(|i: &usize| shape(&block.replace('#', &i.to_string())).is_some()).count();
            Some(Self { kind, width, depth, patch, grid: grid_of(positions).unwrap_or(0) })
        })
    }
}

/// The side of the square of patches that `positions` counts, the class token among them.
pub(super) fn grid_of(positions: i64) -> Option<i64> {
    let side = ((positions - 1).max(0) as f64).sqrt().round() as i64;
    (side > 0 && side * side == positions - 1).then_some(side)
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clip => "CLIP",
            Self::Eva02 => "EVA02",
        })
    }
}

impl Display for Tower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, width, depth, patch, grid } = self;
        write!(f, "{kind} of width {width}, {depth} blocks, patches of {patch} px, {} px", grid * patch)
    }
}
