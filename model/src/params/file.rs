//! Parameters and safetensors files. Loading is not strict: what a file lacks keeps its start, what it holds beyond
//! the model is reported. A wrong shape is an error, except where a published rule says how to convert.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::Params;
use crate::error::ModelError;

/// What to leave out of a file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Names that begin so are not loaded: `visual.head.` and `text.` when the file's joint space is another one.
    pub skip: Vec<String>,
}

/// What a load did, every list in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters that took the file's values.
    pub loaded: usize,
    /// Parameters that the file lacks; they keep their start.
    pub missing: Vec<String>,
    /// Names in the file that the model lacks.
    pub unexpected: Vec<String>,
    /// Position embeddings that were resized to the model's grid.
    pub resized: Vec<String>,
}

impl Params {
    /// Loads a safetensors file; see [`Params::load_bytes`].
    ///
    /// # Errors
    /// As [`Params::load_bytes`], and if the file cannot be read.
    pub fn load_safetensors(&mut self, path: &Path, options: &LoadOptions) -> Result<LoadReport, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        self.load_bytes(&bytes, &path.display().to_string(), options)
    }

    /// Loads the bytes of a safetensors file by name, with the import rules of PixCLIP's own loader (method.md 1.6):
    /// `q_bias` and `v_bias` become `q_proj.bias` and `v_proj.bias`, RoPE tables and the language model are ignored,
    /// a position embedding of another square grid is resized bicubically. `origin` names the file in messages.
    ///
    /// # Errors
    /// If the bytes are not safetensors, a shape or element type does not fit, or no name fits. Parameters loaded
    /// before the fault keep the file's values.
    pub fn load_bytes(&mut self, bytes: &[u8], origin: &str, options: &LoadOptions) -> Result<LoadReport, ModelError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|source| ModelError::Safetensors { origin: origin.to_owned(), source })?;
        let mut report = LoadReport::default();
        let mut found: HashMap<String, ()> = HashMap::new();
        let sorted: BTreeMap<&str, TensorView<'_>> = file.iter().collect();
        for (raw, view) in &sorted {
            let Some(name) = import_name(raw) else { continue };
            if options.skip.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                continue;
            }
            let Some(expected) = self.get(&name).map(Tensor::size) else {
                report.unexpected.push((*raw).to_owned());
                continue;
            };
            let tensor = read_view(&name, view, origin)?;
            let tensor = if tensor.size() == expected {
                tensor
            } else if let Some(resized) = resized(&name, &tensor, &expected) {
                report.resized.push(name.to_string());
                resized
            } else {
                return Err(ModelError::WeightShape {
                    name: name.into_owned(),
                    origin: origin.to_owned(),
                    expected,
                    found: tensor.size(),
                });
            };
            self.set(&name, &tensor)?;
            report.loaded += 1;
            found.insert(name.into_owned(), ());
        }
        if report.loaded == 0 {
            let first = sorted.keys().next().map_or_else(String::new, |s| (*s).to_owned());
            return Err(ModelError::NothingMatches { origin: origin.to_owned(), expected: self.len(), first });
        }
        report.missing = self.iter().map(|p| p.name()).filter(|n| !found.contains_key(*n)).map(str::to_owned).collect();
        report.missing.sort();
        Ok(report)
    }

    /// All parameters as the bytes of a safetensors file, fp32, under their own names.
    ///
    /// # Errors
    /// If libtorch cannot copy a tensor to the host.
    pub fn save_bytes(&self) -> Result<Vec<u8>, ModelError> {
        save_tensors(self.iter().map(|p| (p.name(), p.tensor())))
    }
}

/// Named tensors as the bytes of a safetensors file, each in its own dtype (F32, BF16, F16, F64, I64, U8, Bool).
///
/// # Errors
/// If libtorch cannot copy a tensor to the host.
pub fn save_tensors<'t>(tensors: impl Iterator<Item = (&'t str, &'t Tensor)>) -> Result<Vec<u8>, ModelError> {
    let mut held = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let (dtype, width) = match tensor.kind() {
            Kind::Double => (Dtype::F64, 8),
            Kind::BFloat16 => (Dtype::BF16, 2),
            Kind::Half => (Dtype::F16, 2),
            Kind::Int64 => (Dtype::I64, 8),
            Kind::Uint8 => (Dtype::U8, 1),
            Kind::Bool => (Dtype::BOOL, 1),
            _ => (Dtype::F32, 4),
        };
        let tensor = if dtype == Dtype::F32 { tensor.to_kind(Kind::Float) } else { tensor };
        let mut bytes = vec![0u8; tensor.numel() * width];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape: Vec<usize> = tensor.size().iter().map(|&s| s as usize).collect();
        held.push((name.to_owned(), dtype, shape, bytes));
    }
    let views = held.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("the byte count is shape times width");
        (name.as_str(), view)
    });
    safetensors::serialize(views, None)
        .map_err(|source| ModelError::Safetensors { origin: "the tensors to be written".to_owned(), source })
}

/// The float tensors of a safetensors file as fp32 on the CPU, by name. Tensors of other dtypes are left out.
///
/// # Errors
/// If the bytes are not safetensors.
pub fn read_tensors(bytes: &[u8], origin: &str) -> Result<HashMap<String, Tensor>, ModelError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|source| ModelError::Safetensors { origin: origin.to_owned(), source })?;
    file.iter()
        .filter(|(_, view)| float_kind(view.dtype()).is_some())
        .map(|(name, view)| Ok((name.to_owned(), read_view(name, &view, origin)?)))
        .collect()
}

/// The model's name for a file's name; `None` if the file's entry is one to be ignored.
fn import_name(raw: &str) -> Option<Cow<'_, str>> {
    let name = raw.strip_prefix("module.").unwrap_or(raw);
    let buffers = [".freqs_cos", ".freqs_sin", ".position_ids"];
    if name.starts_with("l2v.") || buffers.iter().any(|buffer| name.ends_with(buffer)) {
        return None;
    }
    for (old, new) in [(".attn.q_bias", ".attn.q_proj.bias"), (".attn.v_bias", ".attn.v_proj.bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return Some(Cow::Owned(format!("{stem}{new}")));
        }
    }
    Some(Cow::Borrowed(name))
}

fn float_kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F64 => Some(Kind::Double),
        _ => None,
    }
}

fn read_view(name: &str, view: &TensorView<'_>, origin: &str) -> Result<Tensor, ModelError> {
    let kind = float_kind(view.dtype()).ok_or_else(|| ModelError::WeightDtype {
        name: name.to_owned(),
        origin: origin.to_owned(),
        dtype: format!("{:?}", view.dtype()),
    })?;
    let shape: Vec<i64> = view.shape().iter().map(|&s| s as i64).collect();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?.to_kind(Kind::Float))
}

/// A position table of the model for another grid, if that is what `found` is.
fn resized(name: &str, found: &Tensor, expected: &[i64]) -> Option<Tensor> {
    name.ends_with("pos_embed").then(|| resize_positions(found, expected))?
}

/// Positions [1+g*g, C] or [1, 1+g*g, C] for another square grid: the class position stays, the others are resized
/// bicubically without aligned corners (EVA, CLIPSelf; method.md 1.2.7). `None` if this is not such a case.
#[must_use]
pub fn resize_positions(found: &Tensor, expected: &[i64]) -> Option<Tensor> {
    let size = found.size();
    let ([old, width], [new, expected_width]) = (table(&size)?, table(expected)?);
    let side = |positions: i64| {
        let g = ((positions - 1) as f64).sqrt().round() as i64;
        (g > 0 && g * g == positions - 1).then_some(g)
    };
    let (old_side, new_side) = (side(old)?, side(new)?);
    if width != expected_width || size.len() != expected.len() {
        return None;
    }
    let found = found.reshape([old, width]);
    let grid = found.narrow(0, 1, old - 1).reshape([1, old_side, old_side, width]).permute([0, 3, 1, 2]);
    let grid = grid.upsample_bicubic2d([new_side, new_side], false, None, None);
    let grid = grid.permute([0, 2, 3, 1]).reshape([new_side * new_side, width]);
    Some(Tensor::cat(&[found.narrow(0, 0, 1), grid], 0).reshape(expected))
}

/// Rows and width of a table of either shape.
fn table(shape: &[i64]) -> Option<[i64; 2]> {
    match *shape {
        [rows, width] | [1, rows, width] => Some([rows, width]),
        _ => None,
    }
}
