//! `[eval]`: the papers' benchmarks while the run trains.

use serde::{Deserialize, Serialize};

/// `[eval]`: a process beside the run evaluates its checkpoints (docs/benchmarks.md). No rank waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalSpec {
    /// Steps between two evaluations, a multiple of `checkpoint.every_steps`; 0: none.
    pub every_steps: u64,
    /// Benchmarks, by name.
    pub bench: Vec<String>,
    /// URL of their dataset; empty: the run's own.
    pub data: String,
    /// Further options of `pixfleet eval`, as they are typed: `["--split", "test", "--workers", "2"]`.
    pub options: Vec<String>,
}

impl EvalSpec {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 4] = ["every_steps", "bench", "data", "options"];
}

#[expect(clippy::derivable_impls, reason = "every section writes its defaults out")]
impl Default for EvalSpec {
    fn default() -> Self {
        Self { every_steps: 0, bench: Vec::new(), data: String::new(), options: Vec::new() }
    }
}
