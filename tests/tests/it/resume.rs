//! Resumed = uninterrupted, also with another number of workers; a drain loses nothing.

use pixfleet_tests::system::System;
use pixfleet_tests::{Log, TestRun, assert_same_losses, pixfleet, succeed};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};

fn uninterrupted(run: &TestRun) -> BTreeMap<u64, f64> {
    Log::parse(&succeed(run.train(2)).stdout).losses()
}

/// Starts the run, sends `signal` to `pixfleet train` once `step` is printed, and returns what it had printed.
fn interrupted(run: &TestRun, workers: u32, step: u64, signal: rustix::process::Signal) -> (Log, ExitStatus) {
    let mut child: Child = run.train(workers).stdout(Stdio::piped()).spawn().expect("pixfleet starts");
    let pid = rustix::process::Pid::from_child(&child);
    let mut text = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("the log is text");
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
        if line.contains(&format!("\"step\":{step},")) {
            // Fails only if the run ended by itself, which the caller's look at the status shows.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    let status = child.wait().expect("the child is ours");
    (Log::parse(&text), status)
}

#[test]
fn killed_at_step_12_and_resumed_from_10_with_three_workers() {
    cut_and_resumed(System::Pixclip);
}

#[test]
fn and_so_with_captions_regions_and_negatives() {
    cut_and_resumed(System::Fgclip);
}

fn cut_and_resumed(system: System) {
    let run = |name: &str| TestRun::of(&format!("{name}-{system:?}").to_lowercase(), system);
    let whole = uninterrupted(&run("whole-kill"));
    let run = run("cut");
    let (first, status) = interrupted(&run, 2, 12, rustix::process::Signal::KILL);
    assert_eq!(status.signal(), Some(9), "the run must have died of the signal");
    assert_same_losses(&whole, &first.losses(), 1e-5, "before the cut");
    let second = Log::parse(&succeed(run.train(3)).stdout).losses();
    assert_eq!(second.keys().next(), Some(&10), "resumes at the checkpoint of step 10: {second:?}");
    assert_eq!(second.len(), 10);
    assert_same_losses(&whole, &second, 1e-5, "resumed with 3 workers and uninterrupted with 2");
    succeed(pixfleet(["audit", &run.url()]));
}

#[test]
fn ctrl_c_drains_writes_a_checkpoint_and_asks_to_be_requeued() {
    let whole = uninterrupted(&TestRun::new("whole-drain"));
    let run = TestRun::new("drained");
    let (first, status) = interrupted(&run, 2, 3, rustix::process::Signal::INT);
    assert_eq!(status.code(), Some(75), "drained");
    let done = first.losses().len() as u64;
    assert!((4..20).contains(&done), "drained before the end: {done} steps");
    let second = Log::parse(&succeed(run.train(2)).stdout).losses();
    assert_eq!(second.keys().next(), Some(&done), "goes on at the next step");
    assert_eq!(done + second.len() as u64, 20, "no step is lost or redone");
    assert_same_losses(&whole, &second, 1e-5, "resumed after a drain and uninterrupted");
    succeed(pixfleet(["audit", &run.url()]));
}
