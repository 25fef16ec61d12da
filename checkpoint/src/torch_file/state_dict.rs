//! Where a checkpoint keeps its weights: at the root, or under a key that training scripts use.

use super::node::{Graph, Id, Node};
use super::tensor::Strided;
use std::collections::BTreeMap;

/// Keys under which checkpoints keep the state dict, in the order in which they are tried.
pub(super) const KEYS: [&str; 4] = ["state_dict", "model", "module", "model_state_dict"];
/// What DataParallel and DistributedDataParallel put before every name.
const WRAPPER: &str = "module.";
/// A checkpoint nests its state dict once or twice.
const DEPTH_MAX: usize = 3;

/// A state dict as it was found.
#[derive(Debug)]
pub(super) struct StateDict {
    /// Keys from the root to it.
    pub(super) under: Vec<&'static str>,
    /// By name, without the wrapper's prefix.
    pub(super) tensors: BTreeMap<String, Strided>,
    /// Names of values that are no tensors.
    pub(super) others: Vec<String>,
}

/// The state dict of a pickle; what was found instead, if there is none.
pub(super) fn find(graph: &Graph, root: Id) -> Result<StateDict, String> {
    let mut at = root;
    let mut under = Vec::new();
    loop {
        let Node::Dict(pairs) = graph.get(at) else { return Err(format!("a {}", graph.get(at).kind())) };
        let named = pairs.iter().filter_map(|(key, value)| Some((graph.text(*key).ok()?, *value)));
        let named: BTreeMap<&str, Id> = named.collect();
        let inner = KEYS.iter().find_map(|key| {
            let value = *named.get(key)?;
            matches!(graph.get(value), Node::Dict(_)).then_some((*key, value))
        });
        match inner {
            Some((key, value)) if under.len() < DEPTH_MAX => {
                under.push(key);
                at = value;
            }
            _ => return split(graph, &named, under),
        }
    }
}

fn split(graph: &Graph, named: &BTreeMap<&str, Id>, under: Vec<&'static str>) -> Result<StateDict, String> {
    let mut tensors: BTreeMap<String, Strided> = BTreeMap::new();
    let mut others = Vec::new();
    for (name, value) in named {
        if let Node::Tensor(tensor) = graph.get(*value) {
            tensors.insert((*name).to_owned(), (**tensor).clone());
        } else {
            others.push((*name).to_owned());
        }
    }
    if tensors.is_empty() {
        let keys: Vec<&str> = named.keys().copied().take(8).collect();
        return Err(format!("a dict with the keys [{}] and no tensor", keys.join(", ")));
    }
    if tensors.keys().all(|name| name.starts_with(WRAPPER)) {
        tensors = tensors.into_iter().map(|(name, t)| (name[WRAPPER.len()..].to_owned(), t)).collect();
    }
    Ok(StateDict { under, tensors, others })
}
