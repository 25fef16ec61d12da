//! A minute of random faults on real processes: the run comes out as if nothing had happened. `make chaos` is the long
//! version; the program decides what must be true, this test asks it and looks that it did hurt the run. It stands in a
//! binary of its own, so that no other test takes cores from it: a run that is starved meets more than its faults.

use pixfleet_tests::{dataset, scratch};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn a_minute_of_chaos_changes_nothing() {
    let out = scratch().join("chaos");
    let mini = dataset().strip_prefix("file://").expect("the dataset is on disk");
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_chaos"));
    chaos.args(["--minutes", "1", "--seed", "1"]).arg("--out").arg(&out).arg("--dataset").arg(Path::new(mini));
    let output = chaos.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let report = std::fs::read(out.join("1/report.json")).expect("it writes a report");
    let report: Value = serde_json::from_slice(&report).expect("as JSON");
    let faults = report["faults"].as_array().expect("a list");
    assert!(faults.len() >= 6 && faults.iter().all(|f| f["fired"] == true), "{said}");
    assert_eq!(report["comparison"]["audit"]["clean"], true, "{said}");
}
