//! pixfleet's parameters under the names, and with the tables, of those who published the towers.

use crate::import::openai_names;
use anyhow::{Result, bail};
use clap::ValueEnum;
use pixfleet_checkpoint::{Dtype, HostTensor};
use pixfleet_model::vision::rope;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// EVA02's heads have this many channels, and its rotary frequencies were made for this grid (method.md 1.2).
const HEAD_WIDTH: i64 = 64;
const ROPE_GRID: i64 = 16;

/// Whose names a file bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// What the towers' official code loads with no key missing: PixCLIP's names with its rotary tables; for CLIP and
    /// FG-CLIP those of transformers.
    Official,
    /// The parameters alone, under pixfleet's names.
    Pixfleet,
    /// CLIP towers as OpenAI's own code names them.
    Openai,
    /// The vision tower of CLIP alone, as AlphaCLIP's files name it.
    Alphaclip,
}

/// `params` under `names`.
///
/// # Errors
/// If a parameter has no such name.
pub(super) fn named(params: Vec<HostTensor>, names: Names) -> Result<Vec<HostTensor>> {
    match names {
        Names::Pixfleet => Ok(params),
        Names::Official => {
            let tables = rope_tables(&params);
            Ok(params.into_iter().chain(tables).collect())
        }
        Names::Openai => Ok(openai(&params)?.iter().map(|(name, t)| host(name, t)).collect()),
        Names::Alphaclip => {
            let of_vision: Vec<HostTensor> = params
                .into_iter()
                .filter(|t| t.name.starts_with("vision_model.") || t.name == "visual_projection.weight")
                .collect();
            if of_vision.is_empty() {
                bail!("the model has no CLIP vision tower; AlphaCLIP's names are for that one");
            }
            let strip = |name: &str| name.strip_prefix("visual.").unwrap_or(name).to_owned();
            Ok(openai(&of_vision)?.iter().map(|(name, t)| host(&strip(name), t)).collect())
        }
    }
}

fn openai(params: &[HostTensor]) -> Result<BTreeMap<String, Tensor>> {
    let tensor = |t: &HostTensor| -> Result<(String, Tensor)> {
        if t.dtype != Dtype::F32 {
            bail!("`{}` has elements of type {:?}; expected F32", t.name, t.dtype);
        }
        let shape: Vec<i64> = t.shape.iter().map(|&s| s as i64).collect();
        Ok((t.name.clone(), Tensor::f_from_data_size(&t.bytes, &shape, Kind::Float)?))
    };
    openai_names(&params.iter().map(tensor).collect::<Result<_>>()?)
}

/// The buffers `freqs_cos` and `freqs_sin` [patches, 64] of PixCLIP's tower and again of each of its blocks, which share
/// them (method.md 1.6). None for another model.
fn rope_tables(params: &[HostTensor]) -> Vec<HostTensor> {
    let positions = params.iter().find(|t| t.name == "visual.pos_embed").and_then(|t| t.shape.get(1));
    let Some(&positions) = positions else { return vec![] };
    let grid = ((positions - 1) as f64).sqrt().round() as i64;
    // A pair of channels shares an angle.
    let angles = rope::angles(grid, ROPE_GRID, HEAD_WIDTH).repeat_interleave_self_int(2, 1, None);
    let tables = [("freqs_cos", angles.cos()), ("freqs_sin", angles.sin())];
    let blocks = params.iter().filter_map(|t| t.name.strip_suffix(".attn.q_proj.weight")).map(|b| format!("{b}.attn"));
    let owners: Vec<String> = std::iter::once("visual".to_owned()).chain(blocks).collect();
    let of_owner =
        |owner: &String| tables.iter().map(|(name, t)| host(&format!("{owner}.rope.{name}"), t)).collect::<Vec<_>>();
    owners.iter().flat_map(of_owner).collect()
}

fn host(name: &str, tensor: &Tensor) -> HostTensor {
    let tensor = tensor.detach().to_kind(Kind::Float).contiguous();
    let mut bytes = vec![0u8; tensor.numel() * 4];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    let shape = tensor.size().iter().map(|&s| s as usize).collect();
    HostTensor { name: name.to_owned(), dtype: Dtype::F32, shape, bytes: bytes.into() }
}
