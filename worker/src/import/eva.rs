//! Names of EVA02-CLIP and of what was made from it: LLM2CLIP and PixCLIP (method.md 1.6). They are pixfleet's own.

use super::rule::Fate::{As, Left};
use super::rule::Rule;

/// EVA-CLIP's head and text tower meet in a joint space of another width.
pub(super) const OTHER_SPACE: &[Rule] =
    &[Rule("visual.head.*", Left("of another joint space")), Rule("text.*", Left("of another joint space"))];

/// LLM2CLIP's EVA02, PixCLIP, and what pixfleet writes; EVA-CLIP keeps two of attention's biases apart from its
/// projections.
pub(super) const EVA02: &[Rule] = &[
    Rule("visual.rope.*", Left("a table that is computed")),
    Rule("visual.blocks.#.attn.rope.*", Left("a table that is computed")),
    Rule("l2v.*", Left("the language model: its vectors are stored (`pixfleet shards embed`)")),
    Rule("visual.blocks.#.attn.q_bias", As("visual.blocks.#.attn.q_proj.bias")),
    Rule("visual.blocks.#.attn.v_bias", As("visual.blocks.#.attn.v_proj.bias")),
    Rule("visual.*", As("visual.*")),
    Rule("text.text_adaptor.*", As("text.text_adaptor.*")),
    Rule("logit_scale", As("logit_scale")),
];
