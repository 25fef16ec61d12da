//! `[run]`, `[train]` and `[checkpoint]`.

use super::ladder::PATIENCE_MS_DEFAULT;
use serde::{Deserialize, Serialize};

/// `[run]`: the run's name, seed and place.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSection {
    /// Name, as it stands in the run's URL: lower-case letters, digits, `-`, `_`.
    pub name: String,
    /// Seed of sample order, augmentation and initial weights.
    pub seed: u64,
    /// URL of the folder that holds the run's ledger and checkpoints (`file://` or `s3://`): `<store>/<name>/...`.
    pub store: String,
    /// Milliseconds that a process waits for a store that fails, the run's or the dataset's, before it gives up. Absent:
    /// what follows from `train.patience_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_patience_ms: Option<u64>,
}

impl RunSection {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 2] = ["store", "store_patience_ms"];
}

/// Arithmetic of the towers' forward and backward. Weights, losses and optimizer are fp32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// fp32 throughout.
    Fp32,
    /// bf16 autocast.
    Bf16,
}

/// How the gradients of all lanes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// All-reduced in buckets while backward still runs. Weights depend on the number of workers by fp32 rounding, which
    /// training amplifies from step to step.
    Fast,
    /// Added along a fixed tree of lanes ([`crate::lane_sum`]) after backward: the same bits whatever the number of
    /// workers and whoever came and went, on the same kind of processor; each worker computes with one thread. On GPUs
    /// with kernels that are deterministic; the first operation that has none is an error which names it. A worker sends
    /// less than `2 * parameters * 4` bytes in a step, as for `fast`, where its lanes are one whole part of the tree (say four
    /// of 16 that begin at a multiple of four), else half of that more for each further part.
    Exact,
}

/// What a rank keeps of its lanes between forward and backward. Losses and gradients are the same bits either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// As many graphs as fit into half of the memory that is free on a CPU; on a GPU from two lanes on as `features`.
    Auto,
    /// The features of all lanes, and one lane's graph at a time: the towers of the other lanes run twice, and memory does
    /// not grow with lanes.
    Features,
    /// The graphs of all lanes.
    Graphs,
}

/// What of a tower's forward is made anew in backward. Losses and gradients are the same bits either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing.
    None,
    /// Every block but the last one, from its input, which alone is kept: a third more arithmetic, and the memory of one
    /// block instead of all.
    Blocks,
}

/// `[train]`: batch, lanes and membership.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainSpec {
    /// Samples in a step, constant for the run whatever the number of workers.
    pub global_batch: u32,
    /// Fixed micro-batches that the global batch is cut into; at most this many workers can take part.
    pub lanes: u32,
    /// Arithmetic of the towers.
    pub precision: Precision,
    /// How the gradients of all lanes become one.
    pub reduce: Reduce,
    /// Arithmetic in which features are gathered: bf16 halves the bytes and the memory of the gathered matrix.
    pub gather: Precision,
    /// What a rank keeps of its lanes between forward and backward.
    pub cache: Cache,
    /// What of the towers is made anew in backward.
    pub recompute: Recompute,
    /// Steps whose batches lie ready at most.
    pub prefetch_steps: u32,
    /// MiB of rows, about, that each worker reads ahead of decoding; always those of one step.
    pub prefetch_mib: u32,
    /// Fewer members than this do not train: the run checkpoints and waits.
    pub min_workers: u32,
    /// More members than this do not train: the rest stands by. 0: as many as lanes.
    pub max_workers: u32,
    /// Milliseconds that members which could train wait for others before a generation is ended, at a step boundary,
    /// to take them in.
    pub join_window_ms: u64,
    /// Milliseconds that a worker may be silent before it counts as lost. All timeouts follow from it
    /// ([`crate::spec::Ladder`]); each of the keys below, where it is there, stands in for one of them.
    pub patience_ms: u64,
    /// Milliseconds after which a collective without its peers is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collective_timeout_ms: Option<u64>,
    /// Milliseconds without a sign of life after which a member is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_ms: Option<u64>,
    /// Milliseconds that a member whose session broke may stay away while it trains on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_grace_ms: Option<u64>,
    /// Milliseconds that workers go on without any coordinator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator_patience_ms: Option<u64>,
    /// Milliseconds without a step, and at least five median steps, after which a generation hangs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<u64>,
    /// Weights and moments are compared across ranks every so many steps, and whenever a generation ends. 0: only then.
    pub digest_every_steps: u64,
}

impl TrainSpec {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 14] = [
        "cache",
        "recompute",
        "prefetch_steps",
        "prefetch_mib",
        "min_workers",
        "max_workers",
        "join_window_ms",
        "patience_ms",
        "collective_timeout_ms",
        "heartbeat_timeout_ms",
        "reconnect_grace_ms",
        "coordinator_patience_ms",
        "stall_ms",
        "digest_every_steps",
    ];
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            global_batch: 256,
            lanes: 4,
            precision: Precision::Bf16,
            reduce: Reduce::Fast,
            gather: Precision::Fp32,
            cache: Cache::Auto,
            recompute: Recompute::None,
            prefetch_steps: 2,
            prefetch_mib: 128,
            min_workers: 1,
            max_workers: 0,
            join_window_ms: 2_000,
            patience_ms: PATIENCE_MS_DEFAULT,
            collective_timeout_ms: None,
            heartbeat_timeout_ms: None,
            reconnect_grace_ms: None,
            coordinator_patience_ms: None,
            stall_ms: None,
            digest_every_steps: 50,
        }
    }
}

/// `[checkpoint]`: when to write and what to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointSpec {
    /// A checkpoint every so many steps, and always at the end and on a drain.
    pub every_steps: u64,
    /// Checkpoints to keep; older ones are removed.
    pub keep: u32,
}

impl CheckpointSpec {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 2] = ["every_steps", "keep"];
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3 }
    }
}
