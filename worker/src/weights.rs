//! A safetensors file of weights -> the model it belongs to: the preset is told, the text adapter's sizes are read from
//! the file's own shapes.

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use pixfleet_cluster::spec::{
    AlphaInit, DataSpec, LastBlock, LossPreset, LossSpec, ModelSpec, Needs, TextPreset, TextProjSpec, VisionPreset,
};
use pixfleet_model::Model;
use pixfleet_model::params::LoadOptions;
use safetensors::SafeTensors;
use std::path::Path;
use tch::Device;

/// A model by name, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A few million parameters: for CPUs, tests and the demo.
    Tiny,
    /// EVA02-CLIP-B-16 at 224 px.
    #[value(name = "eva02-b16")]
    Eva02B16,
    /// EVA02-CLIP-L-14 at 224 px.
    #[value(name = "eva02-l14")]
    Eva02L14,
    /// EVA02-CLIP-L-14 at 336 px.
    #[value(name = "eva02-l14-336")]
    Eva02L14At336,
    /// CLIP ViT-B/16 at 224 px and its text tower.
    #[value(name = "clip-b16")]
    ClipB16,
    /// CLIP ViT-L/14 at 336 px and its text tower.
    #[value(name = "clip-l14-336")]
    ClipL14At336,
    /// CLIP ViT-B/16 with an alpha convolution, and its text tower: AlphaCLIP.
    #[value(name = "alphaclip-b16")]
    AlphaclipB16,
    /// CLIP ViT-L/14 at 336 px with an alpha convolution, and its text tower.
    #[value(name = "alphaclip-l14-336")]
    AlphaclipL14At336,
    /// FG-CLIP v1's tiny twin.
    #[value(name = "fgclip1-tiny")]
    Fgclip1Tiny,
    /// FG-CLIP v1 over CLIP ViT-B/16.
    #[value(name = "fgclip1-b16")]
    Fgclip1B16,
    /// FG-CLIP v1 over CLIP ViT-L/14 at 336 px.
    #[value(name = "fgclip1-l14-336")]
    Fgclip1L14At336,
}

impl Preset {
    /// Vision tower and text tower.
    fn towers(self) -> (VisionPreset, TextPreset) {
        match self {
            Self::Tiny => (VisionPreset::Tiny, TextPreset::Adapter),
            Self::Eva02B16 => (VisionPreset::Eva02B16, TextPreset::Adapter),
            Self::Eva02L14 => (VisionPreset::Eva02L14, TextPreset::Adapter),
            Self::Eva02L14At336 => (VisionPreset::Eva02L14At336, TextPreset::Adapter),
            Self::Fgclip1Tiny => (VisionPreset::TinyClip, TextPreset::TinyClip),
            Self::ClipB16 | Self::AlphaclipB16 | Self::Fgclip1B16 => (VisionPreset::ClipB16, TextPreset::ClipB16),
            Self::ClipL14At336 | Self::AlphaclipL14At336 | Self::Fgclip1L14At336 => {
                (VisionPreset::ClipL14At336, TextPreset::ClipL14)
            }
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether its texts are stored vectors, through the adapter.
    pub(crate) fn reads_vectors(self) -> bool {
        self.towers().1 == TextPreset::Adapter
    }

    /// How its alpha convolution starts, and its last block on the way to the patch map.
    fn patches(self) -> (AlphaInit, LastBlock) {
        match self {
            Self::Tiny
            | Self::Eva02B16
            | Self::Eva02L14
            | Self::Eva02L14At336
            | Self::AlphaclipB16
            | Self::AlphaclipL14At336 => (AlphaInit::Zero, LastBlock::Normal),
            Self::ClipB16 | Self::ClipL14At336 => (AlphaInit::None, LastBlock::Normal),
            Self::Fgclip1Tiny | Self::Fgclip1B16 | Self::Fgclip1L14At336 => (AlphaInit::None, LastBlock::AttentionFree),
        }
    }

    /// Whether it is a model of FG-CLIP.
    pub(crate) fn is_fgclip(self) -> bool {
        match self {
            Self::Tiny
            | Self::Eva02B16
            | Self::Eva02L14
            | Self::Eva02L14At336
            | Self::ClipB16
            | Self::ClipL14At336
            | Self::AlphaclipB16
            | Self::AlphaclipL14At336 => false,
            Self::Fgclip1Tiny | Self::Fgclip1B16 | Self::Fgclip1L14At336 => true,
        }
    }

    /// The model of a run that trains it, and what that run needs. `adapter`: the text adapter's sizes.
    pub(crate) fn model(self, adapter: TextProjSpec) -> (ModelSpec, Needs) {
        let (vision, text) = self.towers();
        let (alpha_init, last_block) = self.patches();
        let model = ModelSpec { vision, text, text_proj: adapter, alpha_init, last_block, ..ModelSpec::default() };
        let loss = if self.is_fgclip() { LossPreset::Fgclip1Stage2 } else { LossPreset::Default };
        (model, Needs::of(&LossSpec::preset(loss), &DataSpec::default()))
    }
}

/// Parameters that a file from before the mask-aware patch embedding lacks (method.md 1.6); they stay zero, which is
/// that model exactly.
const ALPHA: &str = "visual.alpha_patch_embed.";

/// The model of `preset` with the weights of `path`, ready on `device`. Every parameter must be in the file, the alpha
/// convolution's excepted; what the file holds beyond the model is an error as well.
///
/// # Errors
/// A file that cannot be read or is of another model; names and shapes stand in the message.
pub(crate) fn open(preset: Preset, path: &Path, device: Device) -> Result<Model> {
    let origin = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {origin}"))?;
    let adapter = if preset.reads_vectors() { text_proj(&bytes, &origin)? } else { TextProjSpec::default() };
    let (spec, needs) = preset.model(adapter);
    let mut model = Model::build(&spec, &needs, 0, device);
    let report = model.params.load_bytes(&bytes, &origin, &LoadOptions::default())?;
    let (alpha, missing): (Vec<_>, Vec<_>) = report.missing.iter().partition(|name| name.starts_with(ALPHA));
    if !missing.is_empty() {
        let shown = missing.iter().take(8).map(|name| match model.params.get(name) {
            Some(tensor) => format!("{name} {:?}", tensor.size()),
            None => (*name).clone(),
        });
        let shown: Vec<String> = shown.collect();
        bail!(
            "{origin} lacks {} parameters of the model; expected, with shapes: {}{}",
            missing.len(),
            shown.join(", "),
            more(missing.len())
        );
    }
    if !report.unexpected.is_empty() {
        let n = report.unexpected.len();
        let shown: Vec<&str> = report.unexpected.iter().take(8).map(String::as_str).collect();
        bail!(
            "{origin} holds {n} tensors that the model does not have: {}{}; is --model the right preset?",
            shown.join(", "),
            more(n)
        );
    }
    if !alpha.is_empty() {
        tracing::warn!(file = origin, "the file has no alpha convolution; it starts at zero, so masks have no effect");
    }
    Ok(model)
}

fn more(n: usize) -> &'static str {
    if n > 8 { ", ..." } else { "" }
}

/// The text adapter's sizes by the shapes of its tensors.
fn text_proj(bytes: &[u8], origin: &str) -> Result<TextProjSpec> {
    let file =
        SafeTensors::deserialize(bytes).with_context(|| format!("{origin} is not a readable safetensors file"))?;
    let shape = |name: &str| file.tensor(name).ok().map(|t| t.shape().to_vec());
    let layers = (0u32..).take_while(|i| shape(&format!("text.text_adaptor.{i}.fn.0.weight")).is_some()).count() as u32;
    let lacks = |what: String| anyhow!("{origin} lacks {what}; expected the names of PixCLIP's checkpoints");
    let last = format!("text.text_adaptor.{}.weight", layers + 1);
    let width =
        shape(&last).and_then(|s| s.get(1).copied()).ok_or_else(|| lacks(format!("{last} [embed_dim, text width]")))?;
    let hidden = shape("text.text_adaptor.0.fn.0.weight").map_or(0, |s| s[0]);
    Ok(TextProjSpec { width: width as u32, hidden: hidden as u32, layers, frozen: false })
}
