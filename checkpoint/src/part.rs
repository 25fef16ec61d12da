//! One rank's share of a checkpoint: which tensors it holds, and their bytes as safetensors.
//!
//! Invariant: the shares of ranks `0..world` are disjoint and cover the name-sorted list, whatever the world size.

use crate::error::CheckpointError;
use bytes::Bytes;
use pixfleet_cluster::Rank;
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// A tensor's contents in host memory: little-endian, row-major, dense.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// For instance `adam_m/visual.norm.weight`.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes; empty for a scalar.
    pub shape: Vec<usize>,
    /// `product(shape) * size of dtype` bytes.
    pub bytes: Bytes,
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The share of `rank`: a range of the name-sorted list of tensors whose sizes are `bytes`. Whole tensors, contiguous,
/// as even as whole tensors allow: a tensor goes to the rank whose slice of all bytes holds its middle.
#[must_use]
pub fn share(bytes: &[u64], rank: Rank, world: u32) -> Range<usize> {
    let total: u128 = bytes.iter().map(|&b| u128::from(b)).sum();
    let world = u128::from(world.max(1));
    let mut before = 0u128;
    let owners: Vec<u128> = bytes
        .iter()
        .map(|&b| {
            let middle_twice = 2 * before + u128::from(b);
            before += u128::from(b);
            (middle_twice * world / (2 * total).max(1)).min(world - 1)
        })
        .collect();
    // Middles grow, so owners never decrease and each rank's tensors lie side by side.
    let from = owners.partition_point(|&owner| owner < u128::from(rank.0));
    let to = owners.partition_point(|&owner| owner <= u128::from(rank.0));
    from..to
}

/// The bytes of one part, ready to be put.
#[derive(Debug, Clone)]
pub struct EncodedPart {
    /// A safetensors file.
    pub bytes: Bytes,
    /// blake3 of `bytes`, in hex.
    pub blake3: String,
    /// Names of the tensors within, sorted.
    pub tensors: Vec<String>,
}

/// Packs tensors as safetensors. The same tensors give the same bytes.
///
/// # Errors
/// [`CheckpointError::Part`] if a tensor's bytes do not fit its shape; `key` names the part in the message.
pub fn encode(key: &str, tensors: &[HostTensor]) -> Result<EncodedPart, CheckpointError> {
    // One metadata key only: several would be written in the random order of a hash map.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(tensors.iter().map(|t| (t.name.as_str(), t)), Some(metadata))
        .map_err(|source| CheckpointError::Part { key: key.into(), source })?;
    let mut names: Vec<String> = tensors.iter().map(|t| t.name.clone()).collect();
    names.sort_unstable();
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    Ok(EncodedPart { bytes: bytes.into(), blake3, tensors: names })
}

/// Takes a part apart; the tensors share its memory.
///
/// # Errors
/// [`CheckpointError::Part`] if the bytes are not safetensors; `key` names the part in the message.
pub fn decode(key: &str, part: &Bytes) -> Result<Vec<HostTensor>, CheckpointError> {
    let file = SafeTensors::deserialize(part).map_err(|source| CheckpointError::Part { key: key.into(), source })?;
    let tensors = file.iter().map(|(name, view)| HostTensor {
        name: name.to_string(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: part.slice_ref(view.data()),
    });
    Ok(tensors.collect())
}
