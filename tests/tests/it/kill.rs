//! kill -9 of one of three workers mid-step: the run ends as if nothing had happened, and every sample counts once.

use pixfleet_tests::poll::wait_for;
use pixfleet_tests::system::System;
use pixfleet_tests::{Log, TestRun, assert_same_losses, pixfleet, succeed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

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

/// The coordinators among the children of `parent`: process id and command line.
fn coordinators(parent: u32) -> Vec<(i32, String)> {
    let processes = std::fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let of_parent = read("status")?.lines().any(|line| line == format!("PPid:\t{parent}"));
        let command = read("cmdline")?.replace('\0', " ");
        (of_parent && command.contains("pixfleet-coordinator")).then_some((pid, command))
    });
    processes.collect()
}

#[test]
fn a_coordinator_that_stands_by_takes_over_under_the_front_door() {
    let run = TestRun::of("standby", System::Pixclip);
    let go = run.dir.join("go");
    let mut train = run.train(2);
    train
        .args(["--standby", "1"])
        .env("PIXFLEET_FAULT", "w0:step=7:after=feed:with=hold")
        .env("PIXFLEET_HOLD", &go)
        .env("RUST_LOG", "info");
    let train = train.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let held = run.dir.join("store").join(&run.name).join("logs");
    let limit = Duration::from_secs(60);
    let said = |words: &str| std::fs::read_to_string(held.join("standby1.log")).is_ok_and(|log| log.contains(words));
    wait_for("the second follows the first", limit, || Ok(said("standing by").then_some(()))).expect("it does");

    let before = coordinators(train.id());
    assert_eq!(before.len(), 2, "{before:?}");
    let leads = before.iter().find(|(_, command)| command.contains("coordinator.address")).expect("the first leads");
    kill_process(Pid::from_raw(leads.0).expect("a process"), Signal::KILL).expect("it runs");
    wait_for("the second leads", limit, || Ok(said("leads the run").then_some(()))).expect("it does");
    std::fs::write(run.dir.join("go-7"), "").expect("scratch is writable");

    let output = train.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = Log::parse(&output.stdout);
    let states: Vec<_> = log.lines.iter().filter(|l| l["event"] == "coordinator").map(|l| &l["state"]).collect();
    assert_eq!(states, ["lost", "found"]);
    assert_eq!(log.losses().keys().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<u64>>());
    assert_eq!(log.generations().values().max(), Some(&1), "the generation trained on");
    succeed(pixfleet(["audit", &run.url()]));
}
