//! `pixfleet probe`: one forward and backward in fp32 on given tensors, world size 1, for people who port weights and
//! compare with another program number by number.
//!
//! IN (safetensors): `pixels` [N,3,S,S] and `mask` [N,1,S,S], normalized; `crop_pixels` [N,3,S,S], `crop_mask`
//! [N,1,S,S]; `boxes` [N,4] xyxy in 0..1; `text` [N,E]. What the loss preset does not use may be absent.
//! OUT: `image_features` [N,D], `crop_features` [N,D], `text_features` [N,D], `roi_features` [N,D], all L2-normalized;
//! `patch_map` [N,C,h,w]; `loss.global`, `loss.crop`, `loss.local`, `loss.total` []; `grad.<parameter name>` for every
//! parameter, zero where no gradient arrives.

mod inputs;
#[cfg(test)]
mod tests;

use crate::weights::{self, Preset};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use pixfleet_cluster::spec::{CropLoss, LocalLoss, LossPreset, LossSpec};
use pixfleet_model::objective::{Alone, Leaves, Losses, ThreeBranch};
use pixfleet_model::params::{read_tensors, save_tensors};
use pixfleet_model::step::{Pull, backward};
use pixfleet_model::{Compute, Features, Inputs, Model, ModelError};
use std::path::PathBuf;
use std::process::ExitCode;
use tch::{Device, Kind, Tensor};

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet probe --model eva02-b16 --weights model.safetensors --tensors in.safetensors --out out.safetensors")]
pub(crate) struct Args {
    /// Vision tower.
    #[arg(long, value_enum)]
    model: Preset,
    /// Weights, safetensors with the names of PixCLIP's checkpoints.
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
}

impl From<Loss> for LossPreset {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Default => Self::Default,
            Loss::TwoCl => Self::TwoCl,
            Loss::Fineclip => Self::Fineclip,
            Loss::Direct => Self::Direct,
            Loss::Alphaclip => Self::Alphaclip,
        }
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let loss = LossSpec::preset(args.loss.into());
    let mut model = weights::open(args.model, &args.weights, Device::Cpu)?;
    let origin = args.tensors.display().to_string();
    let bytes = std::fs::read(&args.tensors).with_context(|| format!("cannot read {origin}"))?;
    let inputs = inputs::check(read_tensors(&bytes, &origin)?, &inputs::Expected::of(&model, &loss), &origin)?;
    let out = probe(&mut model, &inputs, &loss)?;
    let bytes = save_tensors(out.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    std::fs::write(&args.out, bytes).with_context(|| format!("cannot write {}", args.out.display()))?;
    let losses = |name: &str| out.iter().find(|(n, _)| n == name).map_or(0.0, |(_, t)| t.double_value(&[]));
    eprintln!(
        "{} samples, loss {:.6} (global {:.6}, crop {:.6}, local {:.6}); {} tensors in {}",
        inputs.text.size()[0],
        losses("loss.total"),
        losses("loss.global"),
        losses("loss.crop"),
        losses("loss.local"),
        out.len(),
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Everything that OUT holds, by name.
fn probe(model: &mut Model, inputs: &Inputs, loss: &LossSpec) -> Result<Vec<(String, Tensor)>> {
    let mut out = features(model, inputs, loss)?;
    let losses = learn(model, inputs, loss)?;
    let scalars = [("global", losses.global), ("crop", losses.crop), ("local", losses.local), ("total", losses.total)];
    out.extend(scalars.map(|(name, value)| (format!("loss.{name}"), Tensor::from(value).to_kind(Kind::Float))));
    for p in model.params.iter() {
        let grad = p.tensor().grad();
        let grad = if grad.defined() { grad } else { p.tensor().zeros_like() };
        out.push((format!("grad.{}", p.name()), grad.detach()));
    }
    Ok(out)
}

/// All features that the given tensors allow, whether the loss uses them or not.
fn features(model: &Model, inputs: &Inputs, loss: &LossSpec) -> Result<Vec<(String, Tensor)>> {
    let crop = if inputs.crop_pixels.is_some() { CropLoss::C1 } else { CropLoss::Off };
    let local = if inputs.boxes.is_some() { LocalLoss::G3 } else { LocalLoss::Off };
    let all = LossSpec { crop, local, ..loss.clone() };
    tch::no_grad(|| {
        let features = model.encode(inputs, &all, Compute::FP32)?;
        let w = model.params.weights(Compute::FP32);
        let map = model.vision().forward(&w, &inputs.pixels, inputs.mask.as_ref(), true).map;
        let Features { image, crop, text, roi, .. } = features;
        let named = [
            ("image_features", Some(image)),
            ("text_features", Some(text)),
            ("crop_features", crop),
            ("roi_features", roi),
            ("patch_map", map),
        ];
        Ok(named.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t?))).collect())
    })
}

/// Losses; gradients stand in the parameters afterwards.
fn learn(model: &mut Model, inputs: &Inputs, loss: &LossSpec) -> Result<Losses> {
    model.params.zero_grad();
    let rows = inputs.text.size()[0];
    let lanes = [model.encode(inputs, loss, Compute::FP32)?];
    let valid = vec![true; usize::try_from(rows).map_err(|_| anyhow!("a tensor has no rows"))?];
    let leaves = Leaves::of_lanes(&lanes, valid)?;
    let scale = model.logit_scale().double_value(&[]);
    let outcome = ThreeBranch::new(loss).step_losses(&leaves, scale, &mut Alone::new(rows))?;
    let pull = Pull {
        grads: &outcome.grads,
        logit_scale: model.logit_scale(),
        grad_logit_scale: &outcome.grad_logit_scale,
        factor: 1.0,
    };
    backward(&lanes, pull, |_| Ok::<(), ModelError>(()))?;
    Ok(outcome.losses)
}
