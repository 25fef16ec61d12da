//! The blocks of a language model over a batch of padded texts, up to the last hidden states.

use tch::{Device, Kind, Tensor};

use super::block::{Block, RmsNorm, Source, Visible};
use super::config::{Family, LlmConfig, Sees};
use super::error::LlmError;
use super::files::Files;
use super::rope::Rope;
use crate::params::Compute;

/// A model without its head.
#[derive(Debug)]
pub(crate) struct Stack {
    /// [vocab, width] as its file has it: only rows of it are read.
    words: Tensor,
    /// What embeddings are multiplied by.
    embedding_scale: f64,
    blocks: Vec<(Sees, Block)>,
    norm: RmsNorm,
    rope: Rope,
    rope_local: Rope,
    head_dim: i64,
    causal: bool,
    device: Device,
}

impl Stack {
    pub(crate) fn load(
        files: &Files,
        config: &LlmConfig,
        causal: bool,
        compute: Compute,
        device: Device,
    ) -> Result<Self, LlmError> {
        let from = Source { files, config, compute, device };
        let words = files.tensor("embed_tokens.weight", &[config.vocab, config.width])?;
        let blocks = config.sees.iter().enumerate().map(|(i, &sees)| Ok((sees, Block::load(&from, i)?)));
        Ok(Self {
            words: words.to_device(device),
            embedding_scale: embedding_scale(config, compute),
            blocks: blocks.collect::<Result<_, LlmError>>()?,
            norm: from.norm("norm", config.width)?,
            rope: config.rope,
            rope_local: config.rope_local,
            head_dim: config.head_dim,
            causal,
            device,
        })
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// `ids` [n, T], padded behind the text, and `attended` [n, T] (true where a text is; `None` if nothing is padding)
    /// -> the last hidden states [n, T, width] fp32. Those of padding mean nothing.
    pub(crate) fn forward(&self, ids: &Tensor, attended: Option<&Tensor>) -> Tensor {
        let length = ids.size()[1];
        let embedded = Tensor::embedding(&self.words, ids, -1, false, false);
        let mut x = embedded.to_kind(Kind::Float) * self.embedding_scale;
        let mut visible: Vec<(Sees, Visible)> = Vec::new();
        for (sees, block) in &self.blocks {
            let known = visible.iter().position(|(known, _)| known == sees);
            let at = known.unwrap_or_else(|| {
                visible.push((*sees, self.visible(*sees, length, attended)));
                visible.len() - 1
            });
            x = block.forward(x, &visible[at].1);
        }
        self.norm.forward(&x)
    }

    fn visible(&self, sees: Sees, length: i64, attended: Option<&Tensor>) -> Visible {
        let (rope, window) = match sees {
            Sees::All => (self.rope, None),
            Sees::Window(window) => (self.rope_local, Some(window).filter(|&w| w < length)),
        };
        let rope = rope.tables(length, self.head_dim, self.device);
        // Padding stands behind the text: who sees nothing that comes later does not see it.
        let attended = attended.filter(|_| !self.causal).map(|a| a.unsqueeze(1).unsqueeze(1));
        let Some(window) = window else { return Visible { mask: attended, causal: self.causal, rope } };
        let positions = Tensor::arange(length, (Kind::Int64, self.device));
        let back = positions.unsqueeze(1) - positions.unsqueeze(0);
        let near = back.abs().lt(window);
        let near = if self.causal { near.logical_and(&back.ge(0)) } else { near };
        // A token of the padding sees itself, lest it sees nothing and becomes NaN.
        let mask = attended.map(|a| near.logical_and(&a).logical_or(&back.eq(0))).unwrap_or(near);
        Visible { mask: Some(mask), causal: false, rope }
    }
}

/// Gemma multiplies by the root of the width, rounded to the weights' arithmetic.
fn embedding_scale(config: &LlmConfig, compute: Compute) -> f64 {
    if config.family != Family::Gemma3 {
        return 1.0;
    }
    let root = (config.width as f64).sqrt();
    if compute == Compute::BF16 { half::bf16::from_f64(root).to_f64() } else { root }
}
