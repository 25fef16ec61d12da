//! Storages and strided views of them: what a tensor is in a file of torch.save.
//!
//! Invariant: a [`Strided`] lies within its storage and has no more elements than it, so reading one allocates no more
//! than the file holds.

use super::error::{PickleFault, TensorFault};
use super::node::{Graph, Id, Node};
use safetensors::Dtype;

/// As many sizes as torch allows.
const RANK_MAX: usize = 64;

/// A flat run of elements: the record `data/<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: Box<str>,
    pub(super) dtype: Dtype,
    /// In elements.
    pub(super) len: u64,
}

/// A tensor over a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strided {
    pub(super) storage: Storage,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<u64>,
}

impl Storage {
    /// By a persistent id: ("storage", class, key, device, length).
    pub(super) fn from_persistent_id(graph: &Graph, id: Id) -> Result<Self, PickleFault> {
        let strange = PickleFault::Arguments("persistent id");
        let [tag, class, key, _device, len] = graph.tuple(id)? else { return Err(strange) };
        let Node::Global(super::globals::Global::Storage(dtype)) = graph.get(*class) else { return Err(strange) };
        let key = graph.text(*key)?;
        // Keys are numbers; anything else would name another record.
        if graph.text(*tag)? != "storage" || key.is_empty() || !key.bytes().all(|b| b.is_ascii_digit()) {
            return Err(strange);
        }
        let len = u64::try_from(graph.int(*len)?).map_err(|_| TensorFault::Range)?;
        Ok(Self { key: key.into(), dtype: *dtype, len })
    }

    /// Its size in bytes.
    pub(super) fn bytes(&self) -> Result<u64, PickleFault> {
        self.len.checked_mul(width(self.dtype)).ok_or_else(|| TensorFault::Range.into())
    }
}

impl Strided {
    /// A checked view.
    pub(super) fn new(storage: Storage, offset: i64, shape: &[i64], stride: &[i64]) -> Result<Self, TensorFault> {
        if shape.len() != stride.len() || shape.len() > RANK_MAX {
            return Err(TensorFault::Rank { sizes: shape.len(), strides: stride.len() });
        }
        let natural = |values: &[i64]| values.iter().map(|&v| u64::try_from(v).ok()).collect::<Option<Vec<u64>>>();
        let range = || TensorFault::Range;
        let (shape, stride) = natural(shape).zip(natural(stride)).ok_or_else(range)?;
        let offset = u64::try_from(offset).map_err(|_| range())?;
        let elements = shape.iter().try_fold(1u64, |n, &s| n.checked_mul(s)).ok_or_else(range)?;
        let end = if elements == 0 {
            offset
        } else {
            let steps = shape.iter().zip(&stride).map(|(&n, &step)| (n - 1).checked_mul(step));
            let last = steps.into_iter().try_fold(offset, |sum, step| sum.checked_add(step?)).ok_or_else(range)?;
            last.checked_add(1).ok_or_else(range)?
        };
        if end > storage.len {
            return Err(TensorFault::BeyondStorage { end, storage: storage.len });
        }
        if elements > storage.len {
            return Err(TensorFault::Expanded { elements, storage: storage.len });
        }
        let shape = shape.into_iter().map(|s| s as usize).collect();
        Ok(Self { storage, offset, shape, stride })
    }

    /// Number of elements.
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().map(|&s| s as u64).product()
    }

    /// One past the last element's place, counted from the offset.
    pub(super) fn extent(&self) -> u64 {
        if self.elements() == 0 {
            return 0;
        }
        1 + self.shape.iter().zip(&self.stride).map(|(&n, &step)| (n as u64 - 1) * step).sum::<u64>()
    }

    /// The elements row by row, out of `bytes`, which begin at the offset and hold the extent.
    pub(super) fn gather(&self, bytes: Vec<u8>) -> Vec<u8> {
        if self.is_dense() {
            return bytes;
        }
        let width = width(self.storage.dtype) as usize;
        let elements = self.elements() as usize;
        let mut out = Vec::with_capacity(elements * width);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = 0u64;
        for _ in 0..elements {
            let from = at as usize * width;
            out.extend_from_slice(&bytes[from..from + width]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.stride[axis] * index[axis] as u64;
                index[axis] = 0;
            }
        }
        out
    }

    fn is_dense(&self) -> bool {
        if self.elements() == 0 {
            return true;
        }
        let mut step = 1u64;
        self.shape.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == step;
            step *= size as u64;
            fits
        })
    }
}

/// Bytes of an element; only types of [`super::globals`] occur.
fn width(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}
