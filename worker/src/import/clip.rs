//! Names of CLIP's Hugging Face checkpoints and of FG-CLIP's (method.md 1.3, 4.1): pixfleet's own names of its CLIP towers.

use super::rule::Fate::{As, Left};
use super::rule::Rule;

/// `CLIPModel` of transformers, FG-CLIP v1, and what pixfleet writes.
pub(super) const HF: &[Rule] = &[
    Rule("text_model.embeddings.position_ids", Left("a count of positions, no weight")),
    Rule("vision_model.embeddings.position_ids", Left("a count of positions, no weight")),
    Rule("vision_model.*", As("vision_model.*")),
    Rule("text_model.*", As("text_model.*")),
    Rule("visual_projection.weight", As("visual_projection.weight")),
    Rule("text_projection.weight", As("text_projection.weight")),
    Rule("text_filip_projection.weight", As("text_filip_projection.weight")),
    Rule("logit_scale", As("logit_scale")),
    Rule("logit_scale_finegraind", As("logit_scale_finegraind")),
    Rule("logit_scale_hardneg", As("logit_scale_hardneg")),
];
