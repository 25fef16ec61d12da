//! Weights as one safetensors file, or as several with an index, named as transformers names them
//! (https://huggingface.co/docs/transformers/main_classes/model, `save_pretrained(max_shard_size)`).

use crate::hub::{INDEX, WEIGHTS, WeightIndex};
use anyhow::{Context, Result};
use pixfleet_checkpoint::HostTensor;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Writes `tensors` into `folder`, at most `most` bytes a file where no single tensor is larger; the names of the files.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write(tensors: &[HostTensor], folder: &Path, most: u64) -> Result<Vec<String>> {
    let pieces = cut(tensors, most);
    let of = pieces.len();
    let mut names = Vec::new();
    let mut weight_map = BTreeMap::new();
    for (at, piece) in (1..).zip(&pieces) {
        let name = if of == 1 { WEIGHTS.to_owned() } else { format!("model-{at:05}-of-{of:05}.safetensors") };
        // What transformers asks of a file before it reads it.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let views = piece.iter().map(|tensor| (tensor.name.as_str(), tensor));
        safetensors::serialize_to_file(views, Some(metadata), &folder.join(&name))
            .with_context(|| format!("cannot write {}", folder.join(&name).display()))?;
        weight_map.extend(piece.iter().map(|tensor| (tensor.name.clone(), name.clone())));
        names.push(name);
    }
    if of > 1 {
        let index = WeightIndex::new(weight_map, tensors.iter().map(bytes).sum());
        let text = serde_json::to_string_pretty(&index).context("an index is JSON")? + "\n";
        let path = folder.join(INDEX);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        names.push(INDEX.to_owned());
    }
    Ok(names)
}

fn bytes(tensor: &HostTensor) -> u64 {
    tensor.bytes.len() as u64
}

/// The tensors in their order, cut where a piece would become larger than `most` bytes.
fn cut(tensors: &[HostTensor], most: u64) -> Vec<&[HostTensor]> {
    let mut pieces = Vec::new();
    let (mut begin, mut held) = (0, 0);
    for (at, tensor) in tensors.iter().enumerate() {
        if at > begin && held + bytes(tensor) > most {
            pieces.push(&tensors[begin..at]);
            (begin, held) = (at, 0);
        }
        held += bytes(tensor);
    }
    pieces.push(&tensors[begin..]);
    pieces
}
