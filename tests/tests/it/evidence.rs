//! A worker that feeds two of its lanes in each other's place, in one step: losses look as they should, and the audit says which step
//! it was, and by the workers' logs which rows.

use pixfleet_tests::{Log, TestRun, pixfleet, succeed};

#[test]
fn lanes_that_were_swapped_once_are_named_with_their_step_rank_and_rows() {
    let run = TestRun::new("misfed");
    let logs = run.dir.join("fed");
    let mut train = run.train(3);
    train.env("PIXFLEET_FAULT", "w1:step=7:after=feed:with=swap").env("PIXFLEET_FED_LOG", &logs);
    let log = Log::parse(&succeed(train).stdout);
    assert_eq!(log.losses().len(), 20, "the run ends as any other");

    let audit = |args: &[&str]| {
        let output = pixfleet(["audit", &run.url()].iter().chain(args)).output().expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = audit(&["--bisect", logs.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1), "{text}");
    let findings: Vec<&str> = text.lines().filter(|line| line.ends_with("was not fed the rows of the plan")).collect();
    assert_eq!(findings, ["step 7 was not fed the rows of the plan"], "{text}");
    assert!(text.contains("fed: 19 of 20 steps with evidence had just the rows of the plan"), "{text}");
    // Two lanes of four rows, of one rank, and no other.
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("step 7, generation 1, rank ")).collect();
    assert_eq!(rows.len(), 8, "{text}");
    let rank = |line: &str| line.split(", ").nth(2).map(str::to_owned);
    assert!(rows.iter().all(|line| rank(line) == rank(rows[0])), "{text}");
    let lanes = log_lanes(&logs, 7);
    assert!(
        rows.iter().all(|line| lanes.iter().any(|lane| line.contains(&format!("lane {lane},")))),
        "{text}: {lanes:?}"
    );
}

/// The lanes of `step` in the log of the worker that went wrong.
fn log_lanes(prefix: &std::path::Path, step: u64) -> Vec<u64> {
    let path = format!("{}-w1.log", prefix.display());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.filter(|line| line["step"] == step).filter_map(|line| line["lane"].as_u64()).collect()
}
