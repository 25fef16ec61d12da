//! Model FLOPs of a lane: its towers' matrix products and attention by their sizes, a multiply and an add counted as two, and
//! backward as two forwards (Chowdhery et al. 2022, "PaLM", appendix B). What is computed again counts once; norms,
//! activations, pooling and losses are left out.

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{LastBlock, Needs, PatchMapMask, TextProjSpec};

use crate::clip::{ClipTextConfig, ClipVisionConfig};
use crate::items::{Inputs, Slots, TextItems};
use crate::towers::{Model, TextTower, VisionSizes, text_is_frozen};
use crate::vision::VisionConfig;

/// FLOPs by tower, forward and backward, as far as each is run and learns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flops {
    /// The vision tower over images, and the regions pooled from it.
    pub image: f64,
    /// The vision tower over crops.
    pub crop: f64,
    /// The teacher's.
    pub teacher: f64,
    /// The text tower.
    pub text: f64,
}

impl Flops {
    /// Of all towers.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.image + self.crop + self.teacher + self.text
    }

    /// Each with its name.
    pub fn by_tower(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [("image", self.image), ("crop", self.crop), ("teacher", self.teacher), ("text", self.text)].into_iter()
    }
}

impl std::ops::AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        self.image += other.image;
        self.crop += other.crop;
        self.teacher += other.teacher;
        self.text += other.text;
    }
}

impl Model {
    /// What a lane's forward and backward come to.
    #[must_use]
    pub fn flops(&self, inputs: &Inputs, needs: &Needs) -> Flops {
        let sizes = self.vision().sizes();
        let count = |set: Set| inputs.slots.get(set).map_or(0, Slots::count) as f64;
        let rows = inputs.pixels.size().first().copied().unwrap_or(0) as f64;
        let pass = |learns: bool| if learns { 3.0 } else { 1.0 };
        let shared = self.spec().patch_map_mask == PatchMapMask::Shared;
        let image = match (needs.patch_map(), shared) {
            (false, _) => sizes.image_flops(false),
            (true, true) => sizes.image_flops(true),
            (true, false) => sizes.image_flops(false) + sizes.image_flops(true),
        };
        let crop = count(Set::Crop) * sizes.image_flops(false);
        let texts = needs.texts().filter_map(|set| inputs.texts.get(set));
        Flops {
            image: pass(true) * (rows * image + count(Set::Region) * sizes.head_flops()),
            crop: pass(needs.learns(Set::Crop)) * crop,
            teacher: count(Set::Teacher) * sizes.image_flops(false),
            text: pass(!text_is_frozen(self.spec())) * texts.map(|texts| self.text_flops(texts)).sum::<f64>(),
        }
    }

    /// Forward of these texts, each by its own length.
    fn text_flops(&self, texts: &TextItems) -> f64 {
        match (self.text(), texts) {
            (TextTower::Adapter(_), TextItems::Vectors(vectors)) => {
                let TextProjSpec { width, hidden, layers, .. } = self.spec().text_proj;
                let (width, embed) = (i64::from(width), self.vision().sizes().embed());
                let weights = i64::from(layers) * 2 * width * i64::from(hidden) + width * embed;
                vectors.size().first().copied().unwrap_or(0) as f64 * 2.0 * weights as f64
            }
            (TextTower::Clip(clip), TextItems::Tokens(tokens)) => {
                tokens.lengths.iter().map(|&length| text_flops(clip.config(), length)).sum()
            }
            // `encode` refuses these.
            (TextTower::Adapter(_), TextItems::Tokens(_)) | (TextTower::Clip(_), TextItems::Vectors(_)) => 0.0,
        }
    }
}

/// Blocks of one width.
struct Blocks {
    tokens: i64,
    width: i64,
    /// Weights of a block's MLP.
    mlp: i64,
}

impl Blocks {
    /// One block over all tokens.
    fn whole(&self) -> f64 {
        self.values() + self.products(2 * self.width * self.width) + self.attention(self.tokens)
    }

    /// One block whose output is read at one token.
    fn of_one(&self) -> f64 {
        let keys_and_values = self.products(2 * self.width * self.width);
        keys_and_values + 2.0 * (2 * self.width * self.width + self.mlp) as f64 + self.attention(1)
    }

    /// One block without attention: values, their projection, the MLP.
    fn values(&self) -> f64 {
        self.products(2 * self.width * self.width + self.mlp)
    }

    /// Products of every token with so many weights.
    fn products(&self, weights: i64) -> f64 {
        2.0 * self.tokens as f64 * weights as f64
    }

    /// Scores and sums of values for so many queries.
    fn attention(&self, queries: i64) -> f64 {
        4.0 * queries as f64 * self.tokens as f64 * self.width as f64
    }

    /// A tower of `depth`; its last block in the form that its reader needs.
    fn tower(&self, depth: i64, map: Option<LastBlock>) -> f64 {
        let last = match map {
            None => self.of_one(),
            Some(LastBlock::Normal) => self.whole(),
            Some(LastBlock::AttentionFree) => self.of_one() + self.values(),
        };
        (depth - 1) as f64 * self.whole() + last
    }
}

impl VisionSizes {
    /// Forward of one image, with its patch map or without.
    fn image_flops(&self, map: bool) -> f64 {
        let (patches, patch, blocks, depth, last) = match self {
            Self::Eva(VisionConfig { width, hidden, depth, patch, last_block, .. }) => {
                (self.patches(), *patch, (*width, 3 * width * hidden), *depth, *last_block)
            }
            Self::Clip(ClipVisionConfig { width, hidden, depth, patch, last_block, .. }) => {
                (self.patches(), *patch, (*width, 2 * width * hidden), *depth, *last_block)
            }
        };
        let (width, mlp) = blocks;
        let embed = 2.0 * patches as f64 * (4 * patch * patch * width) as f64;
        let blocks = Blocks { tokens: patches + 1, width, mlp };
        embed + blocks.tower(depth, map.then_some(last)) + self.head_flops()
    }

    /// Projection of one feature to the joint space.
    fn head_flops(&self) -> f64 {
        let width = match self {
            Self::Eva(config) => config.width,
            Self::Clip(config) => config.width,
        };
        2.0 * (width * self.embed()) as f64
    }

    fn patches(&self) -> i64 {
        match self {
            Self::Eva(config) => config.patches(),
            Self::Clip(config) => config.patches(),
        }
    }
}

/// Forward of one text: read at its end alone.
fn text_flops(config: &ClipTextConfig, tokens: i64) -> f64 {
    let blocks = Blocks { tokens, width: config.width, mlp: 2 * config.width * config.hidden };
    blocks.tower(config.depth, None) + 2.0 * (config.width * config.embed) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_cluster::spec::VisionPreset;

    #[test]
    fn a_tower_has_the_flops_that_its_authors_state() {
        // Sun et al. 2023, "EVA-CLIP", table 9: image towers at 224 px, a multiply and an add counted as one.
        for (preset, gigas) in [(VisionPreset::Eva02B16, 18.3), (VisionPreset::Eva02L14, 81.2)] {
            let config = VisionConfig::preset(preset).expect("an EVA02 tower");
            let found = VisionSizes::Eva(config).image_flops(true) / 2e9;
            assert!((found / gigas - 1.0).abs() < 0.08, "{preset:?}: {found} and {gigas}");
        }
        let clip = VisionSizes::Clip(ClipVisionConfig::b16()).image_flops(true) / 2e9;
        assert!((clip / 17.6 - 1.0).abs() < 0.05, "ViT-B/16 (Dosovitskiy et al. 2021): {clip}");
    }

    #[test]
    fn a_block_that_is_read_at_one_token_costs_less_and_attention_grows_with_the_square() {
        let of = |tokens| Blocks { tokens, width: 64, mlp: 8 * 64 * 64 };
        assert!(of(197).of_one() < 0.3 * of(197).whole());
        let without = |tokens: i64| of(tokens).whole() - of(tokens).products(12 * 64 * 64);
        assert!((without(200) / without(100) - 4.0).abs() < 1e-9);
    }
}
