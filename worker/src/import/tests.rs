//! Imports into models of small sizes: every family, every rule, every refusal.

mod families;
mod refusals;

use super::*;
use pixfleet_cluster::spec::{AlphaInit, LastBlock};
use pixfleet_model::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig, PositionStart};
use pixfleet_model::params::{Builder, Init, save_tensors};
use pixfleet_model::testing::hash_fill;
use std::collections::BTreeMap;
use tch::Tensor;
use tempfile::TempDir;

/// Named tensors, as a file holds them.
type Tensors = BTreeMap<String, Tensor>;

fn vision() -> ClipVisionConfig {
    ClipVisionConfig {
        image: 32,
        patch: 8,
        width: 64,
        depth: 2,
        heads: 1,
        hidden: 128,
        embed: 32,
        positions: PositionStart::Normal { std: 0.2 },
        alpha_init: AlphaInit::None,
        last_block: LastBlock::Normal,
    }
}

fn text() -> ClipTextConfig {
    ClipTextConfig {
        vocab: 100,
        width: 64,
        depth: 1,
        heads: 1,
        hidden: 128,
        embed: 32,
        short_positions: 77,
        long: false,
        eot: 99,
    }
}

/// The parameters of a CLIP model of these sizes, with FG-CLIP's temperatures if its texts may be long.
fn sized(vision: &ClipVisionConfig, text: &ClipTextConfig) -> Params {
    let mut params = Params::new(Device::Cpu);
    let mut root = Builder::new(&mut params, 0);
    let scales = ["logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"];
    for name in if text.long { &scales[..] } else { &scales[..1] } {
        root.param(name, &[], Init::Constant(2.0));
    }
    ClipVision::new(vision, &mut root);
    ClipText::new(text, &mut root);
    params
}

fn clip(alpha_init: AlphaInit, long: bool) -> Params {
    sized(&ClipVisionConfig { alpha_init, ..vision() }, &ClipTextConfig { long, ..text() })
}

fn eva() -> Params {
    let (spec, needs) = Preset::Tiny.model(TextProjSpec { width: 24, hidden: 40, layers: 2, frozen: false });
    Model::build(&spec, &needs, 0, Device::Cpu).params
}

/// A checkpoint that has every name and shape of `params`, and numbers of its own.
fn published(params: &Params) -> Tensors {
    params.iter().map(|p| (p.name().to_owned(), hash_fill(p.name(), &p.tensor().size(), 1.0))).collect()
}

fn file(folder: &TempDir, name: &str, tensors: &Tensors) -> PathBuf {
    let path = folder.path().join(name);
    let bytes = save_tensors(tensors.iter().map(|(name, t)| (name.as_str(), t))).expect("tensors are written");
    std::fs::write(&path, bytes).expect("the file is written");
    path
}

/// Imports `files` into `params`.
fn import(files: &[Tensors], params: &mut Params) -> Result<Plan> {
    let folder = tempfile::tempdir().expect("a folder");
    let paths: Vec<PathBuf> = (0..).zip(files).map(|(i, f)| file(&folder, &format!("{i}.safetensors"), f)).collect();
    let sources = paths.iter().map(|path| open(path, None)).collect::<Result<Vec<_>>>()?;
    let plan = Plan::new(&sources, &shapes(params), "clip-b16")?;
    fill(params, &plan, &sources)?;
    Ok(plan)
}

fn said(files: &[Tensors], params: &mut Params) -> String {
    format!("{:#}", import(files, params).expect_err("is refused"))
}

#[track_caller]
fn assert_equal(params: &Params, expected: &Tensors) {
    for p in params.iter() {
        let want = &expected[p.name()];
        assert_eq!(p.tensor().size(), want.size(), "{}", p.name());
        assert!((p.tensor() - want).abs().max().double_value(&[]) < 1e-6, "{}", p.name());
    }
}
