//! Patch embedding of CLIP's ViT (method.md 1.3): `X0 = concat(cls, conv(image) + alpha_conv(mask)) + positions`, both
//! convolutions without a bias. As in the EVA02 tower the two are one product over four channels.

use pixfleet_cluster::spec::AlphaInit;
use tch::{Kind, Tensor};

use super::config::{ClipVisionConfig, PositionStart};
use crate::params::{Builder, Init, ParamGroup, ParamId, Weights};
use crate::vision::patch_embed::patchify;

/// Parameters of the embedding.
#[derive(Debug)]
pub(super) struct Embed {
    patch: i64,
    class: ParamId,
    image: ParamId,
    alpha: Option<ParamId>,
    positions: ParamId,
}

impl Embed {
    /// Registers `class_embedding`, `patch_embedding.weight`, `alpha_patch_embedding.weight` (unless there is none) and
    /// `position_embedding.weight`. The class starts with width^-1/2, convolutions as PyTorch's do (openai/CLIP,
    /// clip/model.py, `VisionTransformer`), positions as the configuration says.
    pub(super) fn new(config: &ClipVisionConfig, at: &mut Builder<'_>) -> Self {
        let (c, p) = (config.width, config.patch);
        let scaled = Init::Normal { std: (c as f64).powf(-0.5) };
        let torch = |channels: i64| Init::Uniform { bound: ((channels * p * p) as f64).powf(-0.5) };
        // FG-CLIP's trainer (Hugging Face's) lets decay act on everything but norms and biases.
        let class = at.param_that(true, "class_embedding", &[c], scaled);
        let image = at.param("patch_embedding.weight", &[c, 3, p, p], torch(3));
        let alpha = match config.alpha_init {
            AlphaInit::None => None,
            AlphaInit::Zero => Some(Init::Zeros),
            AlphaInit::Random => Some(torch(1)),
        };
        let mut own = at.of(ParamGroup::Alpha);
        let alpha = alpha.map(|init| own.param("alpha_patch_embedding.weight", &[c, 1, p, p], init));
        let positions = match config.positions {
            PositionStart::Normal { std } => Init::Normal { std },
            PositionStart::Waves { std } => Init::Waves { std, grid: config.grid() as u32 },
        };
        let positions = at.param("position_embedding.weight", &[config.patches() + 1, c], positions);
        Self { patch: p, class, image, alpha, positions }
    }

    /// `pixels` [B, 3, S, S], `mask` [B, 1, S, S] -> tokens [B, 1 + patches, C], fp32. A tower without an alpha
    /// convolution does not look at the mask.
    pub(super) fn forward(&self, w: &Weights<'_>, pixels: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let flat = |id: ParamId| w.fp32(id).flatten(1, -1);
        let (operands, input) = match mask.zip(self.alpha) {
            None => {
                let image = || (w.operand(&flat(self.image)), None);
                (w.cached((self.image, 1), image), pixels.shallow_clone())
            }
            Some((mask, alpha)) => {
                let joined = || (w.operand(&Tensor::cat(&[flat(self.image), flat(alpha)], 1)), None);
                (w.cached((alpha, 1), joined), Tensor::cat(&[pixels, mask], 1))
            }
        };
        let tokens = w.product(&patchify(&w.enter(&input), self.patch), &operands).to_kind(Kind::Float);
        let class = w.fp32(self.class).expand([tokens.size()[0], 1, -1], false);
        Tensor::cat(&[class, tokens], 1) + w.fp32(self.positions)
    }
}
