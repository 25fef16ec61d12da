//! CLIP's text transformer, with FG-CLIP's long path (method.md 4.1): causal, no padding mask, pooled where a text first
//! ends.

use tch::Tensor;

use super::LN_EPS;
use super::attention::Sight;
use super::config::ClipTextConfig;
use super::positions::{KEPT_POSITIONS, stretch_positions};
use super::stack::Stack;
use super::token_ids::CheckedIds;
use crate::error::ModelError;
use crate::layers::{LayerNorm, Linear, l2_normalize};
use crate::params::{Builder, Init, ParamGroup, ParamId, Weights};

/// Which positions and which projection a text takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPath {
    /// CLIP's own: `position_embedding`, `text_projection`. FG-CLIP's short captions and texts of regions.
    Short,
    /// FG-CLIP's for long captions: `position_embedding_ori` and `_res`, `text_filip_projection`.
    Long,
}

/// The tower's structure.
#[derive(Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    tokens: ParamId,
    positions: ParamId,
    stack: Stack,
    norm: LayerNorm,
    projection: Linear,
    long: Option<LongPath>,
}

/// What the long path has of its own.
#[derive(Debug)]
struct LongPath {
    ori: ParamId,
    res: ParamId,
    projection: Linear,
}

impl ClipText {
    /// Registers `text_model.*`, `text_projection.weight` and, with a long path, `text_filip_projection.weight` at
    /// `root` (the builder without a prefix). Starts are those of OpenAI's `CLIP.initialize_parameters` (openai/CLIP,
    /// clip/model.py); both long tables start as the stretched short one, the long projection as a copy.
    pub fn new(config: &ClipTextConfig, root: &mut Builder<'_>) -> Self {
        let (width, embed) = (config.width, config.embed);
        let mut root = root.of(ParamGroup::Text);
        let mut at = root.below("text_model");
        let mut embeddings = at.below("embeddings");
        let tokens = embeddings.param("token_embedding.weight", &[config.vocab, width], Init::Normal { std: 0.02 });
        let positions =
            embeddings.param("position_embedding.weight", &[config.short_positions, width], Init::Normal { std: 0.01 });
        let mut stretched = |name: &str| {
            let stretch =
                |short: &Tensor| stretch_positions(short, KEPT_POSITIONS).expect("a short table has over 21 positions");
            embeddings.derived(name, positions, stretch)
        };
        let tables = config
            .long
            .then(|| (stretched("position_embedding_ori.weight"), stretched("position_embedding_res.weight")));
        let stack = Stack::new(&config.stack(), Sight::Causal, |_| ParamGroup::Text, &mut at.below("encoder"));
        let norm = LayerNorm::new(&mut at.below("final_layer_norm"), width, LN_EPS);
        let scaled = Init::Normal { std: (width as f64).powf(-0.5) };
        let projection = root.param("text_projection.weight", &[embed, width], scaled);
        let long = tables.map(|(ori, res)| {
            let copy = root.derived("text_filip_projection.weight", projection, Tensor::copy);
            LongPath { ori, res, projection: Linear::of(copy, None) }
        });
        Self { config: config.clone(), tokens, positions, stack, norm, projection: Linear::of(projection, None), long }
    }

    /// Its sizes.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Token ids [n, L], of any integer type and best on the CPU -> [n, D], L2-normalized fp32. What stands behind a
    /// text's first end is not read: texts may be cut to the longest of the batch, or padded with anything.
    ///
    /// # Errors
    /// If L is beyond the path's positions, an id outside the vocabulary, a text without an end, or the tower has no
    /// long path.
    pub fn forward(&self, w: &Weights<'_>, ids: &Tensor, path: TextPath) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_cat(&self.forward_each(w, std::slice::from_ref(ids), path)?, 0)?)
    }

    /// As [`Self::forward`], for batches of different lengths. The vocabulary is looked up once for all of them: the
    /// gradient of each lookup is a table of the whole vocabulary.
    ///
    /// # Errors
    /// Those of [`Self::forward`].
    pub fn forward_each(&self, w: &Weights<'_>, ids: &[Tensor], path: TextPath) -> Result<Vec<Tensor>, ModelError> {
        let long = match path {
            TextPath::Short => None,
            TextPath::Long => Some(self.long.as_ref().ok_or(ModelError::NoLongPath)?),
        };
        let most = long.map_or(self.config.short_positions, |_| self.config.long_positions());
        let check = |ids: &Tensor| CheckedIds::check(ids, most, &self.config, w.device());
        let batches = ids.iter().map(check).collect::<Result<Vec<_>, _>>()?;
        let flat: Vec<Tensor> = batches.iter().map(|texts| texts.ids.flatten(0, 1)).collect();
        let counts: Vec<i64> = flat.iter().map(|ids| ids.size()[0]).collect();
        let words = Tensor::embedding(w.fp32(self.tokens), &Tensor::f_cat(&flat, 0)?, -1, false, false);
        let words = words.f_split_with_sizes(counts, 0)?;
        batches.iter().zip(&words).map(|(texts, words)| self.features(w, texts, words, long)).collect()
    }

    /// `words` [n * L, W], the embedded ids of `texts` -> [n, D].
    fn features(
        &self,
        w: &Weights<'_>,
        texts: &CheckedIds,
        words: &Tensor,
        long: Option<&LongPath>,
    ) -> Result<Tensor, ModelError> {
        let (n, length) = texts.ids.size2()?;
        let words = words.f_view([n, length, self.config.width])?;
        let positions = match long {
            None => w.fp32(self.positions).narrow(0, 0, length),
            Some(long) => long.positions(w, length),
        };
        let (x, last) = self.stack.run(w, words + positions);
        let index = texts.ends.view([n, 1, 1]).expand([n, 1, self.config.width], false);
        let seen = Tensor::arange(length, (tch::Kind::Int64, w.device())).le_tensor(&texts.ends.unsqueeze(1));
        let pooled = last.forward_one(w, &x, |x| x.gather(1, &index, false), Some(&seen.view([n, 1, 1, length])));
        let projection = long.map_or(&self.projection, |long| &long.projection);
        Ok(l2_normalize(&projection.forward(w, &self.norm.forward(w, &pooled.squeeze_dim(1)))))
    }
}

impl LongPath {
    /// [length, W]. Both tables take part however short the texts are, so that both get a gradient.
    fn positions(&self, w: &Weights<'_>, length: i64) -> Tensor {
        let first = length.min(KEPT_POSITIONS);
        Tensor::cat(
            &[w.fp32(self.ori).narrow(0, 0, first), w.fp32(self.res).narrow(0, KEPT_POSITIONS, length - first)],
            0,
        )
    }
}
