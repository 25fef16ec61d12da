//! `pixfleet audit` on runs that were never trained: verdicts, JSON and exit codes.

mod synthetic;
mod verify;

use pixfleet_cluster::ledger::{Record, Substitution};
use pixfleet_cluster::{DatasetShape, SampleId, SampleOrder};
use serde_json::{Value, json};
use std::process::{Command, Output};
use synthetic::Synthetic;

const SMALL: &[u32] = &[5, 7, 4];

fn small() -> Synthetic {
    Synthetic { rows: SMALL.to_vec(), window: 2, batch: 6, segment: 3 }
}

fn order() -> SampleOrder {
    SampleOrder::new(Synthetic::SEED, DatasetShape { rows: SMALL.to_vec() }, 2).expect("has rows")
}

fn pixfleet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pixfleet")).args(args).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Audits a run with these records: the exit code, what a person reads and what a program reads.
fn audit(records: Vec<Record>) -> (Option<i32>, String, Value) {
    let folder = tempfile::tempdir().expect("temporary");
    let url = small().write(folder.path(), records.into_iter());
    let (table, json) = (pixfleet(&["audit", &url]), pixfleet(&["audit", &url, "--json"]));
    assert_eq!(table.status.code(), json.status.code());
    let value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}", said(&json)));
    (table.status.code(), said(&table), value)
}

fn steps(range: std::ops::Range<u64>) -> impl Iterator<Item = Record> {
    range.map(|s| Record::Step(small().step(s)))
}

#[test]
fn a_clean_run_ends_with_0() {
    let cut_back = [Synthetic::formed(2, 3)].into_iter().chain(steps(3..7));
    let (code, table, json) = audit([Synthetic::formed(1, 0)].into_iter().chain(steps(0..5)).chain(cut_back).collect());
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("7 steps, 2 redone; 2 generations"), "{table}");
    assert!(table.ends_with("clean: every sample was used exactly once\n"), "{table}");
    assert_eq!((&json["clean"], &json["steps"], &json["generations"]), (&json!(true), &json!(7), &json!(2)));
    let third = json!({"epoch": 2, "samples": 10, "once": 10, "substituted": 0, "missing": 0, "doubled": 0});
    assert_eq!(json["epochs"][2], third);
}

#[test]
fn a_lost_step_ends_with_1_and_names_its_samples() {
    let (code, table, json) = audit(steps(0..3).chain(steps(4..7)).collect());
    assert_eq!(code, Some(1), "{table}");
    let lost = order().locate(18);
    assert!(table.contains("step 3 is missing") && table.contains(&format!("missing: {lost}")), "{table}");
    assert!(table.ends_with("NOT clean\n"), "{table}");
    assert_eq!((&json["clean"], &json["epochs"][1]["missing"]), (&json!(false), &json!(6)));
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(7), "{json}");
}

#[test]
fn of_many_missing_samples_a_hundred_are_named() {
    let (_, table, json) = audit(steps(0..1).chain(steps(31..32)).collect());
    let named =
        json["findings"].as_array().expect("a list").iter().filter(|f| f.to_string().contains("missing: epoch"));
    assert_eq!(named.count(), 100);
    assert!(table.contains("and 80 samples more that are missing or doubled"), "{table}");
}

#[test]
fn substitutions_are_named_and_clean() {
    let mut order = order();
    let wanted = order.locate(13);
    let used = order.substitute(wanted, 1);
    let mut step = small().step(2);
    step.substitutions.push(Substitution { position: 13, wanted, used, reason: "corrupt JPEG".into() });
    let (code, table, json) = audit(steps(0..2).chain([Record::Step(step)]).collect());
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains(&format!("substituted: {wanted} at position 13 by {used}: corrupt JPEG")), "{table}");
    let sample = |s: SampleId| json!({"epoch": s.epoch, "row_group": s.row_group, "row": s.row});
    let named = json!([{"position": 13, "wanted": sample(wanted), "used": sample(used), "reason": "corrupt JPEG"}]);
    assert_eq!(json["substitutions"], named);
}

#[test]
fn a_run_that_cannot_be_read_ends_with_1_and_a_wrong_command_with_2() {
    let folder = tempfile::tempdir().expect("temporary");
    let nothing = pixfleet(&["audit", &format!("file://{}", folder.path().display())]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("there is no run at"), "{}", said(&nothing));

    let url = small().write(folder.path(), steps(0..9));
    std::fs::remove_file(folder.path().join("store/r").join(Record::segment_key(1))).expect("was written");
    let hole = pixfleet(&["audit", &url]);
    assert_eq!(hole.status.code(), Some(1));
    assert!(said(&hole).contains("ledger segment ledger/00000000000000000001.jsonl is missing"), "{}", said(&hole));

    assert_eq!(pixfleet(&["audit"]).status.code(), Some(2));
    assert_eq!(pixfleet(&["audit", "a", "b"]).status.code(), Some(2));
}
