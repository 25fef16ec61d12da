//! kill -9 of one of three workers mid-step: the run ends as if nothing had happened, and every sample counts once.

use pixfleet_tests::system::System;
use pixfleet_tests::{Log, TestRun, assert_same_losses, pixfleet, succeed};
use serde_json::{Value, json};

#[test]
fn a_worker_killed_mid_step_changes_nothing() {
    killed(System::Pixclip, &["forward", "backward", "optimizer"]);
}

#[test]
fn nor_does_one_of_a_run_with_captions_regions_and_negatives() {
    killed(System::Fgclip, &["backward"]);
}

fn killed(system: System, cases: &[&str]) {
    let run = |name: &str| TestRun::of(&format!("{name}-{system:?}").to_lowercase(), system);
    let whole = Log::parse(&succeed(run("whole").train(3)).stdout).losses();

    for case in cases {
        let run = run(&format!("killed-{case}"));
        let mut train = run.train(3);
        train.env("PIXFLEET_FAULT", format!("w1:step=7:after={case}"));
        let log = Log::parse(&succeed(train).stdout);

        let lost: Vec<_> = log.lines.iter().filter(|l| l["event"] == "lost").collect();
        assert_eq!(lost.len(), 1, "one loss is one event: {lost:?}");
        assert_eq!(lost[0]["signal"], 9, "the worker died of SIGKILL: {}", lost[0]);
        let generations = log.generations();
        assert!(generations[&6] < generations[&8], "a new generation was formed: {generations:?}");

        let losses = log.losses();
        assert_eq!(losses.keys().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<u64>>());
        assert_same_losses(&whole, &losses, 1e-4, "killed and undisturbed");
        let audit = succeed(pixfleet(["audit", &run.url(), "--data", "--json"]));
        let audit: Value = serde_json::from_slice(&audit.stdout).expect("JSON");
        assert_eq!(audit["evidence"], json!({"steps": 20, "as_planned": 20, "drawn": 20}), "{audit}");
        assert_eq!((&audit["clean"], &audit["proved_by"]), (&json!(true), &json!("evidence")));
    }
}
