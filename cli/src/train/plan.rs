//! What `--print-plan` says of a run: its file with every value, and below, as comments, what follows from it. So the
//! plan is a run file itself.

use pixfleet_cluster::RunSpec;
use std::fmt::Write;

/// The plan of one run.
pub(super) fn plan(spec: &RunSpec) -> String {
    let mut text = spec.to_toml();
    text.push_str("\n# How long everybody waits for what, the shortest first, and the key that overrides it:\n");
    for line in spec.ladder().to_string().lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# {line}");
    }
    text
}
