//! `pixfleet audit` on runs that were never trained: verdicts, JSON and exit codes.

mod synthetic;
mod verify;

use pixfleet_cluster::evidence::{LoggedLane, LoggedRow};
use pixfleet_cluster::ledger::{Record, Substitution};
use pixfleet_cluster::{DatasetShape, Generation, Lane, Rank, SampleId, SampleOrder, Step};
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
    let mut fed = small().fed();
    range.map(move |s| Record::Step(fed(small().step(s))))
}

/// Steps of a version that kept no evidence.
fn bare_steps(range: std::ops::Range<u64>) -> impl Iterator<Item = Record> {
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
fn a_run_without_evidence_is_called_what_it_is() {
    let (code, table, json) = audit(bare_steps(0..5).collect());
    assert_eq!(code, Some(0), "{table}");
    let verdict = "clean, as the plan replayed: every sample once; no evidence of what was fed\n";
    assert!(table.ends_with(verdict) && !table.contains("fed:"), "{table}");
    assert_eq!(json["proved_by"], "plan");
    let (_, table, json) = audit(bare_steps(0..2).chain(steps(2..5)).collect());
    let verdict = "clean: every sample was used exactly once; 3 of 5 steps hold evidence of it\n";
    assert!(table.ends_with(verdict), "{table}");
    assert_eq!(json["proved_by"], "plan and some evidence");
}

#[test]
fn a_step_that_was_fed_otherwise_is_named_and_its_row_is_found_in_the_logs() {
    let folder = tempfile::tempdir().expect("temporary");
    let mut records: Vec<Record> = steps(0..5).collect();
    let mut order = order();
    let samples: Vec<SampleId> = (18..24).map(|p| order.locate(p)).collect();
    let rows: Vec<u64> = samples.iter().map(|sample| order.row_number(*sample)).collect();
    let epoch = order.locate(20).epoch;
    let Record::Step(step) = &mut records[3] else { panic!("a step") };
    let sum = step.evidence.as_mut().expect("fed");
    let other = (rows[2] + 1) % order.epoch_len();
    *sum -= Synthetic::fed_row(epoch, rows[2]).at(20);
    *sum += Synthetic::fed_row(epoch, other).at(20);
    let url = small().write(folder.path(), records.into_iter());
    let prefix = folder.path().join("fed");
    let lane = |lane: u32| {
        let seats = lane as usize * 3..lane as usize * 3 + 3;
        let fed = |seat: usize| LoggedRow::from(&Synthetic::fed_row(epoch, if seat == 2 { other } else { rows[seat] }));
        let (step, generation) = (Step(3), Generation(1));
        LoggedLane { step, generation, rank: Rank(lane), lane: Lane(lane), rows: seats.map(fed).collect() }.to_line()
    };
    for worker in 0..2 {
        let path = folder.path().join(format!("fed-w{worker}.log"));
        std::fs::write(path, lane(worker) + "\n").expect("scratch is writable");
    }
    let prefix = prefix.to_str().expect("UTF-8");
    let found = pixfleet(&["audit", &url, "--bisect", prefix]);
    let said_of_row = format!(
        "step 3, generation 1, rank 0, lane 0, row 2 (position 20) was fed row {other} of train/part-00000.parquet, the plan \
         has row {} of train/part-00000.parquet",
        rows[2]
    );
    let text = said(&found);
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains("step 3 was not fed the rows of the plan") && text.contains(&said_of_row), "{text}");
    assert!(text.contains("fed: 4 of 5 steps with evidence had just the rows of the plan"), "{text}");
    let json = pixfleet(&["audit", &url, "--json", "--bisect", prefix]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["rows"], &json["epochs"][1]["missing"]), (&json!([said_of_row]), &json!(0)));

    let nothing = pixfleet(&["audit", &url, "--bisect", &format!("{prefix}/none")]);
    assert!(said(&nothing).contains("cannot list"), "{}", said(&nothing));
    let nothing = pixfleet(&["audit", &url, "--bisect", &format!("{prefix}-none")]);
    assert!(said(&nothing).contains("PIXFLEET_FED_LOG"), "{}", said(&nothing));
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
    let mut step = small().fed()(small().step(2));
    let of = |sample: SampleId| Synthetic::fed_row(sample.epoch, order.row_number(sample)).at(13);
    let sum = step.evidence.as_mut().expect("fed");
    *sum -= of(wanted);
    *sum += of(used);
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
