//! `pixfleet-worker import`: a published checkpoint -> a file of weights under pixfleet's names, for `model.weights`.
//!
//! Names are mapped by tables ([`clip`], [`openai`], [`eva`]), the [`plan`] decides on names and shapes alone, [`change`]
//! does what it says. Nothing is guessed: a parameter that no file holds is made up by a published rule, or it is an
//! error.

mod back;
mod change;
mod clip;
mod eva;
mod family;
mod file;
mod openai;
mod plan;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod tower;
mod write;

pub(crate) use back::openai_names;

use crate::weights::Preset;
use anyhow::{Context, Result, anyhow};
use family::Family;
use file::WeightFile;
use pixfleet_cluster::spec::TextProjSpec;
use pixfleet_model::{Model, Params};
use plan::{Origin, Plan, Shapes, Source};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tch::Device;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
FILE is safetensors, an index of several safetensors files (*.index.json), a folder with model.safetensors as the Hub has
them (also as hf://OWNER/NAME), or a zip file of torch.save (.pt, .pth, pytorch_model.bin). Of a torch.save file nothing is executed: what names anything but tensors and containers is refused.
With several files a later one goes before an earlier one.

Examples:
  pixfleet import clip-vit-base-patch16/model.safetensors --to clip-b16 --out clip.safetensors
  pixfleet import clip-vit-base-patch16/model.safetensors --to fgclip1-b16 --out start.safetensors
  pixfleet import hf://openai/clip-vit-base-patch16 --to clip-b16 --out clip.safetensors
  pixfleet import LLM2CLIP-EVA02-B-16.pt --to eva02-b16 --out start.safetensors
  pixfleet import PixCLIP_B16.pth --from pixclip --to eva02-b16 --out pixclip.safetensors
  pixfleet import clip-vit-base-patch16/model.safetensors clip_b16_grit1m_fultune_8xe.pth --to alphaclip-b16 --out alpha.safetensors

The file goes into a run file as `model.weights`, and into `pixfleet probe --weights`.")]
pub(crate) struct Args {
    /// The checkpoint, or several that complete each other.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model that the weights are for.
    #[arg(long, value_enum, value_name = "MODEL")]
    to: Preset,
    /// Whose names the files bear; told apart by the names if left out.
    #[arg(long, value_enum, value_name = "FAMILY")]
    from: Option<Family>,
    /// The file to write, safetensors.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let sources = args.files.iter().map(|path| open(path, args.from)).collect::<Result<Vec<_>>>()?;
    let target = args.to.name();
    let mut params = start(args.to, &sources);
    let plan = Plan::new(&sources, &shapes(&params), &target)?;
    fill(&mut params, &plan, &sources)?;
    write::write(&params, &args.out)?;
    eprintln!("{}\n", table::table(&plan));
    let [mapped, changed, made_up] = table::counts(&plan);
    eprintln!(
        "{}: {} tensors, {:.1} million numbers, for {}: {mapped} as they were, {changed} changed, {made_up} made up; {} of the \
         input left out",
        args.out.display(),
        params.len(),
        params.elements() as f64 / 1e6,
        target,
        plan.left_out.len()
    );
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path, from: Option<Family>) -> Result<Source> {
    let file = WeightFile::open(path)?;
    let detected = || Family::detect(|name| file.entries.contains_key(name));
    let family = from.or_else(detected).ok_or_else(|| {
        let shown: Vec<&str> = file.entries.keys().take(4).map(String::as_str).collect();
        anyhow!(
            "{}: its names ({}, ...) are of no family that is known; say which with --from, see `pixfleet import --help`",
            file.origin,
            shown.join(", ")
        )
    })?;
    Ok(Source { file, family })
}

/// The model's parameters as training from scratch begins. The text adapter's sizes are those of the files.
fn start(to: Preset, sources: &[Source]) -> Params {
    let (spec, needs) = to.model(sources.iter().rev().find_map(text_proj).unwrap_or_default());
    Model::build(&spec, &needs, 0, Device::Cpu).params
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

fn shapes(params: &Params) -> Shapes {
    params.iter().map(|p| (p.name().to_owned(), p.tensor().size())).collect()
}

/// Gives every parameter the values that the plan says. What is made up of another parameter comes after it.
fn fill(params: &mut Params, plan: &Plan, sources: &[Source]) -> Result<()> {
    for (parameter, origin) in &plan.origins {
        let Origin::File { source, name, changes, .. } = origin else { continue };
        let expected = params.get(parameter).map(tch::Tensor::size).unwrap_or_default();
        let tensor = sources[*source].file.tensor(name)?;
        let tensor = change::apply(tensor, changes, &expected).with_context(|| format!("`{name}` as `{parameter}`"))?;
        params.set(parameter, &tensor)?;
    }
    for (parameter, origin) in &plan.origins {
        let Origin::MadeUp(rule) = origin else { continue };
        let fresh = params.get(parameter).ok_or_else(|| anyhow!("the model has no `{parameter}`"))?;
        if let Some(tensor) = change::make_up(*rule, fresh, |name| params.get(name))? {
            params.set(parameter, &tensor)?;
        }
    }
    Ok(())
}
