//! What `--print-plan` says of a run: its file with every value, and below, as comments, what follows from it. So the
//! plan is a run file itself.

use pixfleet_cluster::RunSpec;
use pixfleet_cluster::spec::Reduce;
use std::fmt::Write;

/// The plan of one run.
pub(super) fn plan(spec: &RunSpec) -> String {
    let mut text = spec.to_toml();
    text.push_str("\n# How long everybody waits for what, the shortest first, and the key that overrides it:\n");
    for line in spec.ladder().to_string().lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# {line}");
    }
    text.push_str("\n# What train.reduce promises:\n");
    for line in promise(spec.train.reduce) {
        let _ = writeln!(text, "# {line}");
    }
    text
}

/// What may be counted on, by device.
fn promise(reduce: Reduce) -> &'static [&'static str] {
    match reduce {
        Reduce::Fast => {
            &["fast: the same losses whatever the number of workers, but for fp32 rounding, on any device."]
        }
        Reduce::Exact => &[
            "exact on CPUs: the same bits whatever the number of workers and whoever came and went, on one kind of",
            "  processor; each worker computes with one thread.",
            "exact on GPUs: kernels that libtorch knows to be deterministic, and an error that names the first operation",
            "  which has none. The same bits whatever the number of workers on GPUs of one model with one version of CUDA",
            "  and its libraries; between models, or between a GPU and a CPU, there is no such promise.",
        ],
    }
}
