//! The index of weights in several files, as transformers writes it: `{"metadata": {"total_size"}, "weight_map": {tensor: file}}`.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// See the module.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WeightIndex {
    #[serde(default)]
    metadata: IndexMetadata,
    weight_map: BTreeMap<String, String>,
    #[serde(skip)]
    origin: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct IndexMetadata {
    /// Bytes of all tensors.
    #[serde(default)]
    total_size: u64,
}

impl WeightIndex {
    /// Of tensors that lie in files, with their bytes in all.
    pub(crate) fn new(weight_map: BTreeMap<String, String>, total_size: u64) -> Self {
        Self { metadata: IndexMetadata { total_size }, weight_map, origin: String::new() }
    }

    /// Reads one; `origin` is what messages call it.
    ///
    /// # Errors
    /// If it is none, or names anything but files beside it.
    pub(crate) fn parse(origin: &str, text: &[u8]) -> Result<Self> {
        let index: Self =
            serde_json::from_slice(text).with_context(|| format!("{origin} is not an index of safetensors files"))?;
        // The index of a download names files beside it, nothing else on this machine.
        if let Some(file) = index.files().find(|file| Path::new(file).file_name().is_none_or(|name| name != *file)) {
            bail!("{origin} names the file `{file}`; expected a name without a folder");
        }
        Ok(Self { origin: origin.to_owned(), ..index })
    }

    /// The files, each once.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.weight_map.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter()
    }

    /// That its files hold every tensor that it lists.
    ///
    /// # Errors
    /// With the first that is lacking.
    pub(crate) fn holds(&self, has: impl Fn(&str) -> bool) -> Result<()> {
        match self.weight_map.keys().find(|name| !has(name)) {
            Some(lacking) => bail!("{} lists the tensor `{lacking}`, which none of its files holds", self.origin),
            None => Ok(()),
        }
    }
}
