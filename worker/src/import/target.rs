//! The models that weights can be imported for: a vision tower, a text tower, and the temperatures between them.

use super::plan::Source;
use clap::ValueEnum;
use pixfleet_cluster::spec::{AlphaInit, ModelSpec, TextProjSpec, VisionPreset};
use pixfleet_model::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use pixfleet_model::params::{Builder, Init};
use pixfleet_model::{Model, Params};
use tch::Device;

/// A model by name, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// EVA02-CLIP-B-16 at 224 px and the text adapter: PixCLIP.
    #[value(name = "eva02-b16")]
    Eva02B16,
    /// EVA02-CLIP-L-14 at 224 px and the text adapter.
    #[value(name = "eva02-l14")]
    Eva02L14,
    /// EVA02-CLIP-L-14 at 336 px and the text adapter.
    #[value(name = "eva02-l14-336")]
    Eva02L14At336,
    /// CLIP ViT-B/16 at 224 px and its text tower.
    #[value(name = "clip-b16")]
    ClipB16,
    /// CLIP ViT-L/14 at 336 px and its text tower.
    #[value(name = "clip-l14-336")]
    ClipL14At336,
    /// CLIP ViT-B/16 with an alpha convolution.
    #[value(name = "alphaclip-b16")]
    AlphaclipB16,
    /// CLIP ViT-L/14 at 336 px with an alpha convolution.
    #[value(name = "alphaclip-l14-336")]
    AlphaclipL14At336,
    /// FG-CLIP v1 on CLIP ViT-B/16: positions of long texts, a projection of their own, three temperatures.
    #[value(name = "fgclip1-b16")]
    Fgclip1B16,
    /// FG-CLIP v1 on CLIP ViT-L/14 at 336 px.
    #[value(name = "fgclip1-l14-336")]
    Fgclip1L14At336,
}

impl Target {
    /// As it is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eva02B16 => "eva02-b16",
            Self::Eva02L14 => "eva02-l14",
            Self::Eva02L14At336 => "eva02-l14-336",
            Self::ClipB16 => "clip-b16",
            Self::ClipL14At336 => "clip-l14-336",
            Self::AlphaclipB16 => "alphaclip-b16",
            Self::AlphaclipL14At336 => "alphaclip-l14-336",
            Self::Fgclip1B16 => "fgclip1-b16",
            Self::Fgclip1L14At336 => "fgclip1-l14-336",
        }
    }

    /// Its parameters as training from scratch begins. The text adapter's sizes are those of the files.
    pub(super) fn start(self, sources: &[Source]) -> Params {
        let (b16, l14) = (ClipVisionConfig::b16, ClipVisionConfig::l14_at_336);
        let (text_b16, text_l14) = (ClipTextConfig::b16, ClipTextConfig::l14);
        match self {
            Self::Eva02B16 => eva02(VisionPreset::Eva02B16, sources),
            Self::Eva02L14 => eva02(VisionPreset::Eva02L14, sources),
            Self::Eva02L14At336 => eva02(VisionPreset::Eva02L14At336, sources),
            Self::ClipB16 => clip(&b16(), &text_b16()),
            Self::ClipL14At336 => clip(&l14(), &text_l14()),
            Self::AlphaclipB16 => clip(&ClipVisionConfig { alpha: AlphaInit::Zero, ..b16() }, &text_b16()),
            Self::AlphaclipL14At336 => clip(&ClipVisionConfig { alpha: AlphaInit::Zero, ..l14() }, &text_l14()),
            Self::Fgclip1B16 => clip(&b16(), &ClipTextConfig { long: true, ..text_b16() }),
            Self::Fgclip1L14At336 => clip(&l14(), &ClipTextConfig { long: true, ..text_l14() }),
        }
    }
}

fn eva02(vision: VisionPreset, sources: &[Source]) -> Params {
    let text_proj = sources.iter().rev().find_map(text_proj).unwrap_or_default();
    Model::build(&ModelSpec { vision, text_proj, ..ModelSpec::default() }, 0, Device::Cpu).params
}

/// The text adapter's sizes by the shapes of a file's tensors, if it has one.
fn text_proj(source: &Source) -> Option<TextProjSpec> {
    let shape = |name: String| source.file.entries.get(&name).map(|entry| entry.shape.clone());
    let first = |layer: u32| shape(format!("text.text_adaptor.{layer}.fn.0.weight"));
    let layers = (0..).take_while(|&layer| first(layer).is_some()).count() as u32;
    let hidden = first(0)?.first().copied()?;
    let width = shape(format!("text.text_adaptor.{}.weight", layers + 1))?.get(1).copied()?;
    Some(TextProjSpec { width: width as u32, hidden: hidden as u32, layers, frozen: false })
}

/// A CLIP model of these sizes.
pub(super) fn clip(vision: &ClipVisionConfig, text: &ClipTextConfig) -> Params {
    let mut params = Params::new(Device::Cpu);
    let mut root = Builder::new(&mut params, 0);
    let scale = Init::Constant((1.0f64 / 0.07).ln());
    let scales: &[&str] =
        if text.long { &["logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"] } else { &["logit_scale"] };
    for name in scales {
        root.param(name, &[], scale);
    }
    ClipVision::new(vision, &mut root);
    ClipText::new(text, &mut root);
    params
}
