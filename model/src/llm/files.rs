//! The tensors of a folder's safetensors files (`model.safetensors`, or the shards that `model.safetensors.index.json`
//! names), mapped by libtorch: on a CPU, weights are the file's pages and are never copied unless they must be cast.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::error::LlmError;

/// Bytes of a header that are read at most, as safetensors itself has it.
const HEADER_MAX: u64 = 100_000_000;
/// Bytes of each tensor that tell weights from others of the same shapes.
const SAMPLE: i64 = 4096;

/// A mapped file.
#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    /// All of its bytes.
    bytes: Tensor,
    /// Where its tensors begin.
    data: i64,
}

/// Where a tensor stands.
#[derive(Debug)]
struct Spot {
    file: usize,
    info: TensorInfo,
}

/// The tensors of a folder by name.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    files: Vec<Mapped>,
    spots: BTreeMap<String, Spot>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Files {
    /// Maps every file and reads its header; nothing else is read.
    pub(crate) fn open(dir: &Path) -> Result<Self, LlmError> {
        let mut all = Self { dir: dir.to_owned(), files: Vec::new(), spots: BTreeMap::new() };
        for path in paths(dir)? {
            let header = header(&path)?;
            let mapped = map(&path, &header)?;
            let file = all.files.len();
            all.files.push(mapped);
            for (name, info) in header.metadata.tensors() {
                // Files of encoders have no prefix, those of causal models one.
                let name = name.strip_prefix("model.").unwrap_or(&name).to_owned();
                all.spots.insert(name, Spot { file, info: info.clone() });
            }
        }
        Ok(all)
    }

    /// A tensor as it stands in its file, on the CPU. `name` is without the prefix `model.`.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LlmError> {
        let spot =
            self.spots.get(name).ok_or_else(|| LlmError::NoTensor { name: name.into(), dir: self.dir.clone() })?;
        let file = &self.files[spot.file];
        let (found, path) = (&spot.info.shape, &file.path);
        if !found.iter().copied().eq(shape.iter().map(|&s| s as usize)) {
            let (name, path, expected) = (name.into(), path.clone(), shape.to_vec());
            return Err(LlmError::Shape { name, path, expected, found: found.clone() });
        }
        let kind = match spot.info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let dtype = format!("{other:?}");
                return Err(LlmError::Dtype { name: name.into(), path: path.clone(), dtype });
            }
        };
        let bytes = file.bytes(spot)?;
        // Headers may have any length, and a view must stand at a multiple of its element's size.
        let aligned = (file.data + spot.info.data_offsets.0 as i64) % 4 == 0;
        let bytes = if aligned { bytes } else { bytes.copy() };
        Ok(bytes.f_view_dtype(kind)?.f_reshape(shape)?)
    }

    /// Feeds `hash` with names, shapes and the first bytes of every tensor: whoever tunes a model changes nearly all of
    /// them, and reading all of the bytes would take minutes.
    pub(crate) fn sample(&self, hash: &mut blake3::Hasher) -> Result<(), LlmError> {
        for (name, spot) in &self.spots {
            hash.update(format!("{name} {:?} {:?}\n", spot.info.dtype, spot.info.shape).as_bytes());
            let bytes = self.files[spot.file].bytes(spot)?;
            let first = bytes.narrow(0, 0, bytes.size1()?.min(SAMPLE));
            hash.update(&Vec::<u8>::try_from(first)?);
        }
        Ok(())
    }
}

impl Mapped {
    /// The bytes of a tensor of this file, [n] uint8.
    fn bytes(&self, spot: &Spot) -> Result<Tensor, LlmError> {
        let (start, end) = spot.info.data_offsets;
        Ok(self.bytes.f_narrow(0, self.data + start as i64, (end - start) as i64)?)
    }
}

/// The files that hold the weights.
fn paths(dir: &Path) -> Result<Vec<PathBuf>, LlmError> {
    let (single, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        return Err(LlmError::Missing { path: single });
    }
    let bytes = std::fs::read(&index).map_err(|source| LlmError::Io { path: index.clone(), source })?;
    let json = |source| LlmError::Json { path: index, what: "an index of safetensors shards", source };
    let index: ShardIndex = serde_json::from_slice(&bytes).map_err(json)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let present = |path: PathBuf| if path.is_file() { Ok(path) } else { Err(LlmError::Missing { path }) };
    names.into_iter().map(|name| present(dir.join(name))).collect()
}

struct Header {
    metadata: Metadata,
    /// Where the tensors begin.
    data: u64,
}

fn header(path: &Path) -> Result<Header, LlmError> {
    let io = |source| LlmError::Io { path: path.to_owned(), source };
    let bad = |source| LlmError::Safetensors { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_MAX {
        return Err(bad(SafeTensorError::HeaderTooLarge));
    }
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json).map_err(io)?;
    let metadata = serde_json::from_slice(&json).map_err(|e| bad(SafeTensorError::InvalidHeaderDeserialization(e)))?;
    Ok(Header { metadata, data: 8 + length })
}

fn map(path: &Path, header: &Header) -> Result<Mapped, LlmError> {
    let io = |source| LlmError::Io { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(io)?.len();
    let expected = header.data + header.metadata.data_len() as u64;
    if found < expected {
        return Err(LlmError::Truncated { path: path.to_owned(), found, expected });
    }
    let name = path.to_str().ok_or_else(|| io(std::io::Error::other("its name is not UTF-8")))?;
    // Not shared: whoever wrote to a tensor would write to pages of its own.
    let bytes = Tensor::f_from_file(name, false, Some(expected as i64), (Kind::Uint8, Device::Cpu))?;
    Ok(Mapped { path: path.to_owned(), bytes, data: header.data as i64 })
}
