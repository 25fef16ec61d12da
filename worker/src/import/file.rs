//! A file of weights: safetensors whole, safetensors in several files with their index, or torch.save. Its list of
//! tensors is at hand, their values are taken one by one.

use crate::hub::{WeightIndex, is_hub_folder, weights_at};
use anyhow::{Context, Result, anyhow, bail};
use pixfleet_checkpoint::torch_file::TorchFile;
use pixfleet_checkpoint::{Dtype, HostTensor, decode};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use tch::{Kind, Tensor};

/// A tensor without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<i64>,
}

/// An open file of weights.
#[derive(Debug)]
pub(super) struct WeightFile {
    /// As it is called in messages.
    pub(super) origin: String,
    pub(super) entries: BTreeMap<String, Entry>,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Torch(Box<TorchFile>),
    Safetensors(BTreeMap<String, HostTensor>),
}

impl WeightFile {
    /// Opens `path`: what it is, its first bytes tell; an index is known by its name, `*.index.json`. It may also be a folder
    /// of the Hub's layout, or `hf://OWNER/NAME`.
    ///
    /// # Errors
    /// If it cannot be read, or is none of the formats.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let contents = if is_hub_folder(&origin) {
            Contents::Safetensors(of_folder(&origin)?)
        } else if origin.ends_with(".index.json") {
            Contents::Safetensors(indexed(path)?)
        } else if is_safetensors(path).with_context(|| format!("cannot read {origin}"))? {
            Contents::Safetensors(whole(path)?)
        } else {
            Contents::Torch(Box::new(TorchFile::open(path)?))
        };
        let sizes = |shape: &[usize]| shape.iter().map(|&s| s as i64).collect();
        let entries = match &contents {
            Contents::Torch(file) => {
                file.tensors().map(|(name, dtype, s)| (name.to_owned(), Entry { dtype, shape: sizes(s) })).collect()
            }
            Contents::Safetensors(tensors) => {
                let entry = |t: &HostTensor| Entry { dtype: t.dtype, shape: sizes(&t.shape) };
                tensors.iter().map(|(name, t)| (name.clone(), entry(t))).collect()
            }
        };
        Ok(Self { origin, entries, contents })
    }

    /// The values of a tensor, fp32 on the CPU.
    ///
    /// # Errors
    /// If there is no such name, its elements are no floats, or the file cannot be read.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        let host = match &self.contents {
            Contents::Torch(file) => file.read(name)?,
            Contents::Safetensors(tensors) => {
                tensors.get(name).cloned().ok_or_else(|| anyhow!("{} holds no tensor `{name}`", self.origin))?
            }
        };
        let kind = match host.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            other => bail!("`{name}` in {} has elements of type {other:?}; expected floats", self.origin),
        };
        let shape: Vec<i64> = host.shape.iter().map(|&s| s as i64).collect();
        Ok(Tensor::f_from_data_size(&host.bytes, &shape, kind)?.to_kind(Kind::Float))
    }
}

/// Safetensors begin with the length of their header, a JSON object.
fn is_safetensors(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(9).read_to_end(&mut head)?;
    Ok(matches!(head[..], [_, _, _, _, 0, 0, 0, 0, b'{']))
}

fn whole(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let origin = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {origin}"))?;
    let tensors = decode(&origin, &bytes.into()).with_context(|| format!("{origin} is damaged or truncated"))?;
    Ok(tensors.into_iter().map(|t| (t.name.clone(), t)).collect())
}

fn indexed(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let origin = path.display().to_string();
    let text = std::fs::read(path).with_context(|| format!("cannot read {origin}"))?;
    let index = WeightIndex::parse(&origin, &text)?;
    let mut tensors = BTreeMap::new();
    for file in index.files() {
        tensors.extend(whole(&path.with_file_name(file))?);
    }
    index.holds(|name| tensors.contains_key(name))?;
    Ok(tensors)
}

fn of_folder(at: &str) -> Result<BTreeMap<String, HostTensor>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tensors = runtime.block_on(weights_at(at))?;
    Ok(tensors.into_iter().map(|t| (t.name.clone(), t)).collect())
}
