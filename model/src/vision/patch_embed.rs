//! Mask-aware patch embedding (method.md 1.2.1): `X0 = concat(cls, conv(image) + alpha_conv(mask)) + pos_embed`.
//!
//! A convolution whose stride is its kernel is one matrix product over flattened patches; image and mask are stacked
//! as four channels, so both convolutions are a single product.

use pixfleet_cluster::spec::AlphaInit;
use tch::{Kind, Tensor};

use super::config::VisionConfig;
use crate::params::{Builder, Init, ParamGroup, ParamId, Weights};

/// Parameters of the embedding.
#[derive(Debug)]
pub struct PatchEmbed {
    patch: i64,
    class: ParamId,
    positions: ParamId,
    image: (ParamId, ParamId),
    alpha: Option<(ParamId, ParamId)>,
}

impl PatchEmbed {
    /// Registers `cls_token`, `pos_embed`, `patch_embed.proj.*` and, if the tower has one, `alpha_patch_embed.proj.*`.
    pub(super) fn new(config: &VisionConfig, at: &mut Builder<'_>) -> Self {
        let (c, p) = (config.width, config.patch);
        let mut at = at.of(ParamGroup::Vision { above: config.depth as u32 + 1 });
        let class = at.param_that(false, "cls_token", &[1, 1, c], Init::Normal { std: 0.02 });
        let positions = at.param_that(false, "pos_embed", &[1, config.patches() + 1, c], Init::Normal { std: 0.02 });
        let conv = |mut at: Builder<'_>, channels: i64, init: Init| {
            (at.param("proj.weight", &[c, channels, p, p], init), at.param("proj.bias", &[c], init))
        };
        let torch = |channels: i64| Init::Uniform { bound: 1.0 / ((channels * p * p) as f64).sqrt() };
        let image = conv(at.below("patch_embed"), 3, torch(3));
        let alpha = match config.alpha_init {
            AlphaInit::None => None,
            AlphaInit::Zero => Some(Init::Zeros),
            AlphaInit::Random => Some(torch(1)),
        };
        let alpha = alpha.map(|init| conv(at.below("alpha_patch_embed").of(ParamGroup::Alpha), 1, init));
        Self { patch: p, class, positions, image, alpha }
    }

    /// `pixels` [B, 3, S, S], `mask` [B, 1, S, S] -> tokens [B, 1 + patches, C], fp32. A tower without an alpha
    /// convolution does not look at the mask.
    pub(super) fn forward(&self, w: &Weights<'_>, pixels: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let flat = |t: &Tensor| t.flatten(1, -1);
        let (operands, input) = match mask.zip(self.alpha) {
            None => {
                let image = || (w.operand(&flat(w.fp32(self.image.0))), Some(w.operand(w.fp32(self.image.1))));
                (w.cached((self.image.0, 1), image), pixels.shallow_clone())
            }
            Some((mask, alpha)) => {
                let joined = || {
                    let weight = Tensor::cat(&[flat(w.fp32(self.image.0)), flat(w.fp32(alpha.0))], 1);
                    (w.operand(&weight), Some(w.operand(&(w.fp32(self.image.1) + w.fp32(alpha.1)))))
                };
                (w.cached((alpha.0, 1), joined), Tensor::cat(&[pixels, mask], 1))
            }
        };
        let tokens = w.product(&patchify(&w.enter(&input), self.patch), &operands).to_kind(Kind::Float);
        let class = w.fp32(self.class).expand([tokens.size()[0], 1, -1], false);
        Tensor::cat(&[class, tokens], 1) + w.fp32(self.positions)
    }
}

/// [B, c, S, S] -> [B, patches, c * p * p]: patches row by row, each flattened as a convolution's weight is.
pub(crate) fn patchify(x: &Tensor, p: i64) -> Tensor {
    let size = x.size();
    let (b, c, g) = (size[0], size[1], size[2] / p);
    x.reshape([b, c, g, p, g, p]).permute([0, 2, 4, 1, 3, 5]).reshape([b, g * g, c * p * p])
}
