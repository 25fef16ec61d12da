//! How long `pixfleet audit` takes for a billion samples on one core, from the program's start to its end, printed:
//! `cargo bench --profile dev -p pixfleet-cli --bench audit`, by hand. Needs taskset and 1 GB under the temporary folder.

#![allow(clippy::print_stdout, reason = "prints its results")]

#[path = "../tests/it/synthetic.rs"]
mod synthetic;

use pixfleet_cluster::ledger::Record;
use std::process::Command;
use std::time::Instant;
use synthetic::Synthetic;

const SAMPLES: u64 = 1_000_000_000;
const EPOCHS: u64 = 10;

fn main() {
    // The shuffle walks cycles below a power of four. 64 row groups of 1000 lie just below one and walk hardly ever; of
    // 1025, just above one: four times. A segment holds a second's steps: ten of a fast run, one of a slow one.
    for (rows, segment) in [(1000, 10), (1025, 10), (1000, 1)] {
        let groups = SAMPLES / EPOCHS / u64::from(rows);
        let run = Synthetic { rows: vec![rows; groups as usize], window: 64, batch: 4096, segment };
        let steps = SAMPLES.div_ceil(u64::from(run.batch));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut fed = run.fed();
        let steps_fed = (0..steps).map(|s| Record::Step(fed(run.step(s))));
        let records = std::iter::once(Synthetic::formed(1, 0)).chain(steps_fed);
        let url = run.write(folder.path(), records);
        let mut audit = Command::new("taskset");
        audit.args(["-c", "0", env!("CARGO_BIN_EXE_pixfleet"), "audit", &url, "--json"]);
        let start = Instant::now();
        let output = audit.output().expect("taskset runs");
        let seconds = start.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let samples = steps * u64::from(run.batch);
        println!(
            "{samples} samples in {steps} steps, {segment} a segment, row groups of {rows}: {seconds:.1} s, {:.1} ns a sample",
            seconds * 1e9 / samples as f64
        );
    }
}
