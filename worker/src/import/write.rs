//! Parameters -> one safetensors file, a tensor at a time: two thirds of a billion numbers are not held twice.

use anyhow::{Context, Result, anyhow};
use pixfleet_checkpoint::Dtype;
use pixfleet_model::Params;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use tch::Tensor;

/// An fp32 tensor on the CPU, copied out when its turn comes.
struct Fp32<'t> {
    tensor: &'t Tensor,
    shape: Vec<usize>,
}

impl View for Fp32<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0u8; self.data_len()];
        self.tensor.detach().contiguous().copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * 4
    }
}

/// Writes `params` to `out`: readers see the whole file or none of it.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(params: &Params, out: &Path) -> Result<()> {
    let views = params.iter().map(|p| {
        let shape = p.tensor().size().iter().map(|&s| s as usize).collect();
        (p.name(), Fp32 { tensor: p.tensor(), shape })
    });
    // What transformers asks of a file before it reads it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let name = out.file_name().ok_or_else(|| anyhow!("--out {} names no file", out.display()))?;
    let part = out.with_file_name(format!("{}.part", name.display()));
    let failed = || format!("cannot write {}", out.display());
    safetensors::serialize_to_file(views, Some(metadata), &part).with_context(failed)?;
    std::fs::rename(&part, out).with_context(failed)
}
