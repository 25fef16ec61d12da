//! A checkpoint's manifest: the one object whose presence makes a checkpoint exist.
//!
//! Invariant: a manifest names only parts that were fully written before it, each with its length and digest, so a
//! reader can tell a whole checkpoint from a damaged one without asking anybody.

use crate::ids::{Generation, Rank, RunId, Step};
use serde::{Deserialize, Serialize};

/// Object key, relative to the run's folder, of the checked run file ([`crate::RunSpec::to_toml`]), put by the
/// coordinator when the run starts: what `export`, `eval` and a resumed run read.
pub const RUN_FILE: &str = "run.toml";

/// One rank's share of a checkpoint, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Object key relative to the run's folder. A part longer than a chunk of 16 MiB lies in the objects `<path>.00000`,
    /// `<path>.00001` and so on.
    pub path: String,
    /// The rank that wrote it.
    pub rank: Rank,
    /// Length in bytes.
    pub bytes: u64,
    /// blake3 of the bytes, in hex.
    pub blake3: String,
    /// Names of the tensors within, sorted.
    pub tensors: Vec<String>,
}

/// A whole checkpoint: written once, create-only, after all its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format: [`Manifest::VERSION`].
    pub version: u32,
    /// The run that it belongs to.
    pub run: RunId,
    /// Optimizer steps that had committed: the next step to run.
    pub step: Step,
    /// The generation that wrote it.
    pub generation: Generation,
    /// Ranks of that generation: the number of parts.
    pub world: u32,
    /// Drawn by the writer: tells its own earlier attempt from somebody else's.
    pub nonce: String,
    /// Digest of the run file.
    pub spec_digest: String,
    /// Digest of the dataset index.
    pub dataset_digest: String,
    /// One per rank, in rank order.
    pub parts: Vec<PartEntry>,
}

impl Manifest {
    /// The format that this code writes and reads.
    pub const VERSION: u32 = 2;

    /// Object key, relative to the run's folder, of the manifest of `step` written in `generation`. Keys of later
    /// steps sort after those of earlier ones.
    #[must_use]
    pub fn key(step: Step, generation: Generation) -> String {
        format!("manifests/{:012}-{:06}.json", step.0, generation.0)
    }

    /// Object key, relative to the run's folder, of one part.
    #[must_use]
    pub fn part_key(step: Step, generation: Generation, rank: Rank, world: u32) -> String {
        format!("checkpoints/{:012}-g{}/part-{:05}-of-{world:05}.safetensors", step.0, generation.0, rank.0)
    }

    /// Reads (step, generation) back from a manifest's key; `None` for any other object.
    #[must_use]
    pub fn parse_key(key: &str) -> Option<(Step, Generation)> {
        let name = key.rsplit('/').next()?.strip_suffix(".json")?;
        let (step, generation) = name.split_once('-')?;
        Some((Step(step.parse().ok()?), Generation(generation.parse().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_step_and_read_back() {
        let keys: Vec<String> =
            [(9, 3), (10, 1), (1_000_000, 2)].map(|(s, g)| Manifest::key(Step(s), Generation(g))).into();
        assert!(keys.is_sorted());
        assert_eq!(Manifest::parse_key(&keys[1]), Some((Step(10), Generation(1))));
        assert_eq!(Manifest::parse_key("manifests/readme.txt"), None);
    }
}
