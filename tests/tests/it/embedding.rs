//! Processes that embed one dataset together, and are killed.

use pixfleet_tests::embed_soak::{EmbedSoakArgs, soak};
use pixfleet_tests::scratch;

#[test]
fn embedding_processes_that_are_killed_change_nothing() {
    let out = scratch().join("embed-soak");
    let args = EmbedSoakArgs { files: 9, rows: 16, processes: 3, every: 0.5, kills: 2, lease: 1, seed: 3, out };
    let report = soak(&args).expect("as if nobody had been killed");
    assert!(report.again > 0, "nobody had anything in hand: {report}");
}
