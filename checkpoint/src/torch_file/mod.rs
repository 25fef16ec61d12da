//! Files of `torch.save` (`.pt`, `.pth`): a zip container with one pickle and a record per storage. The tensors of the
//! state dict within, by name, as host tensors.
//!
//! A pickle is a program. This reader knows the instructions that torch writes and a closed list of names; the rest is
//! refused with what it named, and nothing is ever imported or called. Sizes are checked before memory is taken: a
//! tensor never has more bytes than its record in the file, and the pickle at most 64 MiB.
//!
//! No crate was found that refuses names: `serde-pickle` knows no persistent ids, `pytorch-reader` passes over what it
//! does not know. The container is read by `rawzip`.

mod archive;
mod error;
mod globals;
mod node;
mod pickle;
mod state_dict;
mod tensor;
#[cfg(test)]
mod tests;

pub use error::{Container, PickleFault, RecordFault, TensorFault, TorchFileError};

use crate::HostTensor;
use archive::Archive;
use pickle::Stop;
use safetensors::Dtype;
use state_dict::StateDict;
use std::path::Path;

/// An open torch.save file. The list of tensors is in memory, their contents are read one by one.
#[derive(Debug)]
pub struct TorchFile {
    archive: Archive,
    state: StateDict,
}

impl TorchFile {
    /// Opens `path` and lists the tensors of its state dict: the root, or what lies under `state_dict`, `model`, `module`
    /// or `model_state_dict`. A prefix `module.` that all names have is taken off.
    ///
    /// # Errors
    /// If the file is no torch.save zip file, is truncated or damaged, names anything outside the closed list, or holds
    /// no state dict.
    pub fn open(path: &Path) -> Result<Self, TorchFileError> {
        let archive = Archive::open(path)?;
        let bytes = archive.whole("data.pkl")?;
        let (graph, root) = pickle::read(&bytes).map_err(|stop| match stop {
            Stop::Refused(global) => TorchFileError::Refused { path: path.into(), global },
            Stop::Fault(at, fault) => TorchFileError::Pickle { path: path.into(), at, fault },
        })?;
        let state = state_dict::find(&graph, root).map_err(|found| TorchFileError::NoStateDict {
            path: path.into(),
            expected: state_dict::KEYS.join(", "),
            found,
        })?;
        let file = Self { archive, state };
        file.check_storages()?;
        Ok(file)
    }

    /// Name, element type and shape of every tensor, in the order of names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        self.state.tensors.iter().map(|(name, t)| (name.as_str(), t.storage.dtype, t.shape.as_slice()))
    }

    /// The keys from the root of the file to the state dict.
    #[must_use]
    pub fn under(&self) -> &[&'static str] {
        &self.state.under
    }

    /// Names in the state dict whose values are no tensors.
    #[must_use]
    pub fn others(&self) -> &[String] {
        &self.state.others
    }

    /// Reads one tensor: dense, row by row.
    ///
    /// # Errors
    /// If there is no such name, or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<HostTensor, TorchFileError> {
        let path = self.archive.path();
        let missing = || TorchFileError::NoTensor { path: path.into(), name: name.into() };
        let tensor = self.state.tensors.get(name).ok_or_else(missing)?;
        let width = tensor.storage.dtype.bitsize() as u64 / 8;
        let start = tensor.offset * width;
        let bytes = self.archive.read(&record(&tensor.storage.key), start..start + tensor.extent() * width)?;
        Ok(HostTensor {
            name: name.to_owned(),
            dtype: tensor.storage.dtype,
            shape: tensor.shape.clone(),
            bytes: tensor.gather(bytes).into(),
        })
    }

    /// Every storage that a tensor names is a record of its size.
    fn check_storages(&self) -> Result<(), TorchFileError> {
        for tensor in self.state.tensors.values() {
            let record = record(&tensor.storage.key);
            let found = self.archive.size(&record)?;
            // A product beyond 64 bits is no size that a file has.
            let expected = tensor.storage.bytes().unwrap_or(u64::MAX);
            if found != expected {
                return Err(self.archive.fault(&record, RecordFault::Size { expected, found }));
            }
        }
        Ok(())
    }
}

/// The record of a storage.
fn record(key: &str) -> String {
    format!("data/{key}")
}
