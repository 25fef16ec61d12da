//! `pixfleet probe`: one forward and backward in fp32 on given tensors, world size 1, for people who port weights and
//! compare with another program number by number. With an FG-CLIP model: [`fgclip`].
//!
//! IN (safetensors): `pixels` [N,3,S,S] and `mask` [N,1,S,S], normalized; `crop_pixels` [N,3,S,S], `crop_mask`
//! [N,1,S,S]; `boxes` [N,4] xyxy in 0..1; `text` [N,E]. What the loss preset does not use may be absent.
//! OUT: `image_features` [N,D], `crop_features` [N,D], `text_features` [N,D], `roi_features` [N,D], all L2-normalized;
//! `patch_map` [N,C,h,w]; `loss.global`, `loss.crop`, `loss.local`, `loss.total` []; `grad.<parameter name>` for every
//! parameter, zero where no gradient arrives.

mod fgclip;
mod inputs;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fgclip;

use crate::weights::{self, Preset};
use anyhow::{Context, Result};
use clap::ValueEnum;
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{DataSpec, GlobalLoss, LossPreset, LossSpec, Needs};
use pixfleet_model::objective::{Alone, Leaves, Objective, Told};
use pixfleet_model::params::{read_tensors, save_tensors};
use pixfleet_model::step::{Pull, backward};
use pixfleet_model::{Compute, Inputs, Model, ModelError};
use std::path::PathBuf;
use std::process::ExitCode;
use tch::{Device, Kind, Tensor};

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet probe --model eva02-b16 --weights model.safetensors --tensors in.safetensors --out out.safetensors
  pixfleet probe --model fgclip1-b16 --loss fgclip1 --weights model.safetensors --tensors in.safetensors --out out.safetensors

The tensors of IN and OUT stand in the documentation of each model's probe: pixels, mask, crop_pixels, crop_mask, boxes and \
text for PixCLIP; pixels, text_long, text_short, boxes, box_counts, text_region, hard_boxes, hard_counts and text_hard for \
FG-CLIP.")]
pub(crate) struct Args {
    /// Towers.
    #[arg(long, value_enum)]
    model: Preset,
    /// Weights, safetensors with the names of the system's own checkpoints.
    #[arg(long)]
    weights: PathBuf,
    /// Input tensors, safetensors.
    #[arg(long)]
    tensors: PathBuf,
    /// Combination of losses.
    #[arg(long, value_enum, default_value = "default")]
    loss: Loss,
    /// Where features, losses and gradients go, safetensors.
    #[arg(long)]
    out: PathBuf,
}

/// A loss preset, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loss {
    /// B1 + C1 + G1.
    Default,
    /// B1 + C1.
    #[value(name = "2cl")]
    TwoCl,
    /// B1 + G1 without stop-gradient + G2.
    Fineclip,
    /// B1 + C2 + G3.
    Direct,
    /// B1 alone.
    Alphaclip,
    /// FG-CLIP's captions, regions and hard negatives.
    Fgclip1,
}

impl From<Loss> for LossPreset {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Default => Self::Default,
            Loss::TwoCl => Self::TwoCl,
            Loss::Fineclip => Self::Fineclip,
            Loss::Direct => Self::Direct,
            Loss::Alphaclip => Self::Alphaclip,
            Loss::Fgclip1 => Self::Fgclip1Stage2,
        }
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let loss = LossSpec::preset(args.loss.into());
    let captions = loss.global == GlobalLoss::Captions;
    anyhow::ensure!(
        captions == args.model.is_fgclip(),
        "--loss {:?} and --model {:?} are of two systems; FG-CLIP's models go with --loss fgclip1",
        args.loss,
        args.model
    );
    anyhow::ensure!(
        captions || args.model.reads_vectors(),
        "--model {} reads token ids, which the probe takes for FG-CLIP's models alone; expected one of those, or of EVA02",
        args.model.name()
    );
    let needs = if captions { fgclip::needs(&loss) } else { Needs::of(&loss, &DataSpec::default()) };
    let mut model = weights::open(args.model, &args.weights, Device::Cpu)?;
    let origin = args.tensors.display().to_string();
    let bytes = std::fs::read(&args.tensors).with_context(|| format!("cannot read {origin}"))?;
    let out = if captions {
        let inputs = fgclip::read(&bytes, &origin, model.vision().image())?;
        fgclip::probe(&mut model, &inputs, (&needs, &loss))?
    } else {
        let inputs = inputs::check(read_tensors(&bytes, &origin)?, &inputs::Expected::of(&model, &needs), &origin)?;
        probe(&mut model, &inputs, (&needs, &loss))?
    };
    let bytes = save_tensors(out.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    std::fs::write(&args.out, bytes).with_context(|| format!("cannot write {}", args.out.display()))?;
    let losses = out.iter().filter_map(|(name, t)| Some((name.strip_prefix("loss.")?, t.double_value(&[]))));
    let losses: Vec<String> = losses.map(|(name, loss)| format!("{name} {loss:.6}")).collect();
    eprintln!("losses: {}; {} tensors in {}", losses.join(", "), out.len(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Everything that OUT holds, by name.
fn probe(model: &mut Model, inputs: &Inputs, (needs, loss): (&Needs, &LossSpec)) -> Result<Vec<(String, Tensor)>> {
    let mut out = features(model, inputs, needs)?;
    let (_, told) = learn(model, inputs, (needs, loss))?;
    let scalars = ["global", "crop", "local"].map(|name| (name, branch(&told, name)));
    let scalars = scalars.into_iter().chain([("total", told.total)]);
    out.extend(scalars.map(|(name, value)| (format!("loss.{name}"), Tensor::from(value).to_kind(Kind::Float))));
    out.extend(gradients(model));
    Ok(out)
}

/// The gradient of every parameter, zero where none arrived.
fn gradients(model: &Model) -> impl Iterator<Item = (String, Tensor)> {
    model.params.iter().map(|p| {
        let grad = p.tensor().grad();
        let grad = if grad.defined() { grad } else { p.tensor().zeros_like() };
        (format!("grad.{}", p.name()), grad.detach())
    })
}

/// The sum of a branch's terms: of `local` and `local_text`, say.
fn branch(told: &Told, name: &str) -> f64 {
    told.terms.iter().filter(|t| t.name.split('_').next() == Some(name)).map(|t| t.loss).sum()
}

/// All features that the given tensors allow, whether the loss uses them or not.
fn features(model: &Model, inputs: &Inputs, needs: &Needs) -> Result<Vec<(String, Tensor)>> {
    let mut all = needs.clone();
    for (set, given) in [(Set::Crop, inputs.crop_pixels.is_some()), (Set::Region, inputs.boxes.is_some())] {
        all = if given { all.with(set) } else { all };
    }
    tch::no_grad(|| {
        let features = model.encode(inputs, &all, Compute::FP32)?;
        let w = model.params.weights(Compute::FP32);
        let map = model.vision().forward(&w, &inputs.pixels, inputs.mask.as_ref(), true).map;
        let of = |set| features.of(set).map(Tensor::shallow_clone);
        let named = [
            ("image_features", of(Set::Image)),
            ("text_features", of(Set::RegionText)),
            ("crop_features", of(Set::Crop)),
            ("roi_features", of(Set::Region)),
            ("patch_map", map),
        ];
        Ok(named.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t?))).collect())
    })
}

/// Features and losses of one lane; gradients stand in the parameters afterwards.
fn learn(model: &mut Model, inputs: &Inputs, (needs, loss): (&Needs, &LossSpec)) -> Result<(Leaves, Told)> {
    model.params.zero_grad()?;
    let lane = model.encode(inputs, needs, Compute::FP32)?;
    let rows = inputs.pixels.size()[0];
    let leaves = Leaves::of_lanes(std::slice::from_ref(&lane))?;
    let step = Objective::new(needs, loss).step_losses(&leaves, model.scales()?, &mut Alone::new(rows))?;
    let temperatures = model.temperatures();
    let pull = Pull { loss: &step, leaves: &leaves, temperatures: &temperatures };
    let mut lane = Some(lane);
    backward(pull, |_| Ok::<_, ModelError>(lane.take().expect("there is one lane")))?;
    let told = step.tell()?;
    Ok((leaves, told))
}
