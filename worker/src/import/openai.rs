//! Names of OpenAI's own CLIP, which AlphaCLIP and open_clip keep (method.md 1.6): attention's three projections lie in
//! one tensor, projections multiply from the right.

use super::rule::Fate::{As, Left, Thirds, Transposed};
use super::rule::Rule;

/// The residual blocks below `$from`, as Hugging Face names them below `$to`.
macro_rules! with_blocks {
    ($from:literal => $to:literal, $($rule:expr),* $(,)?) => {
        &[
            Rule(concat!($from, ".#.attn.in_proj_weight"), Thirds([
                concat!($to, ".#.self_attn.q_proj.weight"),
                concat!($to, ".#.self_attn.k_proj.weight"),
                concat!($to, ".#.self_attn.v_proj.weight"),
            ])),
            Rule(concat!($from, ".#.attn.in_proj_bias"), Thirds([
                concat!($to, ".#.self_attn.q_proj.bias"),
                concat!($to, ".#.self_attn.k_proj.bias"),
                concat!($to, ".#.self_attn.v_proj.bias"),
            ])),
            Rule(concat!($from, ".#.attn.out_proj.*"), As(concat!($to, ".#.self_attn.out_proj.*"))),
            Rule(concat!($from, ".#.ln_1.*"), As(concat!($to, ".#.layer_norm1.*"))),
            Rule(concat!($from, ".#.ln_2.*"), As(concat!($to, ".#.layer_norm2.*"))),
            Rule(concat!($from, ".#.mlp.c_fc.*"), As(concat!($to, ".#.mlp.fc1.*"))),
            Rule(concat!($from, ".#.mlp.c_proj.*"), As(concat!($to, ".#.mlp.fc2.*"))),
            $($rule),*
        ]
    };
}

/// The vision tower, AlphaCLIP's convolution among it.
pub(super) const VISUAL: &[Rule] = with_blocks!(
    "visual.transformer.resblocks" => "vision_model.encoder.layers",
    Rule("visual.class_embedding", As("vision_model.embeddings.class_embedding")),
    Rule("visual.positional_embedding", As("vision_model.embeddings.position_embedding.weight")),
    Rule("visual.conv1.weight", As("vision_model.embeddings.patch_embedding.weight")),
    Rule("visual.conv1_alpha.weight", As("vision_model.embeddings.alpha_patch_embedding.weight")),
    Rule("visual.ln_pre.*", As("vision_model.pre_layrnorm.*")),
    Rule("visual.ln_post.*", As("vision_model.post_layernorm.*")),
    Rule("visual.proj", Transposed("visual_projection.weight")),
);

/// The text tower, the temperature, and four entries of OpenAI's files that are no weights.
pub(super) const TEXT: &[Rule] = with_blocks!(
    "transformer.resblocks" => "text_model.encoder.layers",
    Rule("token_embedding.weight", As("text_model.embeddings.token_embedding.weight")),
    Rule("positional_embedding", As("text_model.embeddings.position_embedding.weight")),
    Rule("ln_final.*", As("text_model.final_layer_norm.*")),
    Rule("text_projection", Transposed("text_projection.weight")),
    Rule("logit_scale", As("logit_scale")),
    Rule("input_resolution", Left("a setting, no weight")),
    Rule("context_length", Left("a setting, no weight")),
    Rule("vocab_size", Left("a setting, no weight")),
    Rule("attn_mask", Left("a mask, no weight")),
);
